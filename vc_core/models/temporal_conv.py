"""The convolutions over time at the end of a residual block, in the two forms that published models have.

Module names are those of the published checkpoints. Shapes: b videos, t frames, h and w of a frame, l positions of a frame.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import UNetConfig
from .layers import LayerFactory, zero_module

#: Which of Make-Your-Video's convolutions is within frames.
WITHIN_FRAMES = 1


class TemporalConvolution(nn.Module):
    """Four convolutions over time, added to their input (VideoCrafter1, arXiv:2310.19512, section 3.1)."""

    def __init__(self, channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.conv1 = _stage(layers, channels, layers.temporal_conv(channels), dropout=False)
        self.conv2 = _stage(layers, channels, layers.temporal_conv(channels))
        self.conv3 = _stage(layers, channels, layers.temporal_conv(channels))
        self.conv4 = _stage(layers, channels, layers.temporal_conv(channels))
        zero_module(self.conv4[-1])

    def forward(self, x: Tensor) -> Tensor:
        """``[b, c, t, h, w]`` -> the same shape."""
        hidden = self.added(x)
        hidden += x
        return hidden

    def added(self, x: Tensor) -> Tensor:
        """What is added to the input."""
        hidden = rearrange(x, "b c t h w -> b c t (h w)")
        hidden = self.conv4(self.conv3(self.conv2(self.conv1(hidden))))
        return hidden.unflatten(-1, x.shape[-2:])


class SpatialTemporalConvolution(nn.Module):
    """Four convolutions over time and, as the second of five, one within frames (Make-Your-Video, arXiv:2306.00943, section 3.2).

    Over time, the first and the last frame are repeated.
    """

    def __init__(self, channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _stage(layers, channels, layers.temporal_conv(channels, padded=False), dropout=False),
            _stage(layers, channels, layers.frame_conv(channels)),
            _stage(layers, channels, layers.temporal_conv(channels, padded=False)),
            _stage(layers, channels, layers.temporal_conv(channels, padded=False)),
        )
        self.conv_last = _stage(layers, channels, layers.temporal_conv(channels, padded=False))
        zero_module(self.conv_last[-1])

    def forward(self, x: Tensor) -> Tensor:
        """``[b, c, t, h, w]`` -> the same shape."""
        return x + self.added(x)

    def added(self, x: Tensor) -> Tensor:
        """What is added to the input."""
        frames, height = x.shape[2], x.shape[3]
        hidden = rearrange(x, "b c t h w -> b c t (h w)")
        for number, stage in enumerate((*self.conv, self.conv_last)):
            before, conv = stage[:-1], stage[-1]
            hidden = before(hidden)
            if number == WITHIN_FRAMES:
                hidden = conv(rearrange(hidden, "b c t (h w) -> (b t) c h w", h=height))
                hidden = rearrange(hidden, "(b t) c h w -> b c t (h w)", t=frames)
            else:
                hidden = conv(torch.cat([hidden[:, :, :1], hidden, hidden[:, :, -1:]], dim=2))
        return hidden.unflatten(-1, x.shape[-2:])


def temporal_convolution(
    config: UNetConfig, channels: int, layers: LayerFactory
) -> TemporalConvolution | SpatialTemporalConvolution | None:
    """The convolutions over time of a model's residual blocks; None where it has none."""
    if config.spatial_temporal_conv:
        return SpatialTemporalConvolution(channels, layers)
    return TemporalConvolution(channels, layers) if config.temporal_conv else None


def _stage(layers: LayerFactory, channels: int, conv: nn.Module, dropout: bool = True) -> nn.Sequential:
    # All published stages but the first have a dropout; an identity stands for it, so that the names match.
    return nn.Sequential(layers.group_norm(channels), nn.SiLU(inplace=True), *([nn.Identity()] if dropout else []), conv)
