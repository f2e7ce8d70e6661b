"""Paths of points as maps of motion, as MotionCtrl reads them (Wang et al., arXiv:2312.03641, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError

#: The picture's size that MotionCtrl was trained at, and the smoothing of the motion at this size, in pixels.
SIDE, SIGMA, KERNEL = 256, 10.0, 99
#: The points of a path that the authors take, and where a path without motion is, in their canvas.
POINTS, CANVAS, CENTRE = 16, 1024, 512


def spread_points(points: Sequence[tuple[int, int]], count: int = POINTS) -> list[tuple[int, int]]:
    """A path as so many points, as the authors' programs do it: some are left out, or more are put evenly between them.

    Args:
        points: ``(x, y)`` in whole pixels. Fewer than two are a point at rest in the centre of the authors' canvas.
    """
    if len(points) < 2:
        return [(CENTRE, CENTRE)] * count
    if len(points) >= count:
        return [*points[:: len(points) // count][: count - 1], points[-1]]
    gaps = len(points) - 1
    share, left = divmod(count - len(points), gaps)
    spread = []
    for number, (start, end) in enumerate(zip(points[:-1], points[1:], strict=True)):
        between = share + (number < left)
        parts = [part / (between + 1) for part in range(between + 1)]
        spread += [(int(start[0] + part * (end[0] - start[0])), int(start[1] + part * (end[1] - start[1]))) for part in parts]
    return [*spread, points[-1]]


def flow_of_tracks(tracks: Tensor, height: int, width: int, visible: Tensor | None = None) -> Tensor:
    """The motion of each frame from the one before, spread around the points.

    Points outside of the picture, and those that are not visible, move nothing. The motions of several points are added.

    Args:
        tracks: ``[N, T, 2]``, x and y in pixels.
        visible: ``[N, T]``; all if not given.

    Returns:
        ``[2, T, height, width]`` in float32, x then y in pixels; the first frame is 0.

    Raises:
        InputError: tracks of another shape, or with numbers that are not finite.
    """
    if tracks.ndim != 3 or tracks.shape[2] != 2 or not torch.isfinite(tracks).all():
        raise InputError(f"The tracks have the shape {list(tracks.shape)}; expected are finite numbers [tracks, frames, 2].")
    places, motion = tracks[:, :-1].floor().long(), (tracks[:, 1:] - tracks[:, :-1]).double()
    inside = ((places >= 0) & (places < torch.tensor([width, height]))).all(dim=-1)
    if visible is not None:
        inside &= visible[:, :-1].bool() & visible[:, 1:].bool()
    sparse = torch.zeros(tracks.shape[1], 2, height, width, dtype=torch.float64)
    track, frame = inside.nonzero(as_tuple=True)
    x, y = places[track, frame].unbind(dim=-1)
    for axis in range(2):
        sparse.index_put_((frame + 1, torch.full_like(frame, axis), y, x), motion[track, frame, axis], accumulate=True)
    return _smoothed(sparse).movedim(0, 1).float()


def _smoothed(x: Tensor) -> Tensor:
    """``[n, 2, H, W]`` -> the same shape: a Gaussian filter, with the picture mirrored at its borders."""
    scale = min(x.shape[2:]) / SIDE
    reach = min(round(KERNEL // 2 * scale), *(side - 1 for side in x.shape[2:]))
    distances = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = (-(distances**2) / (2 * (SIGMA * scale) ** 2)).exp()
    down, across = (_filter_matrix(kernel / kernel.sum(), side) for side in x.shape[2:])
    return down @ x @ across.T


def _filter_matrix(kernel: Tensor, side: int) -> Tensor:
    """A filter along one axis as a matrix ``[side, side]``, with the axis mirrored at its ends."""
    reach = len(kernel) // 2
    mirrored = nn.functional.pad(torch.eye(side, dtype=kernel.dtype)[None], (reach, reach), mode="reflect")[0]  # [side, side + 2 reach]
    return (mirrored.unfold(1, len(kernel), 1) @ kernel).T
