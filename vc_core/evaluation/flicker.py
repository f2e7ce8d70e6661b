"""Temporal flickering (VBench, arXiv:2311.17982): how little pixels change from frame to frame. It is exactly VBench's.

VBench applies it to videos of still scenes. Any motion lowers it as well.
"""

from __future__ import annotations

import numpy as np

from .clip import Clip
from .score import Score


def flickering(clip: Clip, _: None = None) -> Score:
    """1 minus the mean absolute difference of consecutive frames, of pixels in [0, 1]."""
    pairs = zip(clip.pixels[:-1], clip.pixels[1:], strict=True)
    return Score.mean([(255 - float(np.abs(one.astype(np.int16) - other).mean())) / 255 for one, other in pairs], first=1)
