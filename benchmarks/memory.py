"""Peaks of memory: what tensors take while something runs, above what was there before.

On a GPU the allocator keeps count. On the CPU torch's profiler sees every allocation, those inside of operations too. On ``meta``
nothing is computed: tensors have a size and a life and no numbers, so that a whole pass of a whole model takes seconds, in any
type and at any size, and tells exactly what the tensors would take; only an operation's own scratch space is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside of it and still alive.

    Attributes:
        live: bytes now.
        peak: the most there were after any operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {id(each.untyped_storage()) for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)}
        out = func(*args, **kwargs)
        for each in tree_iter(out):
            if isinstance(each, Tensor) and id(each.untyped_storage()) not in given:  # else a view, or in place
                self._count(each.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._storages:
            return

        def freed(_: Any) -> None:
            del self._storages[key]
            self.live -= size

        self._storages[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


class FusedAttention(TorchFunctionMode):
    """Attention as fused kernels do it, without its matrix of probabilities; on ``meta`` torch would write that out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args[:3], attn_mask=kwargs.get("attn_mask"))[0]


def walk_peak(run: Callable[[], Any]) -> int:
    """Bytes that the tensors of a run take at most, its results included; meant for ``meta``."""
    with torch.inference_mode(), FusedAttention(), LiveBytes() as counted:
        run()
    return counted.peak


def cpu_peak(run: Callable[[], Any]) -> int:
    """Bytes that torch's allocator holds at most during a run on the CPU, above those from before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.device_type() == torch.autograd.DeviceType.CPU:
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def cuda_peak(run: Callable[[], Any]) -> int:
    """Bytes that tensors take at most during a run on the GPU, above those from before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def peak(run: Callable[[], Any], device: torch.device | str) -> int:
    """The peak by the means of the device."""
    return {"meta": walk_peak, "cpu": cpu_peak, "cuda": cuda_peak}[torch.device(device).type](run)
