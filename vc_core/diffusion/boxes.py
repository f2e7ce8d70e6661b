"""Boxes on paths, and the noise that they give a video (FreeTraj, Qiu et al., arXiv:2406.16863, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .frequency import LowPass, mix
from .noise import SeededNoise

#: The frames up to which the authors plan a path at least.
PLANNED = 16
#: What of the noise with the box is kept: all but the high frequencies.
KEPT = LowPass(order=4, spatial_stop=0.25, temporal_stop=0.1)


@dataclass(frozen=True)
class Box:
    """A box in a grid of rows and columns: what of it is inside the grid.

    Attributes:
        rows, columns: half-open ranges in the grid.
        cut: rows and columns of the box that are outside, above and left of the grid.
        height, width: of the whole box.
    """

    rows: slice
    columns: slice
    cut: tuple[int, int]
    height: int
    width: int

    def paste(self, target: Tensor, source: Tensor) -> None:
        """Writes ``[..., height, width]`` into ``[..., rows, columns]``, as far as it is inside."""
        top, left = self.cut
        seen = target[..., self.rows, self.columns]
        seen.copy_(source[..., top : top + seen.shape[-2], left : left + seen.shape[-1]])


@dataclass(frozen=True)
class BoxPath:
    """A box that moves over a video, in shares of the picture's height and width.

    Attributes:
        height, width: of the box.
        corners: its top and left in each frame. A box can leave the picture.
        nearest: in a grid, sides and middles are rounded to the nearest. The authors round sides and corners down, which moves boxes up
            and left by half a row and half a column in the mean.
    """

    height: float
    width: float
    corners: tuple[tuple[float, float], ...]
    nearest: bool = False

    def __post_init__(self) -> None:
        """
        Raises:
            InputError: the box is empty, larger than the picture, or there is no frame.
        """
        for name, side in (("height", self.height), ("width", self.width)):
            if not 0 < side <= 1 + 1e-9:
                raise InputError(f"The box's {name} is {side:.4g} of the picture's; it can be above 0 and at most 1.")
        if not self.corners:
            raise InputError("The box's path has no frames.")

    @classmethod
    def from_keys(cls, keys: Sequence[Sequence[float]], frames: int = PLANNED) -> BoxPath:
        """A path between keys; before the first and after the last one the box goes on as it moved last.

        Args:
            keys: ``(frame, top, bottom, left, right)``, at least two, at different frames, the latter four in shares of the picture. The
                box has the size of the first key in all frames, as the authors'.

        Raises:
            InputError: fewer keys, or two of one frame.
        """
        table = planned(keys, frames)
        _, top, bottom, left, right = sorted(keys, key=lambda key: key[0])[0]
        return cls(bottom - top, right - left, tuple((row[0], row[2]) for row in table[:frames]))

    @classmethod
    def from_table(cls, table: Tensor) -> BoxPath:
        """A path of boxes ``[T, 4]``: top, bottom, left and right of each frame, rounded to the nearest in a grid. The first one's size is
        that of all.

        Numbers are rounded to a millionth, so that the rounding of drawn points does not move a box by a row of the grid.
        """
        rows = [[round(value, 6) for value in row] for row in table.tolist()]
        top, bottom, left, right = rows[0]
        return cls(round(bottom - top, 6), round(right - left, 6), tuple((row[0], row[2]) for row in rows), nearest=True)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.corners)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the box in a grid; 0 where it is too small for it."""
        rounding = 0.5 if self.nearest else 0.0
        return int(self.height * height + rounding), int(self.width * width + rounding)

    def box(self, frame: int, height: int, width: int) -> Box:
        """The box of one frame in a grid."""
        rows, columns = self.grid(height, width)
        y, x = self.corners[frame]
        top, left = self._start(y, self.height, height, rows), self._start(x, self.width, width, columns)
        seen = [slice(max(0, start), max(0, min(start + size, side)))
                for start, size, side in ((top, rows, height), (left, columns, width))]
        return Box(seen[0], seen[1], (max(0, -top), max(0, -left)), rows, columns)

    def _start(self, share: float, own: float, side: int, size: int) -> int:
        """The first row or column in a grid of `side`, of a box of `size` there that begins at `share` and is `own` long in the picture."""
        return math.floor((share + own / 2) * side - size / 2 + 0.5) if self.nearest else int(share * side)

    def masks(self, height: int, width: int, frames: Sequence[int]) -> Tensor:
        """Where the box is in some of the frames, ``[len(frames), height, width]`` of booleans."""
        masks = torch.zeros(len(frames), height, width, dtype=torch.bool)
        for mask, frame in zip(masks, frames, strict=True):
            box = self.box(frame, height, width)
            mask[box.rows, box.columns] = True
        return masks


