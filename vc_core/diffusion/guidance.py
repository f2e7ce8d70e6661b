"""Guidance: how predictions under several conditionings become one.

Classifier-free guidance is Ho and Salimans (arXiv:2207.12598); its rescaling is Lin et al. (arXiv:2305.08891, section 3.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.unet import UNet


def guide(
    positive: Tensor,
    negative: Tensor,
    scale: float,
    rescale: float = 0.0,
    without_time: Tensor | None = None,
    temporal_scale: float = 0.0,
) -> Tensor:
    """Combine predictions of the same video, each ``[B, C, T, h, w]``.

    Args:
        scale: guidance; 1 leaves the positive as it is.
        rescale: how far the result goes to the positive's deviation over each video, 0 to 1.
        without_time: the positive's prediction without temporal attention, and
        temporal_scale: how far the result is pushed away from it.
    """
    guided = negative + scale * (positive - negative)
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


@dataclass(frozen=True)
class Conditioning:
    """What the UNet is told of B videos, beside the timestep."""

    #: ``[B, n, context]``
    text: Tensor
    #: ``[B, m, context]``
    image_tokens: Tensor | None = None
    #: ``[B]``
    fps: Tensor | None = None

    @staticmethod
    def stack(first: Conditioning, second: Conditioning) -> Conditioning:
        """One batch of both. Texts of differing length are repeated to a common one, which attention can't tell apart."""
        length = math.lcm(first.text.shape[1], second.text.shape[1])
        text = torch.cat([c.text.repeat(1, length // c.text.shape[1], 1) for c in (first, second)])
        return Conditioning(text, _cat(first.image_tokens, second.image_tokens), _cat(first.fps, second.fps))


def _cat(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return None
    return torch.cat([first, second])


def guided_denoiser(
    unet: UNet, positive: Conditioning, negative: Conditioning, guidance: Guidance, dtype: torch.dtype
) -> Callable[[Tensor, Tensor], Tensor]:
    """What DDIM calls: the UNet under guidance, positive and negative in one batch. Samples stay in float32 outside of it."""

    def run(x: Tensor, timestep: Tensor, given: Conditioning, temporal_attention: bool = True) -> Tensor:
        x = x.to(dtype)
        return unet(x, timestep, given.text, given.image_tokens, given.fps, temporal_attention).float()

    both = Conditioning.stack(positive, negative)

    def denoise(x: Tensor, timestep: Tensor) -> Tensor:
        without_time = run(x, timestep, positive, temporal_attention=False) if guidance.temporal_scale else None
        if guidance.scale == 1.0:
            prediction = predicted_negative = run(x, timestep, positive)
        else:
            prediction, predicted_negative = run(torch.cat([x, x]), torch.cat([timestep, timestep]), both).chunk(2)
        return guide(prediction, predicted_negative, guidance.scale, guidance.rescale, without_time, guidance.temporal_scale)

    return denoise
