"""Trajectories from text: the drawing widget's and KJNodes' spline editor's JSON, and the lists of points of other programs.

Two kinds are told apart. **Drawn paths** are objects with ``points``, ``[{"points": [{"x": 10, "y": 20}, ...]}, ...]``: what the widget and
KJNodes' editor (``points_store``) keep. Their points are corners of a way, which is gone at an even pace between the points that have a
``frame``. **Sampled points** are lists without ``points``, ``[[{"x": 10, "y": 20}, ...], ...]``: a point for each frame.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .cameras import EASINGS, ease
from .tracks import FARTHEST, MOST_FRAMES, MOST_TRACKS, Tracks, join_tracks

LONGEST, MOST_POINTS = 20_000_000, 100_000
#: Python's parser takes much memory.
LONGEST_OF_PYTHON = 1_000_000
#: How a drawn path goes from point to point.
CURVES = ("line", "smooth")
#: Parts of a smooth curve between two points. The widget draws as many.
PIECES = 16
_FORMS = (
    'Trajectories are JSON: a point is {"x": 10, "y": 20} or [10, 20], a path is a list of points, several are a list of paths; or what '
    "VideoCrafter Draw Trajectory or KJNodes' Spline Editor keep."
)


@dataclass(frozen=True)
class DrawnPath:
    """A path as it was drawn.

    Attributes:
        points: ``[n, 2]`` float64, x and y in pixels.
        frames: the frame of each point, None where it follows from the pace.
        easings: how the pace changes from each point to the next one with a frame, of :data:`~vc_core.control.cameras.EASINGS`.
        curve: one of :data:`CURVES`.
        box: width and height of the box around it in pixels; 0, 0 for none.
        canvas: width, height and number of frames that it was drawn for; None where the text doesn't say.
    """

    points: Tensor
    frames: tuple[float | None, ...]
    easings: tuple[str, ...]
    curve: str = "line"
    box: tuple[float, float] = (0.0, 0.0)
    canvas: tuple[int, int, int] | None = None

    def sampled(self, frames: int, length: int) -> Tensor:
        """Where the point is in each frame, ``[frames, 2]``.

        Args:
            frames: of the result.
            length: number of frames that the points' frames count in.
        """
        line, corners = self._polyline()
        ways = torch.cat([torch.zeros(1, dtype=torch.float64), (line[1:] - line[:-1]).norm(dim=1).cumsum(0)])
        times = torch.linspace(0, length - 1, frames, dtype=torch.float64) if frames > 1 else torch.zeros(1, dtype=torch.float64)
        along = self._ways_at(times, self._keys(length), ways[corners])
        after = torch.searchsorted(ways, along).clamp(1, max(len(ways) - 1, 1))
        if len(line) == 1:
            return line.expand(frames, 2).clone()
        start, end = ways[after - 1], ways[after]
        share = torch.where(end > start, (along - start) / (end - start).clamp(min=1e-12), 0.0).clamp(0, 1)
        return torch.lerp(line[after - 1], line[after], share[:, None])

    def _ways_at(self, times: Tensor, keys: Sequence[tuple[float, int]], ways: Tensor) -> Tensor:
        """How far along its way the point is at each time, ``[T]``."""
        along = torch.where(times <= keys[0][0], ways[keys[0][1]], ways[keys[-1][1]])
        for (start, first), (end, last) in zip(keys, keys[1:], strict=False):
            if end > start:
                share = ease(((times - start) / (end - start)).clamp(0, 1), self.easings[first])
                along = torch.where((times > start) & (times <= end), torch.lerp(ways[first], ways[last], share), along)
        return along

    def _keys(self, length: int) -> list[tuple[float, int]]:
        """Frame and number of each point that has a frame; the first and the last point always have one."""
        last = len(self.points) - 1
        known: dict[int, float] = {number: frame for number, frame in enumerate(self.frames) if frame is not None}
        known.setdefault(0, 0.0)
        known.setdefault(last, max([float(length - 1), *known.values()]))
        keys: list[tuple[float, int]] = []
        for number in sorted(known):
            if keys and known[number] < keys[-1][0]:
                raise InputError(
                    f"Point {number} of a drawn path is at frame {known[number]:g}, before point {keys[-1][1]} at frame {keys[-1][0]:g}: "
                    "the frames must rise along the path."
                )
            keys.append((known[number], number))
        return keys

    def _polyline(self) -> tuple[Tensor, Tensor]:
        """The way as a line with corners, ``[m, 2]``, and which of them are the drawn points, ``[n]``."""
        count = len(self.points)
        if self.curve == "line" or count < 3:
            return self.points, torch.arange(count)
        padded = torch.cat([2 * self.points[:1] - self.points[1:2], self.points, 2 * self.points[-1:] - self.points[-2:-1]])
        before, start, end, after = (padded[offset : offset + count - 1, None] for offset in range(4))
        t = (torch.arange(PIECES, dtype=torch.float64) / PIECES)[None, :, None]
        # A Catmull-Rom curve: it goes through all points.
        cubic, square = 3 * start - 3 * end + after - before, 2 * before - 5 * start + 4 * end - after
        pieces = start + t / 2 * (end - before + t * (square + t * cubic))
        return torch.cat([pieces.flatten(0, 1), self.points[-1:]]), torch.arange(count) * PIECES


def read_tracks(text: str | Sequence[str], size: tuple[int, int], frames: int) -> Tracks:
    """The trajectories of a text, in a picture of a size and in a number of frames.

    Args:
        text: JSON as in the module's description; a list of texts, or texts in lines of one text, are all read.
        size: width and height of the picture in pixels. Drawn paths that tell their own canvas are scaled to it.
        frames: of the result. Sampled points of another number are resampled in time.

    Raises:
        InputError: no path in it, something that can't be read (with the place), or a number that can't be a place in a picture.
    """
    if not 1 <= frames <= MOST_FRAMES:
        raise InputError(f"Trajectories can have 1 to {MOST_FRAMES} frames, not {frames}.")
    texts = list(text) if isinstance(text, list | tuple) else [text]
    found = [path for each in texts for value in _parsed(each) for path in _paths(value)]
    if not found:
        raise InputError(f"There is no trajectory. Draw one in the node, or connect one. {_FORMS}")
    if len(found) > MOST_TRACKS:
        raise InputError(f"There are {len(found)} trajectories; at most {MOST_TRACKS} are possible.")
    return join_tracks([_track(path, size, frames) for path in found])


def write_points(tracks: Tracks) -> str:
    """Sampled points as JSON, as KJNodes' nodes and core's read them: ``[[{"x": 10.0, "y": 20.0}, ...], ...]``, a list for each track."""
    rows = [[{"x": round(x, 3), "y": round(y, 3)} for x, y in track] for track in tracks.points.tolist()]
    return json.dumps(rows)


def _track(path: DrawnPath | Tensor, size: tuple[int, int], frames: int) -> Tracks:
    if isinstance(path, Tensor):
        return Tracks(path[None], torch.ones(1, len(path), dtype=torch.bool), size).resampled(frames)
    width, height, length = path.canvas or (*size, frames)
    factors = torch.tensor([size[0] / width, size[1] / height], dtype=torch.float64)  # first: the pace is that of the picture
    points = replace(path, points=path.points * factors).sampled(frames, length)
    boxes = torch.tensor([path.box], dtype=torch.float64) * factors if path.box != (0.0, 0.0) else None
    return Tracks(points[None], torch.ones(1, frames, dtype=torch.bool), size, boxes)


def _parsed(text: Any) -> list[Any]:
    """The values in a text: one, or one in each line."""
    if not isinstance(text, str):
        raise InputError(f"A trajectory is {type(text).__name__}; it must be text. {_FORMS}")
    if len(text) > LONGEST:
        raise InputError(f"The trajectories' text has {len(text)} characters; at most {LONGEST} are read.")
    if not text.strip():
        return []
    value = _loosely(text)
    if value is not None:
        return [value]
    values = [_loosely(line) for line in text.splitlines() if line.strip()]
    if len(values) > 1 and all(each is not None for each in values):
        return values
    raise InputError(f"The trajectories' text can't be read: {_problem(text)}. {_FORMS}")


def _loosely(text: str) -> Any:
    """JSON, or a list of Python's, which has single quotes; None for anything else."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if len(text) > LONGEST_OF_PYTHON:
            return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return value if isinstance(value, list | dict) else None


