"""Layers for training on a processor: torch's fused attention is made for long sequences, not for 16 frames."""

from __future__ import annotations

from ..models.attention import explicit_attention
from ..models.layers import LayerFactory


def training_layers() -> LayerFactory:
    """For :class:`vc_core.models.unet.UNet`."""
    return LayerFactory(attention=explicit_attention)
