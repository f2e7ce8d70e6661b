"""Refuses videos that don't fit into this machine's memory, before memory is allocated.

On a GPU, the allocation fails with an error, which ComfyUI shows. On a CPU, the system would kill the server instead.
"""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor

#: Options by which nodes run a pass in parts: core's context windows, and functions that tile.
SPLITTING = ("context_handler", "model_function_wrapper", "sampler_calc_cond_batch_function")
#: The start of the keys of this pack's wrappers.
OUR_WRAPPERS = "videocrafter"
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
    """Wraps a guider's ``outer_sample``: checks the memory of one pass over one conditioning, unless something splits it.

    Raises:
        ValueError: less memory is free.
    """
    guider = executor.class_obj
    patcher = guider.model_patcher
    if noise.ndim == 4 and not _may_be_split(guider.model_options):
        frames, _, height, width = noise.shape
        needed = patcher.model.memory_required(list(noise.shape))
        what = f"A pass over {frames} frames of {8 * width}x{8 * height} pixels"
        check_memory(needed, patcher.load_device, what, "Make fewer or smaller frames, or use ContextWindowsManual.")
    return executor(noise, latent_image, *args, **kwargs)


def _may_be_split(model_options: dict[str, Any]) -> bool:
    """Whether a node is there that could run passes in parts: by an option, or by a wrapper of another pack's."""
    kinds = comfy.patcher_extension.WrappersMP
    wrappers = model_options.get("transformer_options", {}).get("wrappers", {})
    keys = (key for kind in (kinds.OUTER_SAMPLE, kinds.PREDICT_NOISE, kinds.CALC_COND_BATCH) for key in wrappers.get(kind, {}))
    return any(option in model_options for option in SPLITTING) or any(not str(key).startswith(OUR_WRAPPERS) for key in keys)
