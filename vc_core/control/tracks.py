"""Trajectories: where points of a video are in each frame, and the boxes around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

MOST_TRACKS, MOST_FRAMES, MOST_NUMBERS = 10_000, 100_000, 20_000_000
#: How far from the picture a point can be, in pixels.
FARTHEST = 1e6
#: The keys of core's TRACKS, and those that ours have beside them, which core's nodes don't look at.
PATH_KEY, VISIBILITY_KEY, SIZE_KEY, BOXES_KEY = "track_path", "track_visibility", "track_size", "track_boxes"


@dataclass(frozen=True)
class Tracks:
    """N trajectories over T frames.

    Attributes:
        points: ``[N, T, 2]`` float32: x from the left and y from the top, in pixels. They may be outside the picture.
        visible: ``[N, T]`` bool.
        size: width and height in pixels of the picture that the points are in; None where it is not known.
        boxes: ``[N, 2]`` float32, width and height in pixels of the box around each trajectory's point; 0, 0 for none. None: no boxes.

    Raises:
        InputError: no trajectory or no frame, other shapes, or numbers that are not finite.
    """

    points: Tensor
    visible: Tensor
    size: tuple[int, int] | None = None
    boxes: Tensor | None = None

    def __post_init__(self) -> None:
        points = torch.as_tensor(self.points).detach().to("cpu", torch.float32)
        if points.ndim != 3 or points.shape[2] != 2 or not 1 <= len(points) <= MOST_TRACKS or not 1 <= points.shape[1] <= MOST_FRAMES:
            raise InputError(
                f"The tracks are {list(points.shape)}; they must be [tracks, frames, 2], with 1 to {MOST_TRACKS} tracks of 1 to "
                f"{MOST_FRAMES} frames, x and y in pixels."
            )
        visible = torch.as_tensor(self.visible).detach().to("cpu")
        if visible.shape != points.shape[:2]:
            raise InputError(f"The visibility of the tracks is {list(visible.shape)}; it must be {list(points.shape[:2])}.")
        wrong = ~(points.abs() <= FARTHEST).all(2)
        if wrong.any():
            track, frame = wrong.nonzero()[0].tolist()
            raise InputError(
                f"Track {track} is at {points[track, frame].tolist()} in frame {frame}; x and y must be numbers from {-FARTHEST:.0f} to "
                f"{FARTHEST:.0f}."
            )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "visible", visible.bool())
        if self.size is not None:
            _check_size(*self.size)
        if self.boxes is not None:
            boxes = torch.as_tensor(self.boxes).detach().to("cpu", torch.float32)
            if boxes.shape != (len(points), 2) or not ((boxes >= 0) & (boxes <= FARTHEST)).all():
                raise InputError(f"The boxes of {len(points)} tracks must be as many pairs of width and height, 0 to {FARTHEST:.0f}.")
            object.__setattr__(self, "boxes", boxes)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def frames(self) -> int:
        """Number of frames, T."""
        return int(self.points.shape[1])

    def resampled(self, frames: int) -> Tracks:
        """The same ways in another number of frames: evenly in time, the first and the last point exactly. One point stays in place.

        Where a point is invisible, its place is that between its visible neighbours.
        """
        most = min(MOST_FRAMES, MOST_NUMBERS // 2 // len(self))
        if not 1 <= frames <= most:
            raise InputError(f"{len(self)} tracks can't be had in {frames} frames; 1 to {most} are possible.")
        if frames == self.frames:
            return self
        place = torch.linspace(0, self.frames - 1, frames, dtype=torch.float64) if frames > 1 else torch.zeros(1, dtype=torch.float64)
        start = place.floor().long().clamp(max=max(self.frames - 2, 0))
        end, share = (start + 1).clamp(max=self.frames - 1), place - start
        points = self.filled().points.double()
        rows = torch.lerp(points[:, start], points[:, end], share[None, :, None])
        nearest = torch.where(share < 0.5, start, end)
        return replace(self, points=rows.float(), visible=self.visible[:, nearest])

    def filled(self) -> Tracks:
        """Points for the frames in which they are invisible: between their visible neighbours, else where the nearest visible one is.

        Programs fill up tracks with invisible points at 0, 0; those would pull at the others. A track that is never visible stays.
        """
        if self.visible.all():
            return self
        points = self.points.clone()
        for track in (~self.visible.all(1)).nonzero()[:, 0].tolist():
            known = self.visible[track].nonzero()[:, 0]
            if len(known):
                frame = torch.arange(self.frames)
                after = torch.searchsorted(known, frame).clamp(max=len(known) - 1)
                right = known[after]
                left = torch.where(right > frame, known[(after - 1).clamp(min=0)], right)
                share = ((frame - left) / (right - left).clamp(min=1)).clamp(0, 1)
                points[track] = torch.lerp(self.points[track, left], self.points[track, right], share[:, None])
        return replace(self, points=points)

    def scaled(self, width: int, height: int, source: tuple[int, int] | None = None) -> Tracks:
        """The tracks in a picture of another size.

        Args:
            width, height: the new size in pixels.
            source: the size of the picture that they are in; by default :attr:`size`. If neither is known, the points stay as they are.
        """
        _check_size(width, height)
        old = source or self.size or (width, height)
        _check_size(*old)
        factors = torch.tensor([width / old[0], height / old[1]])
        boxes = None if self.boxes is None else self.boxes * factors
        return replace(self, points=self.points * factors, boxes=boxes, size=(width, height))

    def box_path(self, track: int = 0) -> Tensor:
        """The box of a track in each frame, ``[T, 4]`` float64: top, bottom, left, right as shares of the picture's height and width.

        Raises:
            InputError: no such track, no box around it, or the picture's size is not known.
        """
        if not -len(self) <= track < len(self):
            raise InputError(f"There are {len(self)} tracks, there is no track {track}.")
        if self.boxes is None or not (self.boxes[track] > 0).all():
            raise InputError(f"Track {track} has no box around it. Draw a box (VideoCrafter Draw Trajectory), or connect a mask.")
        if self.size is None:
            raise InputError("The size of the picture that the tracks are in is not known.")
        size, points = torch.tensor(self.size, dtype=torch.float64), self.filled().points[track].double()
        half = self.boxes[track].double() / 2
        start, end = (points - half) / size, (points + half) / size
        return torch.stack([start[:, 1], end[:, 1], start[:, 0], end[:, 0]], 1)

    def masks(self) -> Tensor:
        """The inside of all visible boxes in each frame, ``[T, H, W]`` of 0 and 1; what is outside the picture is cut off."""
        if self.size is None:
            raise InputError("The size of the picture that the tracks are in is not known.")
        width, height = self.size
        boxed = [] if self.boxes is None else (self.boxes > 0).all(1).nonzero()[:, 0].tolist()
        if self.boxes is None or not boxed:
            return torch.zeros(1, height, width).expand(self.frames, height, width)
        masks = torch.zeros(self.frames, height, width)
        for track in boxed:
            for frame in self.visible[track].nonzero()[:, 0].tolist():
                start = (self.points[track, frame] - self.boxes[track] / 2).round().long()
                end = (self.points[track, frame] + self.boxes[track] / 2).round().long()
                (left, top), (right, bottom) = start.clamp(min=0).tolist(), end.clamp(min=0).tolist()
                masks[frame, top:bottom, left:right] = 1
        return masks

    def as_core(self) -> dict[str, Any]:
        """Core's TRACKS: ``[T, N, 2]`` and ``[T, N]``, and the size and the boxes beside them."""
        values: dict[str, Any] = {PATH_KEY: self.points.movedim(0, 1).contiguous(), VISIBILITY_KEY: self.visible.T.contiguous()}
        if self.size is not None:
            values[SIZE_KEY] = self.size
        if self.boxes is not None:
            values[BOXES_KEY] = self.boxes
        return values


