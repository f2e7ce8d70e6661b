"""Linear layers by oneDNN, on processors in float32.

Torch multiplies matrices of float32 by MKL, which uses only a part of what processors of other makers can do. oneDNN, by which torch
computes its convolutions and half types, takes a fifth less time for the linear layers of a UNet on such a processor with AVX512, and
a tenth less with AVX2. Results differ by rounding. Torch's compiler reaches it the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``torch.nn.functional.linear``, to which it leaves what oneDNN doesn't do: ``[..., i]``, ``[o, i]``, ``[o]`` -> ``[..., o]``."""
    if _usable(input) and _takes(input, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return nn.functional.linear(input, weight, bias)


def products(a: Tensor, b: Tensor) -> Tensor:
    """As ``a @ b``, matrix by matrix: ``[n, i, j]``, ``[n, j, k]`` -> ``[n, i, k]``. For few large ones."""
    if not _usable(a):
        return a @ b
    return torch.stack([linear(x, y.t()) for x, y in zip(a, b, strict=True)])


class Linear:
    """Mixed into a Linear, whosever it is: its product is taken by :func:`linear`, whatever it does to its weight before."""

    def forward(self, input: Tensor) -> Tensor:
        if not _usable(input):
            return super().forward(input)  # type: ignore[misc]
        with _INSTEAD:
            return super().forward(input)  # type: ignore[misc]


def _usable(x: Tensor) -> bool:
    """Whether this is for it at all."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    # ARM's torch has the library, and not this.
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def _takes(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN gets right what it is given: it looks neither at all strides nor at sizes that broadcast."""
    plain = all(type(each) in (Tensor, nn.Parameter) and each.dtype == torch.float32 for each in (x, weight))
    if not plain or weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        return False
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        return False
    return bias is None or (bias.dtype == torch.float32 and bias.shape == weight.shape[:1] and bias.is_contiguous())


class _Instead(TorchFunctionMode):
    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return linear(*args, **(kwargs or {})) if func is nn.functional.linear else func(*args, **(kwargs or {}))


_INSTEAD = _Instead()
