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
#: Key of a LATENT: which of the seed's noises each frame gets. The one list with an entry a frame that core joins and cuts with the batch.
PLACES = "batch_index"
#: Conditioning key: how many frames a video of the batch has. Core's SVD uses it, and context windows set it.
FRAMES_KEY = "num_video_frames"
#: What the sides of a video can be, in pixels.
SMALLEST, LARGEST = 8, 4096


def fold(frames: Tensor, per_video: int) -> Tensor:
    """``[B T, C, h, w]`` -> ``[B, C, T, h, w]``."""
    return rearrange(frames, "(b t) c h w -> b c t h w", t=per_video)


def unfold(videos: Tensor) -> Tensor:
    """``[B, C, T, h, w]`` -> ``[B T, C, h, w]``."""
    return rearrange(videos, "b c t h w -> (b t) c h w")


class Place(int):
    """A frame's place in its batch, which also says how many frames its video has; what joins batches keeps it as it is."""

    frames: int

    @classmethod
    def of_videos(cls, videos: int, frames: int) -> list[Place]:
        """The places of all frames of videos that follow each other."""
        places = [cls(place) for place in range(videos * frames)]
        for place in places:
            place.frames = frames
        return places


def empty_latent(width: int, height: int, frames: int, videos: int) -> dict[str, Any]:
    """A LATENT of blank videos; width and height in pixels.

    Raises:
        ValueError: a size that can't be, or more than the memory holds.
    """
    if problem := size_problem(width, height):
        raise ValueError(problem)
    device = comfy.model_management.intermediate_device()
    what = f"A latent of {videos} videos of {frames} frames at {width}x{height}"
    # Once to be made and once to be sampled; the noise is as large.
    check_memory(2 * 4 * videos * frames * 4 * (height // 8) * (width // 8), device, what, "Make fewer, shorter or smaller videos.")
    blank = torch.zeros([videos * frames, 4, height // 8, width // 8], device=device)
    return {"samples": blank, FRAMES_PER_VIDEO: frames, PLACES: Place.of_videos(videos, frames)}


def size_problem(width: int | None, height: int | None) -> str:
    """What is wrong with a video's size in pixels; empty if nothing is. A size that another node gives is not known yet: None.

    What is no whole number (a graph can hold anything) is left to ComfyUI, which refuses it itself. It leaves bounds to us, as it does for
    any input that a node checks by itself, or that another node gives.
    """
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, int) and not SMALLEST <= value <= LARGEST:
            return f"{name} is {value}; it must be {SMALLEST} to {LARGEST}, and a multiple of 8."
        if isinstance(value, int) and value % 8:
            return f"{name} is {value}; it must be a multiple of 8, such as {value // 8 * 8} or {value // 8 * 8 + 8}."
    return ""


def frames_per_video(latent: dict[str, Any]) -> int:
    """How many frames each video of a LATENT has: what it carries, or all of them.

    Raises:
        ValueError: it is no batch of frames, its videos are of different lengths, or the batch doesn't divide into videos of that many.
    """
    samples: Tensor = latent["samples"]
    carried: int | None = latent.get(FRAMES_PER_VIDEO)
    if samples.ndim != 4 or not samples.numel():
        raise ValueError(
            f"The latent is {list(samples.shape)}, but a video is a batch of frames, [frames, channels, height, width], at least one. Use "
            "Empty VideoCrafter Latent, or VAEEncode with the model's own VAE."
        )
    lengths = sorted({place.frames for place in latent.get(PLACES, ()) if isinstance(place, Place)})
    if len(lengths) > 1:
        raise ValueError(
            f"The latent has videos of different lengths, {' and '.join(map(str, lengths))} frames: what is sampled at once must be "
            "equally long. Sample them apart, or make both as long."
        )
    if carried and (carried < 0 or samples.shape[0] % carried):
        raise ValueError(
            f"The latent has {samples.shape[0]} frames but says that each of its videos has {carried}: frames were taken from it or "
            "added after it was made. Take or add whole videos."
        )
    return carried or samples.shape[0]


def conditioned_frames(conditionings: dict[str, list[dict[str, Any]]]) -> int | None:
    """The frames a video by a guider's conditionings, where one of them says."""
    said = (each.get(FRAMES_KEY) for conditioning in conditionings.values() for each in conditioning)
    return next((checked_frames(frames) for frames in said if frames), None)


def checked_frames(frames: Any) -> int:
    """The frames a video that a conditioning says.

    Raises:
        ValueError: they are no number that can be.
    """
    if not isinstance(frames, int) or frames < 1:
        raise ValueError(f"The conditioning says {frames!r} frames a video; connect VideoCrafter Conditioning, which says how many.")
    return frames
