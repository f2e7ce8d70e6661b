"""Layers for training on a processor: torch's fused attention is made for long sequences, not for 16 frames."""

from __future__ import annotations

from torch import Tensor

from ..models.layers import Layers


def plain_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """As `vc_core.models.layers.sdpa`, written out."""
    # 'n l (heads d) -> n heads l d'
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    out = (logits if bias is None else logits + bias).softmax(dim=-1) @ v
    return out.transpose(1, 2).flatten(-2)


def training_layers() -> Layers:
    """For `vc_core.models.unet.UNet`."""
    return Layers(attention=plain_attention)
