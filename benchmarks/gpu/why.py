"""Section *why*: what the time of one UNet pass is spent on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ..models import random_model
from ..parts import conditioning
from .fast import Subject
from .results import Figures, Results, keys

#: Kinds of work by the operators' names, the first that fits; operators that only call others have no time of their own.
KINDS = {
    "attention": ("attention",),
    "convolutions": ("conv",),
    "norms": ("norm",),
    "matrix products": ("mm", "linear", "matmul", "einsum"),
    "copies": ("copy", "cat", "clone", "contiguous", "memcpy", "memset", "repeat", "index", "upsample", "fill", "to_dense"),
}
#: Names of kernels that change the layout inside of other operators, such as convolutions.
LAYOUT_KERNELS = ("nchwtonhwc", "nhwctonchw", "transpose", "reorder")
ROWS = 30


def kind_of(operator: str) -> str:
    """The kind of work of an operator."""
    name = operator.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other elementwise")


def own_time(event: Any, device: str) -> float:
    """Microseconds that an operator takes itself, on the device."""
    return event.self_device_time_total if device == "cuda" else event.self_cpu_time_total


def shares(events: Sequence[Any], device: str) -> dict[str, float]:
    """The share of each kind of work in the time of all operators."""
    times: dict[str, float] = {}
    for event in events:
        if event.device_type == DeviceType.CPU:
            times[kind_of(event.key)] = times.get(kind_of(event.key), 0.0) + own_time(event, device)
    total = sum(times.values()) or 1.0
    return {kind: time / total for kind, time in sorted(times.items(), key=lambda each: -each[1])}


def largest_kernels(events: Sequence[Any], device: str, count: int = 10) -> list[dict[str, Any]]:
    """The kernels that take most, on a CPU the operators: name, number of calls, and share."""
    kernels = [event for event in events if event.device_type == (DeviceType.CUDA if device == "cuda" else DeviceType.CPU)]
    total = sum(own_time(event, device) for event in kernels) or 1.0
    kernels.sort(key=lambda event: -own_time(event, device))
    return [{"kernel": each.key[:120], "calls": each.count, "share": own_time(each, device) / total} for each in kernels[:count]]


def profile_pass(subject: Subject, device: str, dtype: torch.dtype, path: Path) -> Figures:
    """One pass of one conditioning; the whole table goes to a file."""
    torch.manual_seed(0)
    config, clip = subject.config, subject.clip
    unet = random_model(config, ["unet"], device, dtype).unet
    given = conditioning(config, clip, device, dtype)
    x = torch.randn(clip.latent(config), device=device, dtype=dtype)
    timesteps = torch.full((1,), 500, device=device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with torch.inference_mode():
        unet(x, timesteps, given)
        with profile(activities=activities, record_shapes=True) as profiled:
            unet(x, timesteps, given)
            if device == "cuda":
                torch.cuda.synchronize()
    events = profiled.key_averages()
    order = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    by_shape = profiled.key_averages(group_by_input_shape=True)
    tables = [each.table(sort_by=order, row_limit=ROWS, max_name_column_width=100) for each in (events, by_shape)]
    path.write_text("\n\n".join(tables) + "\n")
    kernels = largest_kernels(events, device)
    changing = [each for each in largest_kernels(events, device, count=len(events)) if is_layout_kernel(each["kernel"])]
    return {
        **{f"share of {kind}": share for kind, share in shares(events, device).items()},
        "share of kernels that change the layout": sum(each["share"] for each in changing),
        "kernels": kernels,
        "table": path.name,
    }


def is_layout_kernel(name: str) -> bool:
    """Whether a kernel only changes the layout of a convolution's or product's operands."""
    return any(word in name.lower() for word in LAYOUT_KERNELS)


def run(results: Results, device: str, types: dict[str, torch.dtype], subjects: Sequence[Subject], folder: Path) -> None:
    """All subjects, in the last of the types."""
    name, dtype = list(types.items())[-1]
    for subject in subjects:
        path = folder / f"profile_{subject.model}_{subject.size}_{name}.txt"
        results.run(
            keys("why", "pass", subject.model, subject.size, name),
            lambda subject=subject, path=path: profile_pass(subject, device, dtype, path),  # type: ignore[misc]
        )
