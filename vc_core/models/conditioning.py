"""The inputs of a UNet pass other than the noisy latent and the timestep.

Text and image are two context streams of the spatial cross-attention (VideoCrafter1, arXiv:2310.19512, section 3.2). Adapters
add streams of their own by a hook, see :mod:`.hooks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from ..errors import InputError
from .layers import Attention


@dataclass(frozen=True)
class Conditioning:
    """The conditioning of B videos. A model ignores the fields that it has no input for."""

    #: Text tokens ``[B, n, context_dim]``, or ``[B, T, n, context_dim]`` where each frame has a text of its own.
    text: Tensor
    #: Image tokens ``[B, m, context_dim]``. In models with tokens for each frame, m is their number times T, frame after frame;
    #: with any other m, every frame reads all of them.
    image_tokens: Tensor | None = None
    #: Factor on the attention to the image tokens, ``[B]``; 1 if not given.
    image_strength: Tensor | None = None
    #: Frames per second, or the frame stride, ``[B]``; the configuration's default if not given.
    fps: Tensor | None = None
    #: Latents for the input channels after those of the noisy latent, ``[B, C, T, h, w]``.
    concat: Tensor | None = None
    #: A second condition of time, ``[B, model_channels]``, added to the timestep's sinusoid before ``time_embed``.
    time: Tensor | None = None
    #: The scale of guidance that a distilled model reads, ``[B]``; none adds nothing to the timestep's sinusoid.
    guidance: Tensor | None = None
    #: The scale of motion guidance that a distilled model reads, ``[B]``; it needs ``guidance``. 0 is another condition than none.
    motion: Tensor | None = None
    #: The lowest timestep at which ``motion`` is as given, ``[B]``; below it is 0. None: at all timesteps.
    motion_stop: Tensor | None = None

    def check(self, x: Tensor, timesteps: Tensor, config: UNetConfig) -> None:
        """
        Args:
            x: the noisy latents of B videos, ``[B, C, T, h, w]``.
            timesteps: ``[B]`` or ``[B, T]``.

        Raises:
            InputError: a tensor is not of B videos and T frames, or of another width than the UNet's.
        """
        videos, frames, channels = x.shape[0], x.shape[2], x.shape[1]
        text, concat = self.text, self.concat
        rows_of_text = (videos, frames)[: text.ndim - 2]
        if text.ndim not in (3, 4) or tuple(text.shape[: text.ndim - 2]) != rows_of_text or text.shape[-1] != config.context_dim:
            raise InputError(
                f"text has the shape {list(text.shape)}; expected is [{videos}, tokens, {config.context_dim}], or "
                f"[{videos}, {frames}, tokens, {config.context_dim}] for a text per frame."
            )
        self._check_rows(videos)
        if config.motion_embedding and self.motion is not None and self.guidance is None:
            raise InputError("motion is given without guidance; the model reads it joined with the scale of guidance: give guidance, too.")
        if tuple(timesteps.shape) not in ((videos,), (videos, frames)):
            raise InputError(f"timesteps has the shape {list(timesteps.shape)}; it can be [{videos}], or [{videos}, {frames}].")
        if concat is not None and (concat.shape[0], *concat.shape[2:]) != (videos, *x.shape[2:]):
            raise InputError(f"concat has the shape {list(concat.shape)}; expected is [{videos}, C, {', '.join(map(str, x.shape[2:]))}].")
        if channels + (0 if concat is None else concat.shape[1]) != config.in_channels:
            raise InputError(
                f"The UNet has {config.in_channels} input channels; the noisy latent has {channels} and concat "
                f"{'is missing' if concat is None else concat.shape[1]}."
            )

    def _check_rows(self, videos: int) -> None:
        for name in ("image_tokens", "image_strength", "fps", "time", "guidance", "motion", "motion_stop"):
            rows = getattr(self, name)
            if rows is not None and (rows.ndim == 0 or len(rows) not in (1, videos)):
                raise InputError(f"{name} has the shape {list(rows.shape)}; its first axis must be 1 or {videos}, the number of videos.")

    def stacks_with(self, other: Conditioning) -> bool:
        """Whether :meth:`stack` gives both what they have alone: the same fields, and as many image tokens."""
        present = [[getattr(each, field.name) is not None for field in fields(Conditioning)] for each in (self, other)]
        tokens = [None if each.image_tokens is None else each.image_tokens.shape[1] for each in (self, other)]
        return present[0] == present[1] and tokens[0] == tokens[1] and self.text.ndim == other.text.ndim

    @staticmethod
    def stack(*parts: Conditioning) -> Conditioning:
        """One batch of all parts.

        Texts of different lengths are repeated to their least common multiple, which attention can't tell apart. A field that
        one part lacks is left out.
        """
        length = math.lcm(*(part.text.shape[-2] for part in parts))
        repeated = [torch.cat([part.text] * (length // part.text.shape[-2]), dim=-2) for part in parts]
        stacked = {field.name: _cat([getattr(part, field.name) for part in parts]) for field in fields(Conditioning)[1:]}
        return Conditioning(torch.cat(repeated), **stacked)


def _cat(values: list[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return torch.cat(present) if len(present) == len(values) else None


@dataclass(frozen=True)
class ContextStream:
    """Tokens that a cross-attention layer reads, with the layers that make keys and values of them."""

    #: ``[b, m, context]`` where all frames of a video read the same, ``[(b t), m, context]`` where each frame has its own.
    tokens: Tensor
    to_k: nn.Module
    to_v: nn.Module
    #: Input of ``to_v``, in the shape of ``tokens`` but for the width; ``tokens`` if None.
    value_tokens: Tensor | None = None
    #: Factor on this stream's result, ``[b]`` or ``[(b t)]``.
    strength: Tensor | None = None
    #: Applied to this stream's result ``[..., width]`` before it is added, such as a learned gate or a norm.
    gate: Callable[[Tensor], Tensor] | None = None
    #: In place of the pass's attention function.
    attention: Attention | None = None


def place_keyframes(first: Tensor, last: Tensor | None, frames: int) -> Tensor:
    """Latents of images as concat latents of a video (DynamiCrafter, arXiv:2310.12190, section 3.2).

    A single image is repeated at every frame; two images are at the first and the last frame, with zeros between.

    Args:
        first, last: ``[B, C, 1, h, w]``.

    Returns:
        ``[B, C, frames, h, w]``.

    Raises:
        InputError: two images for a video of one frame.
    """
    if last is None:
        return first.expand(-1, -1, frames, -1, -1)
    if frames < 2:
        raise InputError(f"frames is {frames}; a clip between two images has at least 2.")
    return torch.cat([first, torch.zeros_like(first).expand(-1, -1, frames - 2, -1, -1), last], dim=2)
