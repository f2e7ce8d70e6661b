"""Depth maps as a model's fifth input channel (Make-Your-Video, arXiv:2306.00943, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .images import check_finite

#: Over what the nearest and the farthest point are looked for: all frames of a video, or each frame by itself as its authors do.
RANGES = ("clip", "frame")
#: What keeps a flat map's division possible.
LEAST_RANGE = 1e-7


def depth_of_frames(frames: Tensor) -> Tensor:
    """Frames ``[B, C, T, H, W]`` of any range, grey or in colours -> depth maps ``[B, 1, T, H, W]`` in float32."""
    return frames.float().mean(dim=1, keepdim=True)


def fit_depth(maps: Tensor, height: int, width: int) -> Tensor:
    """Depth maps ``[B, 1, T, H, W]`` cut at the centre to the aspect of ``height`` to ``width``; their resolution stays."""
    tall, wide = maps.shape[-2:]
    if tall * width >= wide * height:
        kept = max(1, round(wide * height / width))
        return maps.narrow(-2, (tall - min(kept, tall)) // 2, min(kept, tall))
    kept = max(1, round(tall * width / height))
    return maps.narrow(-1, (wide - min(kept, wide)) // 2, min(kept, wide))


def prepare_depth(
    maps: Tensor, height: int, width: int, range: str = "clip", strength: float | Sequence[float] = 1.0, antialias: bool = False
) -> Tensor:
    """Depth maps as a UNet reads them: resized cubically as its authors do, then brought to [-1, 1].

    Args:
        maps: ``[B, 1, T, H, W]`` in any range, near being large; of the video's aspect, see :func:`fit_depth`.
        height, width: of the latent.
        range: one of :data:`RANGES`. By ``frame``, a thing that leaves changes the values of all others.
        strength: 1: as trained. Towards 0, the maps become flat; at 0 they hold 0, which is half-way. One number, or one for each frame.
        antialias: see :attr:`vc_core.config.ModelConfig.antialiased_depth`.

    Returns:
        ``[B, 1, T, height, width]`` in float32. A flat map becomes -1.

    Raises:
        InputError: another range, maps without frames or with values that are no numbers, or another number of strengths than of frames.
    """
    check_depth(maps, range)
    frames = maps.shape[2]
    flat = maps.float().movedim(2, 1).flatten(0, 1)
    resized = torch.nn.functional.interpolate(flat, size=(height, width), mode="bicubic", align_corners=False, antialias=antialias)
    depth = resized.unflatten(0, (len(maps), frames)).movedim(1, 2)
    axes = (2, 3, 4) if range == "clip" else (3, 4)
    low, high = depth.amin(dim=axes, keepdim=True), depth.amax(dim=axes, keepdim=True)
    depth = 2 * (depth - low) / (high - low + LEAST_RANGE) - 1
    if strength == 1.0:
        return depth
    strengths = torch.tensor([strength] * frames if isinstance(strength, (int, float)) else list(strength), dtype=torch.float32)
    if len(strengths) != frames:
        raise InputError(f"There are {len(strengths)} strengths for {frames} depth maps: give one number, or one for each frame.")
    return depth * strengths.to(depth.device)[:, None, None]


def check_depth(maps: Tensor, range: str = "clip") -> None:
    """
    Raises:
        InputError: not ``[B, 1, T, H, W]``, no frames, values that are no numbers, or a range that is not one of :data:`RANGES`.
    """
    if range not in RANGES:
        raise InputError(f"The range of the depth is {range!r:.40}; it can be {' or '.join(RANGES)}.")
    if maps.ndim != 5 or maps.shape[1] != 1 or not maps.numel():
        raise InputError(f"The depth maps have the shape {list(maps.shape)}; expected are [B, 1, T, H, W] with at least 1 frame.")
    check_finite(maps.movedim(2, 0), "depth maps")


def check_depth_count(maps: Tensor, frames: int) -> None:
    """
    Raises:
        InputError: another number of maps than of the video's frames.
    """
    if maps.shape[2] != frames:
        raise InputError(
            f"There are {maps.shape[2]} depth maps, but the video has {frames} frames: give a map for each frame. Set the number of frames "
            "to that of the maps, or choose as many maps, at the same frame rate."
        )
