"""Tiny networks for the tests: every part of the published forms, at widths that run in milliseconds."""

from __future__ import annotations

import torch
from torch import nn

from vc_core.config import UNetConfig

#: The sizes of the recorded models.
SIZES = {"model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1, "attention_resolutions": [1, 2], "head_channels": 16}
UNETS = {
    "text": UNetConfig(**SIZES, context_dim=32),
    "relative positions": UNetConfig(**SIZES, context_dim=32, temporal_conv=False, max_relative_position=4),
    "image": UNetConfig(**SIZES, context_dim=32, image_attention=True),
    "image for each frame": UNetConfig(**SIZES, context_dim=32, image_attention=True, image_gate=True, image_tokens_per_frame=2),
}


def randomize(network: nn.Module, scale: float = 0.2, seed: int = 0) -> nn.Module:
    """Draw every parameter from a normal distribution, those that start at 0 too; returns the network, ready to evaluate."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return network.requires_grad_(False).eval()
