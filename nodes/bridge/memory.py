"""Videos that can't fit into this machine's memory: said before anything is taken.

A GPU says itself that it has no more, and ComfyUI passes it on. Without one the system would end the whole server instead.
"""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import Tensor

#: Bytes, more than any machine has; what goes beyond is not told exactly.
BEYOND = 1e15


def check_memory(needed: float, device: torch.device, what: str, remedy: str) -> None:
    """Refuse to take more memory than there is.

    Args:
        needed: bytes.
        what: what is to be made, as the beginning of a sentence.

    Raises:
        ValueError: a processor has less memory free.
    """
    if device.type != "cpu":
        return
    free = comfy.model_management.get_free_memory(device)
    if needed > free:
        # Linked numbers can be of any size, of those that no fraction can be made as well.
        amount = f"about {needed / 1e9:.1f} GB" if needed < BEYOND else f"more than {BEYOND / 1e9:.0f} GB"
        raise ValueError(f"{what} takes {amount}, but {free / 1e9:.1f} GB of memory are free. {remedy}")


def check_pass(executor: Any, noise: Tensor, latent_image: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Wraps a guider's ``outer_sample``: one pass over one conditioning must fit.

    Raises:
        ValueError: it does not. Context windows, of which each is a pass, are not looked at.
    """
    guider = executor.class_obj
    patcher = guider.model_patcher
    if noise.ndim == 4 and "context_handler" not in guider.model_options:
        frames, _, height, width = noise.shape
        needed = patcher.model.memory_required(list(noise.shape))
        what = f"A pass over {frames} frames of {8 * width}x{8 * height} pixels"
        check_memory(needed, patcher.load_device, what, "Make fewer or smaller frames, or use ContextWindowsManual.")
    return executor(noise, latent_image, *args, **kwargs)
