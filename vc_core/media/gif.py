"""Writing GIFs a frame at a time; Pillow, which chooses the colours and packs the pixels, would keep all frames in memory."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError

#: Longest time of a frame, in units of 10 ms.
LONGEST = 65535
#: Most bytes of a block of data.
BLOCK = 255


def write_gif(frames: Iterable[tuple[np.ndarray, int]], path: Path, size: tuple[int, int], loops: int | None, comment: bytes) -> None:
    """Write a GIF in which each frame has 256 colours of its own, and holds the part only that changed (GIF89a specification).

    Args:
        frames: ``[H, W, 3]`` of 8 bits, and the time that each is shown, in units of 10 ms. Equal frames become one.
        size: width and height.
        loops: how often it is repeated, 0 without end; None for once.
        comment: text in the file; empty for none.

    Raises:
        InputError: a frame, or equal ones together, last longer than 655 seconds.
    """
    with path.open("wb") as file:
        file.write(b"GIF89a" + struct.pack("<HHBBB", *size, 0x70, 0, 0))  # 8 bits a channel, no colours common to all frames
        if loops is not None:
            file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", loops, 0))
        if comment:
            blocks = (comment[start : start + BLOCK] for start in range(0, len(comment), BLOCK))
            file.write(b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0")
        for part, left, top, time in _changes(frames):
            if time > LONGEST:
                raise InputError(f"a frame lasts {time / 100:g} seconds, and at most {LONGEST / 100:g} are possible")
            file.write(b"!\xf9\x04\x04" + struct.pack("<HBB", time, 0, 0))  # the frame stays, so that the next one is drawn over it
            file.write(_picture(part, left, top))
        file.write(b";")


def _changes(frames: Iterable[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int, int, int]]:
    """The part of each frame that differs from the one before, its place (left, top), and its time together with equal frames."""
    before: np.ndarray | None = None
    waiting: tuple[np.ndarray, int, int] | None = None
    time = 0
    for pixels, each in frames:
        differs = np.ones(pixels.shape[:2], bool) if before is None else (pixels != before).any(2)
        if differs.any():
            if waiting is not None:
                yield *waiting, time
            rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
            waiting = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], int(columns[0]), int(rows[0])
            before, time = pixels, 0
        time += each
    if waiting is not None:
        yield *waiting, time


def _picture(pixels: np.ndarray, left: int, top: int) -> bytes:
    """A picture of a GIF with its own colours: what Pillow writes as a whole file, with the colours of the file moved to the picture."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "GIF")
    data = buffer.getvalue()
    bits = data[10] & 7
    end = 13 + 3 * 2 ** (bits + 1)
    start = end
    while data[start : start + 1] == b"!":  # what is said of the picture, which is said already
        start += 2
        while data[start]:
            start += 1 + data[start]
        start += 1
    height, width = pixels.shape[:2]
    interlaced = data[start + 9] & 0x40
    return struct.pack("<cHHHHB", b",", left, top, width, height, 0x80 | interlaced | bits) + data[13:end] + data[start + 10 : -1]
