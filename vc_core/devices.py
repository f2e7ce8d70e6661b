"""The devices of this machine: which there are, and which is taken where none is named."""

from __future__ import annotations

import torch

from .errors import InputError


def available_devices() -> list[str]:
    """The names of the devices that torch can use here, the fastest kind first; the last is ``cpu``."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        found += [f"xpu:{index}" for index in range(torch.xpu.device_count())]
    return [*found, "cpu"]


def default_device() -> str:
    """A GPU where there is one (``cuda``, a Mac's ``mps``, ``xpu``), else ``cpu``."""
    return available_devices()[0].partition(":")[0]


def device(name: str) -> torch.device:
    """A device of this machine by its name, after a first computation on it.

    Raises:
        InputError: no such device, or torch can't compute on it.
    """
    try:
        found = torch.ones(1, device=name)
        found.add(1).item()  # "meta" makes tensors, but computes nothing
    except (RuntimeError, AssertionError, ImportError) as error:  # an unknown name, or a device that this torch has no support for
        raise InputError(f"{name!r:.60} can't be used here; there is {', '.join(available_devices())}.") from error
    return found.device
