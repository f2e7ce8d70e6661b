"""The transformer of OpenCLIP's two towers."""

from __future__ import annotations

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import nn


def transformer(
    width: int, heads: int, layers: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """A module whose ``resblocks`` are OpenCLIP's own blocks, under their names."""
    # The blocks' constructor has no device argument.
    with torch.device(device or "cpu"):
        blocks = [ResidualAttentionBlock(width, heads) for _ in range(layers)]
    module = nn.Module()
    module.resblocks = nn.ModuleList(blocks).to(dtype=dtype)
    return module
