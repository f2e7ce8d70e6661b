"""Models of the published sizes with random weights: what they cost does not depend on what they have learned."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vc_core.config import ModelConfig
from vc_core.family.parts import PARTS
from vc_core.kernels.operations import operations_for
from vc_core.models.layers import LayerFactory
from vc_core.pipeline import VideoModel

#: Random numbers that weights are cut from; prime, so that rows differ.
BLOCK = 1_000_003


def fill(network: nn.Module) -> None:
    """Weights of a size that keeps numbers moderate through all layers: matrices are random, norms and biases as they start.

    All are cut from one block of random numbers, since drawing billions takes longer than the runs.
    """
    like = next(network.parameters())
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)).to(like)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            flat, scale = parameter.data.view(-1), parameter[0].numel() ** -0.5
            for piece in flat.split(BLOCK):
                torch.mul(block[: len(piece)], scale, out=piece)
        else:
            parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)


def random_networks(
    config: ModelConfig, parts: Iterable[str], device: torch.device | str, dtype: torch.dtype
) -> dict[str, nn.Module]:
    """Networks by their part's name; on ``meta`` without any numbers."""
    networks = {}
    layers = LayerFactory(operations_for(device), device="meta", dtype=dtype)
    for part in parts:
        network = PARTS[part].build(config, layers).requires_grad_(False).eval()
        if torch.device(device).type != "meta":
            network = network.to_empty(device=device)
            fill(network)
        networks[part] = network
    return networks


def random_model(config: ModelConfig, parts: Iterable[str], device: torch.device | str, dtype: torch.dtype) -> VideoModel:
    """A model that has these parts only."""
    return VideoModel(config, random_networks(config, parts, device, dtype))


def weight_bytes(network: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in network.parameters())
