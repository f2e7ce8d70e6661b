"""Layers for training on a CPU, where torch's fused attention is slow on sequences as short as 16 frames."""

from __future__ import annotations

from ..models.attention import explicit_attention
from ..models.layers import LayerFactory


def training_layers() -> LayerFactory:
    """Torch's layers, with attention that uses no fused kernel; for :class:`vc_core.models.unet.UNet`."""
    return LayerFactory(attention=explicit_attention)
