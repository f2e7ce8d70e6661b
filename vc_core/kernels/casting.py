"""Weights kept in a smaller type than is computed in, and cast where they are used.

Processors without instructions for a half type multiply matrices in it some hundred times slower than in float32. There, weights in a
half type save memory only: each layer's are cast as it runs, and everything between the layers is in float32.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Network = TypeVar("Network", bound=nn.Module)


def computing_type(device: torch.device | str, dtype: torch.dtype) -> torch.dtype:
    """What to compute in with weights of type ``dtype``: that type, or float32 on a processor that has no instructions for it."""
    if torch.device(device).type != "cpu" or dtype not in (torch.float16, torch.bfloat16):
        return dtype
    if not torch.backends.mkldnn.is_available():
        return torch.float32
    # Torch's compiler asks oneDNN the same way which types it may use.
    known = torch.ops.mkldnn
    has = known._is_mkldnn_fp16_supported if dtype == torch.float16 else known._is_mkldnn_bf16_supported
    return dtype if has() else torch.float32


def cast_when_used(network: Network, dtype: torch.dtype) -> Network:
    """Has every layer of a network compute in ``dtype``, whatever its weights are kept in; the network itself is changed."""
    layers = [module for module in network.modules() if not isinstance(module, parametrize.ParametrizationList)]  # those are done
    for module in layers:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dtype != dtype:
                parametrize.register_parametrization(module, name, _Cast(dtype), unsafe=True)  # unsafe: the type changes
    return network


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, kept: Tensor) -> Tensor:
        return kept.to(self.dtype)
