"""Colour and count for clips of plain shapes on a dark or plain ground, as the bundled models make them.

EvalCrafter's color_score and count_score (arXiv:2310.11440) ask the same of segmented objects; these find shapes by their contrast.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .clip import Clip
from .optional import library
from .score import NotMeasured, Score

#: The colours of the bundled models' prompts.
COLOURS = {
    "red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "white": (255, 255, 255),
    "purple": (150, 0, 190),
}
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
SHAPES = ("circle", "square", "triangle")
#: A shape stands out from the ground by at least this much, of 441, and has at least this many pixels of 4096.
CONTRAST, SMALLEST = 60.0, 40 / 4096


def colour(clip: Clip, _: None = None) -> Score:
    """The part of the frames whose shapes have the colour that the prompt names.

    Raises:
        NotMeasured: the prompt names no colour of these, or no shape.
    """
    wanted = next((name for name in _words(clip) if name in COLOURS), None)
    if wanted is None:
        raise NotMeasured(f"has a prompt without a shape and one of the colors {', '.join(COLOURS)}")
    return Score.mean([float(_colour_of(frame) == wanted) for frame in clip.pixels])


def count(clip: Clip, _: None = None) -> Score:
    """The part of the frames with as many shapes as the prompt says.

    Raises:
        NotMeasured: the prompt names no shape, or no number before it.
    """
    words = _words(clip)
    wanted = next((NUMBERS[word] for word in words if word in NUMBERS), None)
    if wanted is None:
        raise NotMeasured("has a prompt that doesn't say how many shapes")
    return Score.mean([float(len(shapes(frame)) == wanted) for frame in clip.pixels])


def shapes(frame: np.ndarray) -> list[np.ndarray]:
    """The masks ``[H, W]`` of the shapes in a frame ``[H, W, 3]`` of 8 bits: what differs from the ground, the edge's median."""
    cv2 = library("cv2", "opencv-python-headless")
    values = frame.astype(np.float32)
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    distance = np.linalg.norm(values - np.median(edge, axis=0), axis=-1)
    peak = float(np.quantile(distance, 0.99))
    if peak < CONTRAST:
        return []
    parts, labels, stats, _ = cv2.connectedComponentsWithStats((distance > peak / 2).astype(np.uint8), connectivity=4)
    least = SMALLEST * labels.size
    return [labels == part for part in range(1, parts) if stats[part, cv2.CC_STAT_AREA] >= least]


def _colour_of(frame: np.ndarray) -> str | None:
    found = shapes(frame)
    if not found:
        return None
    mean = frame[np.logical_or.reduce(found)].mean(0)
    return min(COLOURS, key=lambda name: float(np.linalg.norm(mean - np.array(COLOURS[name]))))


def _words(clip: Clip) -> Sequence[str]:
    """The prompt's words before its shape."""
    words = re.findall(r"[a-z]+", (clip.prompt or "").lower())
    place = next((index for index, word in enumerate(words) if word.removesuffix("s") in SHAPES), 0)
    return words[:place]