def tracks_from_core(tracks: Mapping[str, Any]) -> Tracks:
    """Core's TRACKS, as its own nodes make them or :meth:`Tracks.as_core`.

    Raises:
        InputError: anything else.
    """
    if not isinstance(tracks, Mapping) or not isinstance(tracks.get(PATH_KEY), Tensor):
        raise InputError(f"The tracks are {type(tracks).__name__} without {PATH_KEY}: connect the TRACKS output of a node.")
    path = tracks[PATH_KEY]
    if path.ndim != 3 or path.shape[2] != 2:
        raise InputError(f"The {PATH_KEY} of the tracks is {list(path.shape)}; it must be [frames, tracks, 2].")
    visible = tracks.get(VISIBILITY_KEY)
    visible = torch.ones(path.shape[:2], dtype=torch.bool) if visible is None else torch.as_tensor(visible)
    if visible.shape == (len(path), 1):  # core's, of a mask: one column for all tracks
        visible = visible.expand(path.shape[:2])
    if visible.shape != path.shape[:2]:
        raise InputError(f"The {VISIBILITY_KEY} of the tracks is {list(visible.shape)}; it must be {list(path.shape[:2])}.")
    size = tracks.get(SIZE_KEY)
    return Tracks(path.movedim(0, 1), visible.T, None if size is None else (int(size[0]), int(size[1])), tracks.get(BOXES_KEY))


