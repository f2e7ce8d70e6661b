"""Motion smoothness (VBench, arXiv:2311.17982): how well every second frame is what lies between its neighbours.

VBench interpolates with AMT-S; here the flow between the neighbours does, half of it from each side.
"""

from __future__ import annotations

import numpy as np

from .clip import Clip
from .flow import Flow, warped
from .score import Score


def motion_smoothness(clip: Clip, flow: Flow) -> Score:
    """1 minus the mean absolute difference of frames 1, 3, ... from those interpolated between 0, 2, ..., of pixels in [0, 1]."""
    values = []
    for index in range(1, len(clip) - 1, 2):
        before, after = clip.pixels[index - 1], clip.pixels[index + 1]
        difference = np.abs(between(before, after, flow) - clip.pixels[index])
        values.append((255 - float(difference.mean())) / 255)
    return Score.mean(values, first=1)


def between(before: np.ndarray, after: np.ndarray, flow: Flow) -> np.ndarray:
    """The frame ``[H, W, 3]`` in 0..255 in the middle between two of 8 bits."""
    forward, backward = flow(before, after), flow(after, before)
    # The flow at the middle's pixels, from what passes there on either way.
    motion = (forward - backward) / 2
    first, _ = warped(before.astype(np.float32), -motion / 2)
    second, _ = warped(after.astype(np.float32), motion / 2)
    return np.clip((first + second) / 2, 0, 255)
