"""Layers for training on a processor: the same weights and numbers, a third less time.

Torch has no fast kernel for a 3D convolution that is 1 wide in space, and its fused attention is made for long sequences,
not for 16 frames.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers import Layers


class TimeConv3d(nn.Conv3d):
    """A (3, 1, 1) convolution, computed as a (3, 1) one over the plane of frames and positions."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T, h, w]` to `[B, C', T, h, w]`."""
        height, width = x.shape[-2:]
        plane = F.conv2d(x.flatten(3), self.weight[..., 0], self.bias, padding=(self.padding[0], 0))
        return plane.unflatten(3, (height, width))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Optional[Tensor] = None) -> Tensor:
    """As `vc_core.models.layers.sdpa`, written out."""
    # 'n l (heads d) -> n heads l d'
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    out = (logits if bias is None else logits + bias).softmax(dim=-1) @ v
    return out.transpose(1, 2).flatten(-2)


def training_layers() -> Layers:
    """For `vc_core.models.unet.UNet`."""
    operations = SimpleNamespace(
        Linear=nn.Linear, Conv1d=nn.Conv1d, Conv2d=nn.Conv2d, Conv3d=TimeConv3d, GroupNorm=nn.GroupNorm, LayerNorm=nn.LayerNorm
    )
    return Layers(operations=operations, attention=plain_attention)  # type: ignore[arg-type]
