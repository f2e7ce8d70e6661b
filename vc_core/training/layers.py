"""Layers for training on a CPU, where torch's fused attention is slow on sequences as short as 16 frames."""

from __future__ import annotations

from torch import Tensor

from ..models.attention import explicit_attention
from ..models.layers import LayerFactory, sdpa

#: Longest sequence of keys for which attention without a fused kernel is used on a CPU; its probabilities need memory.
LONGEST_EXPLICIT = 256


def training_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Attention as :data:`vc_core.models.layers.Attention`, by the quicker way for its gradients."""
    short = q.device.type == "cpu" and k.shape[1] <= LONGEST_EXPLICIT
    return (explicit_attention if short else sdpa)(q, k, v, heads, bias)


def training_layers() -> LayerFactory:
    """Torch's layers, with :func:`training_attention`; for :class:`vc_core.models.unet.UNet`."""
    return LayerFactory(attention=training_attention)
