"""Guidance: how predictions under several conditionings become one.

Classifier-free guidance is Ho and Salimans (arXiv:2207.12598); its rescaling is Lin et al. (arXiv:2305.08891, section 3.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from ..config import UNetConfig
from ..memory import free_memory, numbers_per_position
from ..models.unet import UNet
from .deep_cache import DeepCache

#: How much of the free memory the two passes of guidance may take together.
SHARE = 0.8


def guide(
    positive: Tensor,
    negative: Tensor,
    scale: float,
    rescale: float = 0.0,
    without_time: Tensor | None = None,
    temporal_scale: float = 0.0,
    image: Tensor | None = None,
    image_scale: float = 1.0,
) -> Tensor:
    """Combine predictions of the same video, each ``[B, C, T, h, w]``.

    Args:
        scale: guidance; 1 leaves the positive as it is.
        rescale: how far the result goes to the positive's deviation over each video, 0 to 1.
        without_time: the positive's prediction without temporal attention, and
        temporal_scale: how far the result is pushed away from it.
        image: the prediction with the picture and the negative prompt, which tells the picture's part from the text's, and
        image_scale: the guidance by the picture; ``scale`` is then that by the text (InstructPix2Pix, arXiv:2211.09800, section 3.2.1).
    """
    if image is None:
        guided = negative + scale * (positive - negative)
    else:
        guided = negative + image_scale * (image - negative) + scale * (positive - image)
    if without_time is not None:
        guided = guided + temporal_scale * (positive - without_time)
    if rescale:
        axes = tuple(range(1, guided.ndim))
        matched = guided * (positive.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True))
        guided = rescale * matched + (1 - rescale) * guided
    return guided


@dataclass(frozen=True)
class Guidance:
    """How strongly a run follows its prompt. A scale of 1 needs no negative, and a temporal scale of 0 no third pass."""

    scale: float = 1.0
    rescale: float = 0.0
    temporal_scale: float = 0.0
    #: Guidance by the picture apart from that by the text; none guides by both together.
    image_scale: float | None = None


@dataclass(frozen=True)
class Conditioning:
    """What the UNet is told of B videos, beside the timestep."""

    #: ``[B, n, context]``
    text: Tensor
    #: ``[B, m, context]``
    image_tokens: Tensor | None = None
    #: ``[B]``
    fps: Tensor | None = None
    #: Latents of pictures for the input channels beside the noisy latent, ``[B, C, T, h, w]``
    concat: Tensor | None = None

    @staticmethod
    def stack(*parts: Conditioning) -> Conditioning:
        """One batch of all. Texts of differing length are repeated to a common one, which attention can't tell apart."""
        length = math.lcm(*(part.text.shape[1] for part in parts))
        text = torch.cat([part.text.repeat(1, length // part.text.shape[1], 1) for part in parts])
        return Conditioning(
            text, _cat([part.image_tokens for part in parts]), _cat([part.fps for part in parts]), _cat([part.concat for part in parts])
        )


def _cat(values: list[Tensor | None]) -> Tensor | None:
    given = [value for value in values if value is not None]
    return torch.cat(given) if len(given) == len(values) else None


def guided_denoiser(
    unet: UNet,
    positive: Conditioning,
    negative: Conditioning,
    guidance: Guidance,
    dtype: torch.dtype,
    together: bool | None = None,
    deep_cache: DeepCache | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """What DDIM calls: the UNet under guidance. Samples stay in float32 outside of it.

    Args:
        together: all conditionings in one batch, or one after the other; unless said, together on a GPU that has the memory for it.
            A processor gains nothing by a batch.
        deep_cache: a new one for each run, whose deep features are reused from step to step.
    """

    def seen(x: Tensor, given: Conditioning) -> Tensor:
        return (x if given.concat is None else torch.cat([x, given.concat.to(x)], dim=1)).to(dtype)

    def run(x: Tensor, timestep: Tensor, given: Conditioning, begun: Tensor | None = None, temporal_attention: bool = True) -> Tensor:
        deep = None if deep_cache is None else deep_cache.next_pass((id(given), temporal_attention))
        return unet(
            seen(x, given), timestep, given.text, given.image_tokens, given.fps, temporal_attention, deep=deep, begun=begun
        ).float()

    passes = [positive]
    if guidance.image_scale is not None:
        passes += [negative, replace(positive, text=negative.text)]
    elif guidance.scale != 1.0:
        passes += [negative]
    count = len(passes)
    alike = all(each.concat is positive.concat for each in passes)  # then the first block sees the same

    @cache
    def batch(positions: int, device: torch.device) -> Conditioning | None:
        """All conditionings as one, if so; decided at the first step, when all else of the run is where it will be."""
        fits = _fit(unet.config, positions, dtype, device) if together is None else together
        return Conditioning.stack(*passes) if fits else None

    def denoise(x: Tensor, timestep: Tensor) -> Tensor:
        without_time = run(x, timestep, positive, temporal_attention=False) if guidance.temporal_scale else None
        begun = unet.begin(seen(x, positive)) if alike and count > 1 else None
        if (stacked := batch(count * x.numel() // x.shape[1], x.device)) is not None:
            begun = None if begun is None else torch.cat([begun] * count)
            predicted = run(torch.cat([x] * count), torch.cat([timestep] * count), stacked, begun).chunk(count)
        else:
            predicted = tuple(run(x, timestep, given, begun) for given in passes)
        first, *others = predicted
        second, third = others[0] if others else first, others[1] if len(others) > 1 else None
        return guide(
            first, second, guidance.scale, guidance.rescale, without_time, guidance.temporal_scale,
            third, 1.0 if guidance.image_scale is None else guidance.image_scale,
        )  # fmt: skip

    return denoise


def _fit(config: UNetConfig, positions: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a GPU has the memory for a pass over so many positions of the latent at once."""
    if device.type != "cuda":
        return False
    return positions * numbers_per_position(config) * dtype.itemsize < SHARE * free_memory(device)