def planned(keys: Sequence[Sequence[float]], frames: int = PLANNED) -> list[tuple[float, ...]]:
    """The authors' path of keys: top, bottom, left and right of each frame, of as many frames as asked for or as the keys have.

    Raises:
        InputError: see :meth:`BoxPath.from_keys`.
    """
    ordered = sorted(([int(key[0]), *map(float, key[1:])] for key in keys), key=lambda key: key[0])
    if len(ordered) < 2 or len({key[0] for key in ordered}) < len(ordered) or any(len(key) != 5 for key in ordered) or ordered[0][0] < 0:
        raise InputError(f"A box's path has at least two keys (frame, top, bottom, left, right) at different frames; it got {keys!r:.200}.")
    path = [tuple(ordered[0][1:])]
    for (first, *start), (second, *end) in zip(ordered[:-1], ordered[1:], strict=True):
        change = [(b - a) / (second - first) for a, b in zip(start, end, strict=True)]
        for number in range(1, int(second - first) + 1):
            path.append(tuple(number * step + value for value, step in zip(start, change, strict=True)))
    for _ in range(int(ordered[0][0])):
        path.insert(0, _moved(path[0], path[0], path[1]))
    while len(path) < frames:
        path.append(_moved(path[-1], path[-1], path[-2]))
    return path


def _moved(row: tuple[float, ...], to: tuple[float, ...], back: tuple[float, ...]) -> tuple[float, ...]:
    """A box moved by how the top and the left changed between two frames."""
    down, right = to[0] - back[0], to[2] - back[2]
    return row[0] + down, row[1] + down, row[2] + right, row[3] + right


def start_with_box(total: Tensor, box: Tensor, high: Tensor, path: BoxPath) -> Tensor:
    """The noise of a start in which the same noise moves along the path.

    Args:
        total: noise ``[B, C, T, h, w]``.
        box: the noise in the box, ``[B, C, rows, columns]``.
        high: noise of which the high frequencies are, ``[B or 1, C, T, h, w]``.

    Raises:
        InputError: the path has fewer frames.
    """
    frames, height, width = total.shape[2:]
    check_length(path, frames)
    low = total.clone()
    for frame in range(frames):
        path.box(frame, height, width).paste(low[:, :, frame], box)
    return mix(low, high.expand_as(low), KEPT)


def check_length(path: BoxPath, frames: int) -> None:
    """
    Raises:
        InputError: the path has fewer frames than the video.
    """
    if path.frames < frames:
        raise InputError(f"The box's path has {path.frames} frames, but the video has {frames}: make it for {frames} frames.")


@dataclass(frozen=True)
class BoxNoise:
    """The noise of a run whose start follows a path.

    Each video has two generators of its own. One draws what :class:`.noise.SeededNoise` draws: the start without the box, then the noise
    of each step. The other, whose seed is :attr:`APART` higher, draws the box ``[C, rows, columns]``, then the high frequencies
    ``[C, T, h, w]``.
    """

    shape: Sequence[int]
    seed: int
    path: BoxPath

    #: Between the seeds of the two generators.
    APART = 2**32

    @property
    def start(self) -> Tensor:
        videos, channels, frames, height, width = self.shape
        rows, columns = self.path.grid(height, width)
        total, box, high = [], [], []
        for video in range(videos):
            own = torch.Generator("cpu").manual_seed((self.seed + video) % 2**64)
            apart = torch.Generator("cpu").manual_seed((self.seed + video + self.APART) % 2**64)
            total.append(torch.randn(channels, frames, height, width, generator=own))
            box.append(torch.randn(channels, rows, columns, generator=apart))
            high.append(torch.randn(channels, frames, height, width, generator=apart))
        return start_with_box(torch.stack(total), torch.stack(box), torch.stack(high), self.path)

    def steps(self) -> Iterator[Tensor]:
        return SeededNoise(self.shape, self.seed).steps()
