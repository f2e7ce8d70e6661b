"""Videos and batches of frames: ``[B, C, T, h, w]`` in the core, ``[B T, C, h, w]`` in ComfyUI."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from einops import rearrange
from torch import Tensor

from .memory import check_memory

#: Key of a LATENT: frames a video, where the batch holds several.
FRAMES_PER_VIDEO = "frames_per_video"
#: Key of a LATENT: the index of each frame's noise. It is the only list with an entry per frame that core joins and cuts with batches.
FRAME_INDICES = "batch_index"
#: Conditioning key: how many frames a video of the batch has. Core's SVD uses it, and context windows set it.
FRAMES_KEY = "num_video_frames"
#: Bounds of a video's width and height in pixels.
SMALLEST, LARGEST = 8, 4096


def fold(frames: Tensor, per_video: int) -> Tensor:
    """``[B T, C, h, w]`` -> ``[B, C, T, h, w]``."""
    return rearrange(frames, "(b t) c h w -> b c t h w", t=per_video)


def unfold(videos: Tensor) -> Tensor:
    """``[B, C, T, h, w]`` -> ``[B T, C, h, w]``."""
    return rearrange(videos, "b c t h w -> (b t) c h w")


class FrameIndex(int):
    """A frame's index in its batch, which also has the number of frames of its video; nodes that join batches leave it unchanged."""

    frames: int

    @classmethod
    def of_videos(cls, videos: int, frames: int) -> list[FrameIndex]:
        """The indices of all frames of a batch of videos, one video after the other."""
        indices = [cls(index) for index in range(videos * frames)]
        for index in indices:
            index.frames = frames
        return indices


def empty_latent(width: int, height: int, frames: int, videos: int) -> dict[str, Any]:
    """A LATENT of blank videos; width and height in pixels.

    Raises:
        ValueError: an invalid size, or one that doesn't fit into memory.
    """
    if problem := size_problem(width, height):
        raise ValueError(problem)
    device = comfy.model_management.intermediate_device()
    what = f"A latent of {videos} videos of {frames} frames at {width}x{height}"
    # The latent, and the noise of the same size.
    check_memory(2 * 4 * videos * frames * 4 * (height // 8) * (width // 8), device, what, "Make fewer, shorter or smaller videos.")
    blank = torch.zeros([videos * frames, 4, height // 8, width // 8], device=device)
    return {"samples": blank, FRAMES_PER_VIDEO: frames, FRAME_INDICES: FrameIndex.of_videos(videos, frames)}


def size_problem(width: int | None, height: int | None) -> str:
    """What is wrong with a video's size in pixels; empty if nothing is. None is the size of an input that is linked to another node.

    ComfyUI itself refuses values that are no integers. It doesn't check the bounds of inputs that a node validates by itself, or that
    are linked.
    """
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, int) and not SMALLEST <= value <= LARGEST:
            return f"{name} is {value}; it must be {SMALLEST} to {LARGEST}, and a multiple of 8."
        if isinstance(value, int) and value % 8:
            return f"{name} is {value}; it must be a multiple of 8, such as {value // 8 * 8} or {value // 8 * 8 + 8}."
    return ""


def frames_per_video(latent: dict[str, Any]) -> int:
    """How many frames each video of a LATENT has: the number that is stored in it, or all of its frames.

    Raises:
        ValueError: it is no batch of frames, its videos have different lengths, or the batch is no multiple of that number.
    """
    samples: Tensor = latent["samples"]
    stored: int | None = latent.get(FRAMES_PER_VIDEO)
    if samples.ndim != 4 or not samples.numel():
        raise ValueError(
            f"The latent has the shape {list(samples.shape)}; a video is a batch of frames, [frames, channels, height, width], at least "
            "one. Use Empty VideoCrafter Latent, or VAEEncode with the model's own VAE."
        )
    lengths = sorted({index.frames for index in latent.get(FRAME_INDICES, ()) if isinstance(index, FrameIndex)})
    if len(lengths) > 1:
        raise ValueError(
            f"The latent has videos of different lengths, {' and '.join(map(str, lengths))} frames; all videos of a batch must have the "
            "same length. Sample them separately, or make them equally long."
        )
    if stored and (stored < 0 or samples.shape[0] % stored):
        raise ValueError(
            f"The latent has {samples.shape[0]} frames, but each of its videos has {stored}: frames were removed or added after it was "
            "made. Remove or add complete videos only."
        )
    return stored or samples.shape[0]


def conditioned_frames(conditionings: dict[str, list[dict[str, Any]]]) -> int | None:
    """The frames per video that a guider's conditionings have; None if none of them has it."""
    stored = (each.get(FRAMES_KEY) for conditioning in conditionings.values() for each in conditioning)
    return next((checked_frames(frames) for frames in stored if frames), None)


def checked_frames(frames: Any) -> int:
    """A conditioning's frames per video, checked.

    Raises:
        ValueError: not an integer of at least 1.
    """
    if not isinstance(frames, int) or frames < 1:
        raise ValueError(
            f"The conditioning has {frames!r} frames per video; an integer of at least 1 is needed. Use VideoCrafter Conditioning, which "
            "sets it."
        )
    return frames
