"""The layers' classes for networks that run on a CPU.

The networks take their classes from a namespace like ``torch.nn``, see :class:`vc_core.models.layers.LayerFactory`. For a CPU,
:func:`operations_for` wraps such a namespace, torch's own or ComfyUI's, in the kernels of this package; for anything else it
returns the namespace unchanged. This is the only switch.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from .onednn import LinearByOneDNN
from .winograd import WinogradConv2d, WinogradTemporalConv


def operations_for(device: torch.device | str, base: Any = nn) -> Any:
    """The operations of a network that will run on ``device``: :func:`cpu_operations` on a CPU, else ``base`` itself.

    Args:
        device: where the network will run, which need not be where its weights are now.
        base: a namespace with the classes of ``torch.nn``, such as ``torch.nn`` or one of those in ``comfy.ops``.
    """
    return cpu_operations(base) if torch.device(device).type == "cpu" else base


def cpu_operations(base: Any = nn) -> Any:
    """A namespace with subclasses of the classes of ``base`` that compute the same, but for rounding, in less time on a CPU.

    They do so in float32 and without gradients; otherwise they leave all to their base class. Whatever the base class does to its
    weight before it is used, such as a cast or a LoRA, still happens.
    """
    return SimpleNamespace(
        Linear=_subclass(LinearByOneDNN, base.Linear),
        Conv1d=_subclass(LinearByOneDNN, base.Conv1d),  # those of width 1 are linear layers on tokens
        Conv2d=_subclass(WinogradConv2d, base.Conv2d),
        Conv3d=_subclass(WinogradTemporalConv, base.Conv3d),
        GroupNorm=base.GroupNorm,
        LayerNorm=base.LayerNorm,
    )


@cache
def _subclass(kernel: type, layer: type) -> type:
    return type(layer.__name__, (kernel, layer), {})
