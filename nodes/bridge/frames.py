"""Videos and batches of frames: ``[B, C, T, h, w]`` in the core, ``[B T, C, h, w]`` in ComfyUI."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from einops import rearrange
from torch import Tensor

#: Key of a LATENT: frames a video, where the batch holds several.
FRAMES_PER_VIDEO = "frames_per_video"
#: Conditioning key: how many frames a video of the batch has. Core's SVD uses it, and context windows set it.
FRAMES_KEY = "num_video_frames"


def fold(frames: Tensor, per_video: int) -> Tensor:
    """``[B T, C, h, w]`` -> ``[B, C, T, h, w]``."""
    return rearrange(frames, "(b t) c h w -> b c t h w", t=per_video)


def unfold(videos: Tensor) -> Tensor:
    """``[B, C, T, h, w]`` -> ``[B T, C, h, w]``."""
    return rearrange(videos, "b c t h w -> (b t) c h w")


def empty_latent(width: int, height: int, frames: int, videos: int) -> dict[str, Any]:
    """A LATENT of blank videos; width and height in pixels.

    Raises:
        ValueError: a size that is no multiple of 8.
    """
    if problem := size_problem(width, height):
        raise ValueError(problem)
    device = comfy.model_management.intermediate_device()
    return {"samples": torch.zeros([videos * frames, 4, height // 8, width // 8], device=device), FRAMES_PER_VIDEO: frames}


def size_problem(width: int | None, height: int | None) -> str:
    """What is wrong with a video's size in pixels; empty if nothing is. A size that another node gives is not known yet: None."""
    for name, value in (("width", width), ("height", height)):
        if value is not None and value % 8:
            return f"{name} is {value}; it must be a multiple of 8, such as {max(8, value // 8 * 8)} or {value // 8 * 8 + 8}."
    return ""


def frames_per_video(latent: dict[str, Any]) -> int:
    """How many frames each video of a LATENT has: what it carries, or all of them.

    Raises:
        ValueError: the batch doesn't divide into videos of that many.
    """
    samples: Tensor = latent["samples"]
    carried: int | None = latent.get(FRAMES_PER_VIDEO)
    if carried and samples.shape[0] % carried:
        raise ValueError(
            f"The latent has {samples.shape[0]} frames but says that each of its videos has {carried}: frames were taken from it or "
            "added after it was made. Take or add whole videos."
        )
    return carried or samples.shape[0]