def tracks_from_masks(masks: Tensor) -> Tracks:
    """One track, with a box, of a mask for each frame ``[T, H, W]``: the middle of what is above 0.5, and the largest box around it.

    The point is invisible in frames whose mask is empty.

    Raises:
        InputError: another shape, or all masks are empty.
    """
    if not isinstance(masks, Tensor):
        raise InputError(f"The mask is {type(masks).__name__}: connect the mask of a node.")
    if masks.ndim == 2:
        masks = masks[None]
    if masks.ndim != 3 or not masks.numel():
        raise InputError(f"The mask is {list(masks.shape)}; it must be [frames, height, width].")
    inside = masks.detach().to("cpu") > 0.5
    visible = inside.any(2).any(1)
    if not visible.any():
        raise InputError("The mask is empty in all frames: draw what is to move, in one frame at least.")
    ends = [_ends(inside.any(axis)) for axis in (1, 2)]  # of the columns, of the rows
    points = torch.stack([(start + end) / 2 for start, end in ends], 1)
    boxes = torch.stack([(end - start)[visible].amax() for start, end in ends])
    height, width = masks.shape[1:]
    return Tracks(points[None], visible[None], (int(width), int(height)), boxes[None]).filled()


def join_tracks(all_tracks: Sequence[Tracks]) -> Tracks:
    """Several tracks as one, with the size and the number of frames of the first.

    Raises:
        InputError: there is none.
    """
    if not all_tracks:
        raise InputError("There are no tracks.")
    first = all_tracks[0]
    fitted = [each.resampled(first.frames) for each in all_tracks]
    if first.size is not None:
        fitted = [each.scaled(*first.size) for each in fitted]
    boxes = None
    if any(each.boxes is not None for each in fitted):
        boxes = torch.cat([torch.zeros(len(each), 2) if each.boxes is None else each.boxes for each in fitted])
    return Tracks(torch.cat([each.points for each in fitted]), torch.cat([each.visible for each in fitted]), first.size, boxes)


def _ends(taken: Tensor) -> tuple[Tensor, Tensor]:
    """The first taken place of each row, and the place after the last one, ``[T, n]`` -> two ``[T]``."""
    taken = taken.to(torch.uint8)
    return taken.argmax(1).float(), taken.shape[1] - taken.flip(1).argmax(1).float()


def _check_size(width: float, height: float) -> None:
    if not (0 < width <= 1 << 20 and 0 < height <= 1 << 20):
        raise InputError(f"The size of the picture is {width}x{height}; width and height must be 1 to {1 << 20} pixels.")