def _problem(text: str) -> str:
    try:
        json.loads(text)
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        return str(error)
    return "it is no list"


def _paths(value: Any) -> list[DrawnPath | Tensor]:
    """The paths in a value."""
    if isinstance(value, str):
        return [path for each in _parsed(value) for path in _paths(each)]
    if isinstance(value, Mapping) and isinstance(value.get("points"), list):
        return [_drawn(value)] if value["points"] else []
    if not isinstance(value, list):
        raise InputError(f"{value!r:.60} is no trajectory. {_FORMS}")
    if not value:
        return []
    if _is_point(value[0]):
        return [_points(value)]
    return [path for each in value for path in _paths(each)]


def _is_point(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "points" not in value
    return isinstance(value, list | tuple) and bool(value) and not isinstance(value[0], list | tuple | dict | str)


def _points(values: Sequence[Any]) -> Tensor:
    """Points ``[n, 2]``."""
    if len(values) > MOST_POINTS:
        raise InputError(f"A path has {len(values)} points; at most {MOST_POINTS} are possible.")
    return torch.tensor([_point(value, number) for number, value in enumerate(values)], dtype=torch.float64)


def _point(value: Any, number: int) -> list[float]:
    pair: list[Any] = []
    if isinstance(value, Mapping):
        pair = [value.get("x"), value.get("y")]
    elif isinstance(value, list | tuple):
        pair = list(value)
    if len(pair) == 2 and all(_is_number(each) and abs(each) <= FARTHEST for each in pair):
        return [float(each) for each in pair]
    raise InputError(
        f"Point {number} of a path is {value!r:.60}; it must have x and y, numbers from {-FARTHEST:.0f} to {FARTHEST:.0f}. {_FORMS}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) or isinstance(value, float) and math.isfinite(value)


def _drawn(value: Mapping[str, Any]) -> DrawnPath:
    points = value["points"]
    places = _points(points)
    frames, easings = [], []
    for number, point in enumerate(points):
        frame, easing = (point.get("frame"), point.get("ease", "linear")) if isinstance(point, Mapping) else (None, "linear")
        if frame is not None and not (_is_number(frame) and 0 <= frame <= MOST_FRAMES):
            raise InputError(f"Point {number} of a drawn path has the frame {frame!r:.40}; it must be a number from 0 to {MOST_FRAMES}.")
        if easing not in EASINGS:
            raise InputError(f"Point {number} of a drawn path has the easing {easing!r:.40}; it can be {', '.join(EASINGS)}.")
        frames.append(frame)
        easings.append(easing)
    curve, box = value.get("curve", "line"), value.get("box") or (0.0, 0.0)
    if curve not in CURVES:
        raise InputError(f"A drawn path has the curve {curve!r:.40}; it can be {', '.join(CURVES)}.")
    if not (isinstance(box, list | tuple) and len(box) == 2 and all(_is_number(each) and 0 <= each <= FARTHEST for each in box)):
        raise InputError(f"A drawn path has the box {box!r:.60}; it must be [width, height] in pixels.")
    return DrawnPath(places, tuple(frames), tuple(easings), curve, (float(box[0]), float(box[1])), _canvas(value.get("canvas")))


def _canvas(value: Any) -> tuple[int, int, int] | None:
    if value is None:
        return None
    parts: list[Any] = [value.get(name) for name in ("width", "height", "frames")] if isinstance(value, Mapping) else []
    if len(parts) != 3 or not all(isinstance(part, int) and not isinstance(part, bool) and 1 <= part <= MOST_FRAMES for part in parts):
        raise InputError(f"A drawn path has the canvas {value!r:.80}; it must have width, height and frames, whole numbers from 1.")
    return parts[0], parts[1], parts[2]
