"""A clip's frames over processes: space by frames, time by positions.

Layers in space (convolutions, attention within a frame) need one frame at a time, so each process has some of the frames. Layers over
time need all frames of a position, so before each of them the processes exchange: each gets all frames of some positions, and after it
its own frames again. The norms of these layers are over all frames and positions; the processes add up their sums. The result is that
of one process up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..models.conditioning import Conditioning
from ..models.hooks import PassInputs
from ..models.temporal_conv import TemporalConvolution
from ..models.transformers import TemporalTransformer
from ..models.unet import UNet
from .ranks import Ranks


@dataclass(frozen=True)
class _Positions:
    """The positions that this process has while a layer over time runs: the first ``own`` of its tensor's, the others are padding."""

    ranks: Ranks
    own: int


_POSITIONS: ContextVar[_Positions | None] = ContextVar("positions", default=None)


class FrameSplit:
    """The frames of clips over processes: each has as many consecutive ones; the last frame stands in where there are too few."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def numbers(self, frames: int) -> Tensor:
        """The numbers of this process's frames, of so many."""
        share = -(-frames // self.ranks.size)
        start = self.ranks.rank * share
        return torch.arange(start, start + share).clamp(max=frames - 1)

    def own(self, x: Tensor) -> Tensor:
        """This process's frames of ``[B, C, T, ...]``."""
        return x[:, :, self.numbers(x.shape[2]).to(x.device)]

    def joined(self, x: Tensor, frames: int) -> Tensor:
        """All frames, ``[B, C, T, ...]``, from each process's own."""
        return rearrange(self.ranks.gather(x), "r b c t ... -> b c (r t) ...")[:, :, :frames]

    def own_inputs(self, inputs: PassInputs, tokens_per_frame: int) -> PassInputs:
        """The inputs of a pass over this process's frames.

        Args:
            tokens_per_frame: image tokens of each frame in models that have some for each; 0 in others.
        """
        frames = inputs.x.shape[2]
        numbers, times = self.numbers(frames).to(inputs.x.device), inputs.timesteps
        conditioning = _of_frames(inputs.conditioning, numbers, frames, tokens_per_frame)
        return replace(inputs, x=self.own(inputs.x), timesteps=times[:, numbers] if times.ndim == 2 else times, conditioning=conditioning)

    def over_time(self, frames: int) -> Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]:
        """What runs a layer over time in a pass, in clips of so many frames, see :attr:`vc_core.models.transformers.Pass.over_time`."""
        return partial(self._over_time, frames)

    def _over_time(self, frames: int, layer: Callable[[Tensor], Tensor], video: Tensor) -> Tensor:
        plane = video.flatten(3)
        ranks, positions = self.ranks, plane.shape[3]
        share = -(-positions // ranks.size)
        padded = nn.functional.pad(plane, (0, share * ranks.size - positions))
        got = ranks.exchange(rearrange(padded, "b c t (r l) -> r b c t l", r=ranks.size))
        column = rearrange(got, "r b c t l -> b c (r t) l")
        own = max(0, min(share, positions - ranks.rank * share))
        before = _POSITIONS.set(_Positions(ranks, own))
        try:
            given = column[:, :, :frames].contiguous()
            out = layer(given if video.ndim == 4 else given[..., None]).flatten(3)
        finally:
            _POSITIONS.reset(before)
        out = nn.functional.pad(out, (0, 0, 0, column.shape[2] - frames))
        back = ranks.exchange(rearrange(out, "b c (r t) l -> r b c t l", r=ranks.size))
        return rearrange(back, "r b c t l -> b c t (r l)")[..., :positions].reshape(video.shape)


def _of_frames(conditioning: Conditioning, numbers: Tensor, frames: int, tokens_per_frame: int) -> Conditioning:
    text, image, concat = conditioning.text, conditioning.image_tokens, conditioning.concat
    if image is not None and tokens_per_frame:
        if image.shape[1] == tokens_per_frame * frames:
            image = rearrange(image, "b (t m) c -> b t m c", t=frames)[:, numbers].flatten(1, 2)
        elif image.shape[1] == tokens_per_frame * len(numbers):
            image = torch.cat([image, image], dim=1)  # the same to attention, and not taken for tokens of each frame
    return replace(
        conditioning, text=text[:, numbers] if text.ndim == 4 else text, image_tokens=image,
        concat=None if concat is None else concat[:, :, numbers],
    )


def share_norms(unet: UNet) -> None:
    """Make the norms of a UNet's layers over time those of all processes while :meth:`FrameSplit.over_time` runs them."""
    for module in unet.modules():
        if isinstance(module, TemporalTransformer):
            norms: list[Any] = [module.norm]
        elif isinstance(module, TemporalConvolution):
            norms = [stage[0] for stage in (module.conv1, module.conv2, module.conv3, module.conv4)]
        else:
            continue
        for norm in norms:
            if "forward" not in vars(norm):
                norm.forward = partial(_shared_norm, norm, norm.forward)


def _shared_norm(norm: nn.GroupNorm, alone: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A group norm of ``[b, c, t, l]`` over the positions of all processes; ``alone`` where no processes share them."""
    positions = _POSITIONS.get()
    if positions is None:
        return alone(x)
    groups = rearrange(x.float(), "b (g c) t l -> b g (c t) l", g=norm.num_groups)
    own = groups[..., : positions.own].flatten(2)
    count = own.shape[2]
    mean = own.mean(dim=2) if count else own.new_zeros(own.shape[:2])
    deviation = (own - mean[:, :, None]).square().sum(dim=2)  # 0 of no positions
    every = positions.ranks.gather(torch.stack([torch.full_like(mean, count), mean, deviation]).double())
    counts, means, deviations = every.unbind(1)
    total = counts.sum(dim=0)
    joint = (counts * means).sum(dim=0) / total
    variance = (deviations + counts * (means - joint).square()).sum(dim=0) / total  # Chan, Golub and LeVeque, 1979
    scale = (variance + norm.eps).rsqrt()
    normed = (groups - joint.float()[:, :, None, None]) * scale.float()[:, :, None, None]
    normed = rearrange(normed, "b g (c t) l -> b (g c) t l", t=x.shape[2]).to(x.dtype)
    return normed * norm.weight[:, None, None] + norm.bias[:, None, None]
