"""Which frames of a video a clip has, and the frame rate that the model is told: DynamiCrafter's rules (arXiv:2310.12190, section 4.1).

A stride is drawn, which a short video makes smaller; then a start. The rate that the model is told is the video's over the stride.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: ``draw(low, high)``: a whole number from ``low`` to ``high``, both included.
Draw = Callable[[int, int], int]


@dataclass
class StrideSettings:
    """How far the frames of a clip are apart in its video.

    Attributes:
        stride_min, stride_max: every stride between them has the same probability; equal ones draw nothing.
        fps: if above 0, the rate that is aimed at: the stride is then ``stride_max`` times the video's rate over this, cut to a whole
            number, and videos shorter than half of what it needs are left out.
        fps_max: if above 0, the highest rate that the model is told.
    """

    stride_min: int = 1
    stride_max: int = 6
    fps: float = 0.0
    fps_max: int = 0


@dataclass(frozen=True)
class Frames:
    """The frames of a clip: ``count`` from ``start`` on, ``stride`` apart, and the frames per second that the model is told."""

    start: int
    stride: int
    count: int
    fps: int


def draw_stride(settings: StrideSettings, draw: Draw) -> int:
    """The stride of a clip, before its video is known."""
    if settings.fps or settings.stride_min == settings.stride_max:
        return settings.stride_max
    return draw(settings.stride_min, settings.stride_max)


def stride_for(settings: StrideSettings, drawn: int, frames: int, average_fps: float, count: int) -> int:
    """The stride of a clip of ``count`` frames in a video of ``frames``; 0 if the video is too short.

    Args:
        drawn: see :func:`draw_stride`.
        average_fps: the video's frames per second.
    """
    if frames < count:
        return 0
    stride = max(1, int(drawn * average_fps / settings.fps)) if settings.fps else drawn
    needed = stride * (count - 1) + 1
    if settings.fps and frames < needed / 2:
        return 0
    return stride if needed <= frames else frames // count


def draw_frames(settings: StrideSettings, drawn: int, frames: int, average_fps: float, count: int, draw: Draw) -> Frames | None:
    """The frames of a clip; None if the video is too short. The arguments are those of :func:`stride_for`."""
    stride = stride_for(settings, drawn, frames, average_fps, count)
    if not stride:
        return None
    left = frames - (stride * (count - 1) + 1)
    fps = int(average_fps // stride)
    return Frames(draw(0, left) if left > 0 else 0, stride, count, min(fps, settings.fps_max) if settings.fps_max else fps)
