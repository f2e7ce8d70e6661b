"""Refuses videos that don't fit into this machine's memory, before memory is allocated.

On a GPU, the allocation fails with an error, which ComfyUI shows. On a CPU, the system would kill the server instead.
"""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import Tensor

#: Bytes, more than any machine has; the error doesn't state larger numbers exactly.
BEYOND = 1e15


def check_memory(needed: float, device: torch.device, what: str, remedy: str) -> None:
    """Check that there is enough free memory, on a CPU.

    Args:
        needed: bytes.
        what: the subject of the error's first sentence.
        remedy: the last sentence of the error.

    Raises:
        ValueError: less memory is free.
    """
    if device.type != "cpu":
        return
    free = comfy.model_management.get_free_memory(device)
    if needed > free:
        # Linked integers can exceed what a float holds.
        amount = f"about {needed / 1e9:.1f} GB" if needed < BEYOND else f"more than {BEYOND / 1e9:.0f} GB"
        raise ValueError(f"{what} takes {amount}, but {free / 1e9:.1f} GB of memory are free. {remedy}")


def check_pass(executor: Any, noise: Tensor, latent_image: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Wraps a guider's ``outer_sample``: checks the memory of one pass over one conditioning, but not with context windows.

    Raises:
        ValueError: less memory is free.
    """
    guider = executor.class_obj
    patcher = guider.model_patcher
    if noise.ndim == 4 and "context_handler" not in guider.model_options:
        frames, _, height, width = noise.shape
        needed = patcher.model.memory_required(list(noise.shape))
        what = f"A pass over {frames} frames of {8 * width}x{8 * height} pixels"
        check_memory(needed, patcher.load_device, what, "Make fewer or smaller frames, or use ContextWindowsManual.")
    return executor(noise, latent_image, *args, **kwargs)
