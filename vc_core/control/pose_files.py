"""Camera poses from text: RealEstate10K's files, and lists of matrices in JSON.

A line of a RealEstate10K file (also CameraCtrl's and AnimateDiff-Evolved's) has 19 numbers: time; fx, fy, cx, cy as shares of width and
height; two that nothing uses; and the world-to-camera matrix [R | t], row by row. Its first line is the address of the clip.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .cameras import MOST_FRAMES, CameraPath

LONGEST = 20_000_000
#: How MotionCtrl's program multiplies the translations of the JSON files that come with it.
MOTIONCTRL_SCALE = (1.5, 1.0, 1.3)
_TOLERANCE = 0.02
_FORM = (
    "A line has 19 numbers: time, fx, fy, cx, cy, two unused, and the 12 numbers of the world-to-camera matrix, row by row (RealEstate10K)."
)


def read_poses(text: str) -> CameraPath:
    """The poses of a RealEstate10K file's text, or of a JSON list.

    Of JSON, each entry is a pose: 3 or 4 rows of 4 numbers, the same 12 or 16 numbers without rows, or the 19 numbers of a line.

    Raises:
        InputError: nothing in it, a line of another form (named by its number), or a matrix that is no rotation.
    """
    if len(text) > LONGEST:
        raise InputError(f"The camera file has {len(text)} characters; at most {LONGEST} are read.")
    text = text.lstrip("\ufeff").strip()
    if not text:
        raise InputError(f"The camera file is empty. {_FORM}")
    rows = _json_rows(text) if text.startswith(("[", "{")) else _lines(text)
    if not 1 <= len(rows) <= MOST_FRAMES:
        raise InputError(f"The camera file has {len(rows)} poses; 1 to {MOST_FRAMES} are possible. {_FORM}")
    matrices = torch.tensor([row[-12:] for _, row in rows], dtype=torch.float64).unflatten(1, (3, 4))
    _check_rotations(matrices, [place for place, _ in rows])
    lenses = [row[1:5] for _, row in rows if len(row) == 19]
    if lenses and len(lenses) < len(rows):
        raise InputError("Some poses of the camera file have 19 numbers and some have not; write all of them in one form.")
    known = bool(lenses) and all(fx > 0 and fy > 0 for fx, fy, _, _ in lenses)
    return CameraPath(matrices, torch.tensor(lenses, dtype=torch.float64) if known else None)


def _lines(text: str) -> list[tuple[str, list[float]]]:
    """The numbers of each line, with the words that name it in a message."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and not any(map(_is_number, words))):
            continue  # empty, or the clip's address
        if len(words) != 19:
            raise InputError(f"Line {number} of the camera file has {len(words)} numbers. {_FORM}")
        rows.append((f"line {number}", _numbers(words, f"line {number}")))
    return rows


def _json_rows(text: str) -> list[tuple[str, list[float]]]:
    try:
        poses = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The camera file begins like JSON, but can't be read: {error}.") from None
    if not isinstance(poses, list):
        raise InputError("The JSON of a camera file must be a list with a matrix for each frame.")
    rows = []
    for number, pose in enumerate(poses):
        place = f"pose {number}"
        numbers = _numbers(_flat(pose, place), place)
        if len(numbers) not in (12, 16, 19):
            raise InputError(f"Of the camera file, {place} has {len(numbers)} numbers; a pose has 12 (3x4), 16 (4x4) or 19. {_FORM}")
        if len(numbers) == 16:
            if max(abs(one - other) for one, other in zip(numbers[12:], (0, 0, 0, 1), strict=True)) > 1e-6:
                raise InputError(f"Of the camera file, {place} has 4x4 numbers whose last row is not 0 0 0 1.")
            numbers = numbers[:12]
        rows.append((place, numbers))
    return rows


def _flat(pose: Any, place: str) -> list[Any]:
    if not isinstance(pose, list) or len(pose) > 32:
        raise InputError(f"Of the camera file, {place} is no list of numbers: {pose!r:.60}.")
    return [each for row in pose for each in (row[:32] if isinstance(row, list) else [row])]


def _numbers(words: Sequence[Any], place: str) -> list[float]:
    numbers = []
    for word in words:
        try:
            number = float("nan") if isinstance(word, bool) else float(word)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number) or abs(number) > 1e18:
            raise InputError(f"Of the camera file, {place} has {word!r:.40} where a number must be.")
        numbers.append(number)
    return numbers


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_rotations(poses: Tensor, places: Sequence[str]) -> None:
    turns = poses[:, :, :3]
    off = (turns @ turns.mT - torch.eye(3, dtype=poses.dtype)).abs().amax((1, 2))
    wrong = ~((off < _TOLERANCE) & (torch.linalg.det(turns) > 0))
    if wrong.any():
        first = int(wrong.nonzero()[0, 0])
        raise InputError(
            f"Of the camera file, {places[first]} has no rotation in its matrix: the first three numbers of each of its 3 rows must make a "
            f"rotation. {_FORM}"
        )
