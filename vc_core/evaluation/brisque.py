"""BRISQUE: quality of images without a reference (Mittal et al., IEEE TIP 2012), by the package brisque, which has its model's weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .clip import Clip
from .optional import library
from .score import NotMeasured, Score

#: Frames of a clip that are scored at most, evenly spaced: a frame takes a few tenths of a second.
MOST_FRAMES = 8


class Brisque:
    """The package's model."""

    tag = ""

    def __init__(self) -> None:
        self._model: Any = library("brisque", "brisque").BRISQUE(url=False)
        scale = self._model.scale_features
        # Some features are arrays of one number, which NumPy 2.4 no longer takes for a number.
        self._model.scale_features = lambda features: scale([np.asarray(each, float).item() for each in features])

    def __call__(self, frame: np.ndarray) -> float:
        """The score of a frame ``[H, W, 3]`` of 8 bits, about 0 (best) to 100; NaN for one without any texture."""
        with np.errstate(all="ignore"):
            try:
                return float(self._model.score(frame))
            except (ValueError, FloatingPointError, ZeroDivisionError):
                return math.nan


def brisque(clip: Clip, model: Brisque) -> Score:
    """The mean over at most :data:`MOST_FRAMES` frames, those without texture left out.

    Raises:
        NotMeasured: no frame has texture.
    """
    scores = [model(clip.pixels[index]) for index in spaced(len(clip), MOST_FRAMES)]
    known = [each for each in scores if math.isfinite(each)]
    if not known:
        raise NotMeasured("has no frame with any texture")
    return Score.mean(known)


def spaced(count: int, most: int) -> list[int]:
    """The indices of at most ``most`` of ``count`` frames, evenly spaced, the first and the last among them."""
    return [round(each) for each in np.linspace(0, count - 1, min(count, most))]
