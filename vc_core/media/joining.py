"""Clips that share their ends, joined into one video without a repeated frame, a cross-fade or a step in brightness.

A clip's last frame and the next clip's first are two versions of the same image. At such a joint, the mean and the standard
deviation of each channel of both are set to the average of the two (the transfer of Reinhard et al., "Color Transfer between
Images", 2001, in RGB). The change fades out towards the clip's other end, so that changes don't add up over a chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

#: Below this deviation, of a range of 2, a channel is flat and only its mean is matched.
FLAT = 1e-3


@dataclass(frozen=True)
class Joint:
    """The jump in brightness between two clips, on a scale of 255: the largest difference of a channel's mean across the joint."""

    before: float
    after: float
    #: The largest such difference between two frames inside the clips.
    inside: float


@dataclass(frozen=True)
class Joined:
    """A video of several clips."""

    #: ``[3, T, H, W]`` in [-1, 1].
    video: Tensor
    joints: list[Joint]

    def table(self) -> str:
        """The steps in brightness as text, one line per joint."""
        lines = ["joint   step in brightness, of 255", "        as made   matched   inside the clips"]
        lines += [
            f"{index:>5}   {joint.before:7.2f}   {joint.after:7.2f}   {joint.inside:7.2f}" for index, joint in enumerate(self.joints, 1)
        ]
        return "\n".join(lines)


def join(clips: Sequence[Tensor], match: bool = True) -> Joined:
    """Join clips, each of which starts with the image that the one before it ends with.

    Args:
        clips: each ``[3, T, H, W]`` in [-1, 1], of one size; lengths may differ.
        match: set both sides of a joint to the same mean and deviation.

    Raises:
        InputError: no clips, clips of different sizes, or a clip of a single frame.
    """
    if not clips:
        raise InputError("There are no clips to join; at least one is needed.")
    for index, clip in enumerate(clips):
        if clip.ndim != 4 or (clip.shape[0], clip.shape[2:]) != (clips[0].shape[0], clips[0].shape[2:]):
            shapes = f"the shape {list(clip.shape)} and the first {list(clips[0].shape)}"
            raise InputError(f"Clip {index} has {shapes}; all clips must have the same height and width.")
        if clip.shape[1] < 2:
            raise InputError(f"Clip {index} is {clip.shape[1]} frames long; at least 2 are needed, for its first and its last image.")
    made = [clip.float() for clip in clips]
    matched = _matched(made) if match else made
    joints = [Joint(_step(made, i), _step(matched, i), max(_inside(made[i]), _inside(made[i + 1]))) for i in range(len(made) - 1)]
    return Joined(torch.cat([matched[0], *(clip[:, 1:] for clip in matched[1:])], dim=1), joints)


def _matched(clips: list[Tensor]) -> list[Tensor]:
    starts: list[tuple[Tensor, Tensor]] = [_statistics(clip[:, 0]) for clip in clips]
    ends = [_statistics(clip[:, -1]) for clip in clips]
    aims_at_start, aims_at_end = list(starts), list(ends)
    for index in range(len(clips) - 1):
        between = tuple((left + right) / 2 for left, right in zip(ends[index], starts[index + 1], strict=True))
        aims_at_end[index] = aims_at_start[index + 1] = between  # type: ignore[assignment]
    return [
        _carried(clip, _change(start, aim_start), _change(end, aim_end))
        for clip, start, aim_start, end, aim_end in zip(clips, starts, aims_at_start, ends, aims_at_end, strict=True)
    ]


def _statistics(frame: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of ``[3, H, W]``, each ``[3]``."""
    return frame.mean((1, 2)), frame.std((1, 2))


def _change(is_now: tuple[Tensor, Tensor], aim: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Gain and offset ``[3]`` from one mean and deviation to another."""
    gain = torch.where(is_now[1] > FLAT, aim[1] / is_now[1].clamp(min=FLAT), torch.ones_like(aim[1]))
    return gain, aim[0] - gain * is_now[0]


def _carried(clip: Tensor, at_start: tuple[Tensor, Tensor], at_end: tuple[Tensor, Tensor]) -> Tensor:
    """A clip with a gain and an offset that change linearly from its first frame to its last."""
    time = torch.linspace(0, 1, clip.shape[1], device=clip.device)
    gain, offset = (
        torch.lerp(start[:, None], end[:, None], time[None])[:, :, None, None] for start, end in zip(at_start, at_end, strict=True)
    )
    return (clip * gain + offset).clamp(-1, 1)


def _step(clips: list[Tensor], index: int) -> float:
    difference = clips[index][:, -1].mean((1, 2)) - clips[index + 1][:, 0].mean((1, 2))
    return difference.abs().max().item() * 127.5


def _inside(clip: Tensor) -> float:
    return clip.mean((2, 3)).diff(dim=1).abs().max().item() * 127.5
