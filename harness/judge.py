"""Says what a clip of one flat shape on a plain ground shows, from its pixels alone.

It shares nothing with the code that draws the training clips: no geometry, no colours, no paths.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

NAMED = {
    "red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255),
    "yellow": (255, 255, 0), "white": (255, 255, 255), "purple": (150, 0, 190),
}
CONTRAST = 60.0  # a shape stands out from the ground by at least this much, of 441
SMALLEST = 40  # pixels


@dataclass(frozen=True)
class Verdict:
    """What a clip shows; None where that can't be decided."""

    colour: str | None
    shape: str | None
    direction: str | None
    step: float  # pixels from frame to frame, along the main axis
    centroids: np.ndarray  # [T, 2] x, y; nan where a frame has no shape
    fill: float  # area over the area of the bounding box


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 4-connected part of a mask `[H, W]`."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        around = [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        grown = np.where(mask, np.maximum.reduce(around), 0)
        if (grown == labels).all():
            break
        labels = grown
    found = labels[mask]
    return labels == np.bincount(found).argmax() if found.size else mask


def foreground(frame: np.ndarray) -> np.ndarray:
    """The pixels `[H, W]` of the shape in a frame `[H, W, 3]` of 0..255: those at least half as far from the ground as the farthest."""
    border = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
    distance = np.linalg.norm(frame - np.median(border, axis=0), axis=-1)
    peak = np.quantile(distance, 0.99)
    if peak < CONTRAST:
        return np.zeros(distance.shape, bool)
    mask = largest_component(distance > peak / 2)
    return mask if mask.sum() >= SMALLEST else np.zeros_like(mask)


def colour_of(frame: np.ndarray, mask: np.ndarray) -> str:
    """The nearest named colour to the shape's mean."""
    mean = frame[mask].mean(0)
    return min(NAMED, key=lambda name: float(np.linalg.norm(mean - np.array(NAMED[name]))))


def fill_of(mask: np.ndarray) -> float:
    """Area over the bounding box's: 1 for an upright square, pi/4 for a circle, 1/2 for a triangle."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(mask.sum() / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)))


def judge(video: np.ndarray) -> Verdict:
    """Look at a video `[T, H, W, 3]` of 0..255. What most frames show counts."""
    video = video.astype(np.float64)
    masks = [foreground(frame) for frame in video]
    seen = [index for index, mask in enumerate(masks) if mask.any()]
    centroids = np.full((len(video), 2), np.nan)
    for index in seen:
        rows, columns = np.nonzero(masks[index])
        centroids[index] = columns.mean(), rows.mean()
    if len(seen) < 0.75 * len(video):  # no clip of a shape
        return Verdict(None, None, None, 0.0, centroids, 0.0)
    colour = Counter(colour_of(video[index], masks[index]) for index in seen).most_common(1)[0][0]
    fill = float(np.median([fill_of(masks[index]) for index in seen]))
    shape = "square" if fill > 0.89 else "circle" if fill > 0.65 else "triangle"
    slope = np.polyfit(seen, centroids[seen], 1)[0] if len(seen) > 1 else np.zeros(2)  # pixels a frame in x and y
    axis = int(np.abs(slope).argmax())
    step = float(abs(slope[axis]))
    direction = None
    if step * (len(video) - 1) >= 3:
        direction = (("left", "right"), ("up", "down"))[axis][int(slope[axis] > 0)]
    return Verdict(colour, shape, direction, step, centroids, fill)


def as_pixels(video: np.ndarray) -> np.ndarray:
    """`[3, T, H, W]` in [-1, 1] to `[T, H, W, 3]` in 0..255."""
    return np.clip(np.round((video.transpose(1, 2, 3, 0) + 1) * 127.5), 0, 255).astype(np.uint8)
