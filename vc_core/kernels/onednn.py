"""Linear layers by oneDNN, on CPUs in float32.

Torch multiplies float32 matrices with MKL, which doesn't reach the full speed of CPUs that aren't Intel's. oneDNN, which torch uses
for convolutions and half types, takes a fifth less time for the linear layers of a UNet on such a CPU with AVX512, and a tenth less
with AVX2. Results differ by rounding. Torch's compiler calls the same operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``torch.nn.functional.linear``, which it calls for what oneDNN can't do: ``[..., i]``, ``[o, i]``, ``[o]`` -> ``[..., o]``."""
    if _is_available_for(input) and _is_supported(input, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return nn.functional.linear(input, weight, bias)


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """As ``torch.bmm``, one matrix after the other: ``[n, i, j]``, ``[n, j, k]`` -> ``[n, i, k]``. For a few large matrices."""
    if not _is_available_for(a):
        return a @ b
    return torch.stack([linear(x, y.t()) for x, y in zip(a, b, strict=True)])


class LinearByOneDNN(nn.Module):
    """Base class, before a layer's own class, that replaces ``torch.nn.functional.linear`` by :func:`linear` in its ``forward``.

    So it works for any layer that ends in that function, whatever it does to its weight first. ComfyUI's layers cast theirs there.
    """

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor
        if not _is_available_for(input):
            out = super().forward(input)
        else:
            with _LINEAR_BY_ONEDNN:
                out = super().forward(input)
        return out


def _is_available_for(x: Tensor) -> bool:
    """Whether oneDNN's operator is there and meant for such an input: float32 on an x86 CPU, without gradients, not being compiled."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    # Torch for ARM has oneDNN, too, but not this operator.
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def _is_supported(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the operator computes these correctly: it ignores some strides, and sizes that broadcast."""
    plain = all(type(each) in (Tensor, nn.Parameter) and each.dtype == torch.float32 for each in (x, weight))
    if not plain or weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        return False
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        return False
    return bias is None or (bias.dtype == torch.float32 and bias.shape == weight.shape[:1] and bias.is_contiguous())


class _LinearByOneDNN(TorchFunctionMode):
    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return linear(*args, **(kwargs or {})) if func is nn.functional.linear else func(*args, **(kwargs or {}))


#: While it is entered, every call of ``torch.nn.functional.linear`` is one of :func:`linear`.
_LINEAR_BY_ONEDNN = _LinearByOneDNN()
