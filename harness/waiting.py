"""Finds where the host would wait for a GPU, without one.

``torch`` can compute shapes and devices of tensors that have no numbers (``FakeTensorMode``), also for a device that is not there.
:class:`NoWaiting` sees each operation on them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

aten = torch.ops.aten
#: Operations whose result, or its shape, depends on numbers that a GPU has to compute first.
READING = {
    aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default, aten.nonzero.default, aten.masked_select.default,
    aten.equal.default, aten.unique_dim.default, aten._unique2.default, aten.repeat_interleave.Tensor, aten.bincount.default,
}  # fmt: skip
#: Operations that copy to another device; with ``non_blocking`` from pinned memory they don't wait.
COPYING = {aten._to_copy.default, aten.copy_.default, aten.copy.default}


class Waits(AssertionError):
    """An operation makes the host wait for the GPU."""


class NoWaiting(TorchDispatchMode):
    """Raises :class:`Waits` at an operation that would make the host wait for a GPU.

    Attributes:
        seen: how often each operation ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.seen[str(func)] += 1
        given = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
        on_gpu = any(each.device.type == "cuda" for each in given)
        if on_gpu and func in READING:
            raise Waits(f"{func} reads a number of the GPU's")
        if on_gpu and func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            masks = [each for each in tree_iter(args[1]) if isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8)]
            if masks:
                raise Waits(f"{func} by a mask")
        out = func(*args, **kwargs)
        if func in COPYING and not kwargs.get("non_blocking") and not (func is not aten._to_copy.default and len(args) > 2 and args[2]):
            devices = {each.device.type for each in [*given, *(each for each in tree_iter(out) if isinstance(each, Tensor))]}
            if {"cpu", "cuda"} <= devices:
                raise Waits(f"{func} between {' and '.join(sorted(devices))}: {[list(each.shape) for each in given]}")
        return out
