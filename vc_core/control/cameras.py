"""Camera paths: a pose for each frame of a video, from moves in words.

A pose is a world-to-camera matrix ``[R | t]``: a point p of the scene is at ``R p + t`` before the camera. Axes are OpenCV's: x to the
right, y down, z away from the camera. The first three rows of such a matrix are what MotionCtrl's models are given, row by row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InputError

#: The whole turn and the whole way of a move at speed 1 (MotionCtrl: base angle and base translation).
ANGLE, DISTANCE = math.pi / 3, 1.5
#: How far before the camera the point is that it orbits, so that the arc of a whole orbit is as long as the way of a pan.
RADIUS = DISTANCE / ANGLE
LONGEST_TEXT, MOST_MOVES, MOST_FRAMES, MAX_SPEED = 10_000, 16, 100_000, 10.0
#: How a move's pace changes over its frames.
EASINGS = ("linear", "ease in", "ease out", "ease in and out")
_STILL = ((0.0, 0.0, 0.0),) * 3
#: Each move: its turns about x, y, z, its way along x, y, z (both of the scene before the camera), and its turns about the orbited point.
MOVES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "still": _STILL,
    "pan left": ((0, 0, 0), (1, 0, 0), (0, 0, 0)),
    "pan right": ((0, 0, 0), (-1, 0, 0), (0, 0, 0)),
    "pan up": ((0, 0, 0), (0, 1, 0), (0, 0, 0)),
    "pan down": ((0, 0, 0), (0, -1, 0), (0, 0, 0)),
    "zoom in": ((0, 0, 0), (0, 0, -2), (0, 0, 0)),
    "zoom out": ((0, 0, 0), (0, 0, 2), (0, 0, 0)),
    "roll left": ((0, 0, 1), (0, 0, 0), (0, 0, 0)),
    "roll right": ((0, 0, -1), (0, 0, 0), (0, 0, 0)),
    "tilt up": ((-1, 0, 0), (0, 0, 0), (0, 0, 0)),
    "tilt down": ((1, 0, 0), (0, 0, 0), (0, 0, 0)),
    "turn left": ((0, 1, 0), (0, 0, 0), (0, 0, 0)),
    "turn right": ((0, -1, 0), (0, 0, 0), (0, 0, 0)),
    "orbit left": ((0, 0, 0), (0, 0, 0), (0, -1, 0)),
    "orbit right": ((0, 0, 0), (0, 0, 0), (0, 1, 0)),
    "orbit up": ((0, 0, 0), (0, 0, 0), (1, 0, 0)),
    "orbit down": ((0, 0, 0), (0, 0, 0), (-1, 0, 0)),
}
#: Other words for them: MotionCtrl's, core's and cinema's.
SYNONYMS = {
    "static": "still", "none": "still", "no motion": "still", "truck left": "pan left", "truck right": "pan right",
    "pedestal up": "pan up", "pedestal down": "pan down", "dolly in": "zoom in", "dolly out": "zoom out", "push in": "zoom in",
    "pull out": "zoom out", "acw": "roll left", "anticlockwise": "roll left", "anti clockwise": "roll left", "ccw": "roll left",
    "counterclockwise": "roll left", "anti clockwise (acw)": "roll left", "roll acw": "roll left", "roll anticlockwise": "roll left",
    "roll counterclockwise": "roll left", "roll ccw": "roll left", "cw": "roll right", "clockwise": "roll right",
    "clockwise (cw)": "roll right", "roll cw": "roll right", "roll clockwise": "roll right", "yaw left": "turn left",
    "yaw right": "turn right", "arc left": "orbit left", "arc right": "orbit right",
}
_DASH = re.compile(r"(?<=[a-z])[-_](?=[a-z])")
_THEN = re.compile(r"[,\s]*(?:\bthen\b|;|\n|->|→)[,\s]*")
_AND = re.compile(r"\s*(?:,|\+|\band\b|\bwith\b|&)\s*")
_SPEED = re.compile(r"(.*?)\s*(?:\bx|\*|×|:)?\s*([-+]?\d+(?:\.\d*)?|[-+]?\.\d+)\s*x?")


@dataclass(frozen=True)
class CameraPath:
    """A camera's pose in each frame.

    Attributes:
        poses: ``[T, 3, 4]`` float64, world to camera (see the module).
        intrinsics: ``[T, 4]`` float64: fx, fy, cx, cy as shares of the image's width (fx, cx) and height; None where nothing is known of
            the lens.

    Raises:
        InputError: another shape, no pose at all, or numbers that are not finite.
    """

    poses: Tensor
    intrinsics: Tensor | None = None

    def __post_init__(self) -> None:
        poses = torch.as_tensor(self.poses, dtype=torch.float64)
        if poses.ndim != 3 or poses.shape[1:] != (3, 4) or not 1 <= len(poses) <= MOST_FRAMES:
            raise InputError(f"A camera path is {list(poses.shape)}; it must be [frames, 3, 4] with 1 to {MOST_FRAMES} frames.")
        if not poses.isfinite().all():
            raise InputError(f"Pose {_first_bad(poses)} of the camera path has a number that is not finite.")
        object.__setattr__(self, "poses", poses)
        if self.intrinsics is not None:
            lens = torch.as_tensor(self.intrinsics, dtype=torch.float64)
            if lens.shape != (len(poses), 4) or not lens.isfinite().all() or not (lens[:, :2] > 0).all():
                raise InputError(f"The intrinsics of {len(poses)} poses must be as many rows of fx, fy, cx, cy; fx and fy above 0.")
            object.__setattr__(self, "intrinsics", lens)

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def is_still(self) -> bool:
        """Whether all poses are the same."""
        return bool(torch.allclose(self.poses, self.poses[:1].expand_as(self.poses), atol=1e-9))

    def resampled(self, frames: int) -> CameraPath:
        """The same way in another number of frames; the first and the last pose stay exactly.

        Between two poses the camera turns evenly about one axis, and moves along a line. One pose is repeated.
        """
        if not 1 <= frames <= MOST_FRAMES:
            raise InputError(f"A camera path can have 1 to {MOST_FRAMES} frames, not {frames}.")
        if frames == len(self):
            return self
        place = torch.linspace(0, len(self) - 1, frames, dtype=torch.float64) if frames > 1 else torch.zeros(1, dtype=torch.float64)
        start = place.floor().long().clamp(max=max(len(self) - 2, 0))
        end, share = (start + 1).clamp(max=len(self) - 1), place - start
        camera_to_world = inverse(self.poses)
        centres = torch.lerp(camera_to_world[start, :, 3], camera_to_world[end, :, 3], share[:, None])
        rotations = _between(self.poses[start, :, :3], self.poses[end, :, :3], share)
        poses = torch.cat([rotations, -rotations @ centres[:, :, None]], 2)
        for moment, known in ((0, start), (1, end)):
            poses = torch.where((share == moment)[:, None, None], self.poses[known], poses)
        lens = None if self.intrinsics is None else torch.lerp(self.intrinsics[start], self.intrinsics[end], share[:, None])
        return CameraPath(poses, lens)

    def relative_to(self, frame: int = 0) -> CameraPath:
        """The path in the coordinates of one of its cameras, whose pose becomes the identity."""
        if not -len(self) <= frame < len(self):
            raise InputError(f"The camera path has {len(self)} frames, there is no frame {frame}.")
        return replace(self, poses=compose(self.poses, inverse(self.poses[frame])[None].expand_as(self.poses)))

    def scaled(self, scale: float | Sequence[float]) -> CameraPath:
        """The path with its translations multiplied, by one number or by three for x, y and z."""
        factors = torch.as_tensor(scale, dtype=torch.float64).expand(3)
        return replace(self, poses=torch.cat([self.poses[:, :, :3], self.poses[:, :, 3:] * factors[:, None]], 2))


def camera_path(text: str, frames: int, *, speed: float = 1.0, easing: str = "linear") -> CameraPath:
    """A camera path from moves in words, such as ``"pan left, zoom in"`` or ``"pan left then orbit right 0.5"``.

    Moves with a comma, ``and`` or ``+`` between them are made at once; those with ``then`` or a semicolon one after the other, each in an
    equal part of the frames. A number after a move is its own speed. A move at speed 1 goes its whole way, 60 degrees or 1.5 units
    (zooms 3), in any number of frames: in frame i of n it is i / n of it (MotionCtrl's presets).

    Args:
        text: the moves: :data:`MOVES`, or one of their :data:`SYNONYMS`.
        frames: number of poses.
        speed: a factor for all moves, 0 to 10.
        easing: one of :data:`EASINGS`, of each move.

    Raises:
        InputError: no move, an unknown move, or a number out of its range.
    """
    if not 1 <= frames <= MOST_FRAMES:
        raise InputError(f"A camera path can have 1 to {MOST_FRAMES} frames, not {frames}.")
    if not (math.isfinite(speed) and 0 <= speed <= MAX_SPEED):
        raise InputError(f"The camera's speed is {speed}; it can be 0 to {MAX_SPEED:g}.")
    if easing not in EASINGS:
        raise InputError(f"The camera's easing is {easing!r:.40}; it can be {', '.join(EASINGS)}.")
    parts = _read_moves(text)
    if len(parts) > frames:
        raise InputError(f"There are {len(parts)} moves one after the other in {frames} frames: at least as many frames are needed.")
    poses = torch.eye(3, 4, dtype=torch.float64)[None]
    paths: list[Tensor] = []
    for number, moves in enumerate(parts):
        length = frames // len(parts) + (number < frames % len(parts))
        poses = compose(_moved(moves, length, speed, easing), poses[-1:].expand(length, 3, 4))
        paths.append(poses)
    return CameraPath(torch.cat(paths))


def compose(after: Tensor, before: Tensor) -> Tensor:
    """Poses ``[..., 3, 4]`` of two moves, the second in the coordinates that the first leads to."""
    rotation = after[..., :3] @ before[..., :3]
    return torch.cat([rotation, after[..., 3:] + after[..., :3] @ before[..., 3:]], -1)


def inverse(poses: Tensor) -> Tensor:
    """Of world-to-camera poses ``[..., 3, 4]`` the camera-to-world ones, and the reverse."""
    rotation = torch.linalg.inv(poses[..., :3])
    return torch.cat([rotation, -rotation @ poses[..., 3:]], -1)


def ease(share: Tensor, easing: str) -> Tensor:
    """How much of a move is done after a share of its time, both 0 to 1. See :data:`EASINGS`."""
    if easing == "ease in":
        return share * share
    if easing == "ease out":
        return share * (2 - share)
    return share * share * (3 - 2 * share) if easing == "ease in and out" else share


def _read_moves(text: str) -> list[list[tuple[str, float]]]:
    """The moves of each part, each with its speed."""
    if len(text) > LONGEST_TEXT:
        raise InputError(f"The camera's moves have {len(text)} characters; at most {LONGEST_TEXT} are read.")
    parts = [part for part in _THEN.split(_DASH.sub(" ", text.lower()).strip(" ,.\n")) if part.strip(" ,")]
    moves = [[_read_move(each) for each in _AND.split(part) if each.strip()] for part in parts]
    if not moves:
        raise InputError(f"There is no move of the camera. Write one, such as 'pan left, zoom in', or 'still'. Moves: {', '.join(MOVES)}.")
    if sum(map(len, moves)) > MOST_MOVES:
        raise InputError(f"There are {sum(map(len, moves))} moves of the camera; at most {MOST_MOVES} are possible.")
    return moves


def _read_move(text: str) -> tuple[str, float]:
    found = _SPEED.fullmatch(text)
    words, speed = (found[1], float(found[2])) if found else (text, 1.0)
    name = " ".join(words.split())
    name = SYNONYMS.get(name, name)
    if name not in MOVES:
        raise InputError(f"The camera's move {text.strip()!r:.80} is not known. Moves: {', '.join(MOVES)}.")
    if not 0 <= speed <= MAX_SPEED:
        raise InputError(f"The speed of {text.strip()!r:.80} is {speed:g}; it can be 0 to {MAX_SPEED:g}.")
    return name, speed


def _moved(moves: Sequence[tuple[str, float]], frames: int, speed: float, easing: str) -> Tensor:
    """The poses ``[T, 3, 4]`` of moves made at once: their turns and their ways are added."""
    rates = torch.zeros(3, 3, dtype=torch.float64)
    for name, factor in moves:
        rates += factor * speed * torch.tensor(MOVES[name], dtype=torch.float64)
    share = ease(torch.arange(frames, dtype=torch.float64) / frames, easing)[:, None]
    turn, orbit = rotation(share * rates[0] * ANGLE), rotation(share * rates[2] * ANGLE)
    pivot = torch.tensor([[0.0], [0.0], [RADIUS]], dtype=torch.float64)
    way = (share * rates[1] * DISTANCE)[:, :, None] + turn @ (pivot - orbit @ pivot)
    return torch.cat([turn @ orbit, way], 2)


def rotation(angles: Tensor) -> Tensor:
    """Angles ``[..., 3]`` about x, y, z in radians -> matrices ``[..., 3, 3]``: Rz Ry Rx."""
    (a, b, c), (d, e, f) = angles.cos().unbind(-1), angles.sin().unbind(-1)  # cosines and sines about x, y, z
    rows = [b * c, d * e * c - a * f, a * e * c + d * f, b * f, d * e * f + a * c, a * e * f - d * c, -e, d * b, a * b]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _between(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Rotations ``[T, 3, 3]`` between two others, by the angle about the axis of what is between them (Rodrigues)."""
    turn = end @ torch.linalg.inv(start)
    angle = ((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos()
    skew = torch.stack([turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], 1)
    # Near half a turn the skew part vanishes; there the axis is the column of turn + 1 that is largest.
    symmetric = turn + torch.eye(3, dtype=turn.dtype)
    column = symmetric.diagonal(dim1=1, dim2=2).argmax(1)
    half = symmetric[torch.arange(len(turn)), :, column]
    axis = torch.where((angle > math.pi - 1e-4)[:, None], half, skew)
    axis = axis / axis.norm(dim=1, keepdim=True).clamp(min=1e-300)
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).unflatten(1, (3, 3))
    part = (angle * share)[:, None, None]
    return (torch.eye(3, dtype=turn.dtype) + part.sin() * cross + (1 - part.cos()) * cross @ cross) @ start


def _first_bad(rows: Tensor) -> int:
    return int((~rows.flatten(1).isfinite().all(1)).nonzero()[0, 0])
