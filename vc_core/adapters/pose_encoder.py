"""The encoder of rays into features for each level of the UNet (CameraCtrl, He et al., arXiv:2404.02101, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from ..checkpoint.reading import Checkpoint
from ..models.layers import LayerFactory
from ..models.transformers import GatedGELU
from .motionctrl import ResidualBlock

#: Numbers of a ray; a latent's position has so many pixels on each axis; heads of each attention; blocks at each level.
RAY, PIXELS, HEADS, BLOCKS = 6, 8, 8, 2


def positions(frames: int, width: int, like: Tensor) -> Tensor:
    """Sinusoids of the frames' numbers, sine and cosine in turn, ``[frames, width]``."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    angles = torch.arange(frames, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like)


class TimeAttention(nn.Module):
    """Self-attention over the frames of one position."""

    def __init__(self, width: int, layers: LayerFactory) -> None:
        super().__init__()
        self.attention = layers.attention
        self.to_q = layers.linear(width, width, bias=False)
        self.to_k = layers.linear(width, width, bias=False)
        self.to_v = layers.linear(width, width, bias=False)
        self.to_out = nn.Sequential(layers.linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, t, width]`` -> the same shape. The frames' numbers are added first."""
        x = x + positions(x.shape[1], x.shape[2], x)
        return self.to_out(self.attention(self.to_q(x), self.to_k(x), self.to_v(x), HEADS))


class FeedForward(nn.Module):
    """A gated feed-forward; the identity stands for the published dropout."""

    def __init__(self, width: int, layers: LayerFactory) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGELU(width, 4 * width, layers), nn.Identity(), layers.linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` -> the same shape."""
        return self.net(x)


class TimeBlock(nn.Module):
    """Attention over the frames, then the feed-forward."""

    def __init__(self, width: int, layers: LayerFactory) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([TimeAttention(width, layers)])
        self.norms = nn.ModuleList([layers.layer_norm(width)])
        self.ff = FeedForward(width, layers)
        self.ff_norm = layers.layer_norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, t, width]`` -> the same shape."""
        x = x + self.attention_blocks[0](self.norms[0](x))
        return x + self.ff(self.ff_norm(x))


class PoseEncoder(nn.Module):
    """Features of rays. Module names are the published ones."""

    def __init__(self, channels: Sequence[int], layers: LayerFactory) -> None:
        super().__init__()
        self.encoder_conv_in = layers.conv2d(RAY * PIXELS**2, channels[0], 3, padding=1)
        self.encoder_down_conv_blocks, self.encoder_down_attention_blocks = nn.ModuleList(), nn.ModuleList()
        before = channels[0]
        for level, width in enumerate(channels):
            inputs = [before, *[width] * (BLOCKS - 1)]
            self.encoder_down_conv_blocks.append(nn.ModuleList(
                ResidualBlock(each, width, level > 0 and number == 0, layers, (1, 3, 1)) for number, each in enumerate(inputs)
            ))
            self.encoder_down_attention_blocks.append(nn.ModuleList(TimeBlock(width, layers) for _ in inputs))
            before = width

    def forward(self, rays: Tensor) -> list[Tensor]:
        """``[b, 6, t, 8 h, 8 w]`` -> ``[b, t, (h' w'), c]`` of each level."""
        frames = rays.shape[2]
        hidden = self.encoder_conv_in(nn.functional.pixel_unshuffle(rearrange(rays, "b c t h w -> (b t) c h w"), PIXELS))
        features = []
        for convolutions, attentions in zip(self.encoder_down_conv_blocks, self.encoder_down_attention_blocks, strict=True):
            for convolution, attention in zip(convolutions, attentions, strict=True):  # type: ignore[call-overload]
                hidden = convolution(hidden)
                height = hidden.shape[2]
                tokens = attention(rearrange(hidden, "(b t) c h w -> (b h w) t c", t=frames))
                hidden = rearrange(tokens, "(b h w) t c -> (b t) c h w", h=height, w=hidden.shape[3])
            features.append(rearrange(hidden, "(b t) c h w -> b t (h w) c", t=frames))
        return features


def channels_of(checkpoint: Checkpoint, prefix: str) -> list[int]:
    """The channels of each level of the encoder in a file."""
    start = f"{prefix}encoder_down_conv_blocks."
    levels = {int(name[len(start) :].split(".")[0]) for name in checkpoint.names() if name.startswith(start)}
    return [checkpoint.shape(f"{start}{level}.0.block1.weight")[0] for level in sorted(levels)]
