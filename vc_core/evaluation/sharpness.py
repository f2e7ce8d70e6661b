"""Sharpness: the variance of the Laplacian (Pech-Pacheco et al., ICPR 2000)."""

from __future__ import annotations

import numpy as np

from .clip import Clip
from .score import Score


def sharpness(clip: Clip, _: None = None) -> Score:
    """The mean over the frames of the variance of their luma's Laplacian (4 neighbours), of values in 0..255.

    It depends on size and content: compare videos of one prompt and size only. Noise raises it.
    """
    return Score.mean([float(laplacian(frame).var()) for frame in clip.grey()])


def laplacian(grey: np.ndarray) -> np.ndarray:
    """The sum of the four neighbours minus four times the pixel, ``[H, W]`` -> ``[H - 2, W - 2]``."""
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return around - 4 * grey[1:-1, 1:-1]
