"""Videos and batches of frames: ``[B, C, T, h, w]`` in the core, ``[B T, C, h, w]`` in ComfyUI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import comfy.model_management
import torch
from einops import rearrange
from torch import Tensor

from .memory import check_memory

#: Key of a LATENT: frames a video, as it was made.
FRAMES_PER_VIDEO = "frames_per_video"
#: Key of a LATENT: the index of each frame's noise. It is the only list with an entry per frame that core joins and cuts with batches.
#: One video has none, since other packs' nodes cut the samples and leave the list.
FRAME_INDICES = "batch_index"
#: Conditioning key: how many frames a video of the batch has. Core's SVD uses it, and context windows set it.
FRAMES_KEY = "num_video_frames"
#: The end of an error about videos that can't be told apart.
UNKNOWN_FRAMES = (
    "frames were removed or added by a node that doesn't tell which. For part of a batch of videos use LatentFromBatch, or sample one "
    "video at a time."
)
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
    latent = {"samples": blank, FRAMES_PER_VIDEO: frames}
    return latent if videos == 1 else {**latent, FRAME_INDICES: FrameIndex.of_videos(videos, frames)}


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
    """How many frames each video of a LATENT has: what its indices and its stored number say, or all of its frames.

    Part of a video is a video of its own.

    Raises:
        ValueError: it is no batch of frames, its videos have different lengths, or frames were removed or added so that the videos can't
            be told apart.
    """
    samples: Tensor = latent["samples"]
    if samples.ndim != 4 or not samples.numel():
        raise ValueError(
            f"The latent has the shape {list(samples.shape)}; a video is a batch of frames, [frames, channels, height, width], at least "
            "one. Use Empty VideoCrafter Latent, or VAEEncode with the model's own VAE."
        )
    rows, stored, indices = len(samples), latent.get(FRAMES_PER_VIDEO), latent.get(FRAME_INDICES)
    if not stored:
        return rows
    if indices is None:
        lengths = {rows} if 0 < rows <= stored else {stored} if stored > 0 and rows % stored == 0 else set()
    else:
        lengths = set(_lengths(indices, stored)) if len(indices) == rows and stored > 0 else set()
    if not lengths:
        raise ValueError(
            f"The latent has {rows} frames, but it was made for {len(indices) if indices else 'videos'} of {stored}: {UNKNOWN_FRAMES}"
        )
    if len(lengths) > 1:
        raise ValueError(
            f"The latent has videos of different lengths, {' and '.join(map(str, sorted(lengths)))} frames; all videos of a batch must "
            "have the same length. Sample them separately, or make them equally long."
        )
    return lengths.pop()


def check_noise(executor: Any, noise: Tensor, latent_image: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Wraps a guider's ``outer_sample``: core draws noise by the indices of a batch, which other packs' nodes don't cut.

    Raises:
        ValueError: the noise is for another number of frames.
    """
    if noise.ndim == latent_image.ndim == 4 and len(noise) != len(latent_image):
        raise ValueError(f"There is noise for {len(noise)} frames, but the latent has {len(latent_image)}: {UNKNOWN_FRAMES}")
    return executor(noise, latent_image, *args, **kwargs)


def _lengths(indices: Sequence[int], stored: int) -> Iterator[int]:
    """The lengths of the videos whose frames have these indices.

    Core's LatentBatch numbers a latent that has no indices from 0 on. The first latent's number of frames is the stored one; a later
    one counts as one video.
    """
    for number, run in enumerate(_runs(indices)):
        if number and run[0] == 0 and not isinstance(run[0], FrameIndex):
            yield len(run)
        else:
            own = (getattr(index, "frames", stored) for index in run)
            yield from Counter((frames, index // frames) for frames, index in zip(own, run, strict=True)).values()


def _runs(indices: Sequence[int]) -> list[list[int]]:
    """The indices in parts that rise."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index > runs[-1][-1]:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


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
