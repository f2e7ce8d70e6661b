"""Weights stored in a half type and cast to float32 where they are used, for CPUs that can't compute in half types.

A CPU without instructions for a half type multiplies matrices in it some hundred times slower than in float32. There, half weights
only save memory: each layer casts its own as it runs, and all activations are float32.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Network = TypeVar("Network", bound=nn.Module)


def computing_type(device: torch.device | str, dtype: torch.dtype) -> torch.dtype:
    """The type to compute in with weights of ``dtype``: the same, or float32 on a CPU that has no instructions for that half type."""
    if torch.device(device).type != "cpu" or dtype not in (torch.float16, torch.bfloat16):
        return dtype
    if not torch.backends.mkldnn.is_available():
        return torch.float32
    # Torch's compiler asks oneDNN in the same way which types it supports.
    mkldnn = torch.ops.mkldnn
    is_supported = mkldnn._is_mkldnn_fp16_supported if dtype == torch.float16 else mkldnn._is_mkldnn_bf16_supported
    return dtype if is_supported() else torch.float32


def cast_when_used(network: Network, dtype: torch.dtype) -> Network:
    """Make every layer of a network compute in ``dtype``, whatever type its weights are stored in. Changes and returns the network."""
    # A list of parametrizations holds the weights of a layer that is done already.
    layers = [module for module in network.modules() if not isinstance(module, parametrize.ParametrizationList)]
    for module in layers:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dtype != dtype:
                parametrize.register_parametrization(module, name, _Cast(dtype), unsafe=True)  # unsafe: the type changes
    return network


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, stored: Tensor) -> Tensor:
        return stored.to(self.dtype)
