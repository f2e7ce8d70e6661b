"""Warping error: how well each frame follows from the next by its flow (EvalCrafter, arXiv:2310.11440; Lai et al., ECCV 2018)."""

from __future__ import annotations

import numpy as np

from .clip import Clip
from .flow import Flow, warped
from .optional import library
from .score import Score

#: Occlusion by Sundaram et al. (ECCV 2010): the round trip's squared error above 0.01 of the squared lengths and 0.5, and the edges of
#: motion: the flow's squared gradient above 0.01 of its squared length and 0.002.
RELATIVE, ABSOLUTE, EDGES = 0.01, 0.5, 0.002
#: Smallest shorter side that is halved.
HALVED = 128


def warping_error(clip: Clip, flow: Flow) -> Score:
    """The mean squared error between each frame and the next one warped to it, of pixels in [0, 1] that both show.

    The error of a pixel is the sum over its three channels. Frames are halved first, as EvalCrafter does;
    small ones are not.
    """
    cv2 = library("cv2", "opencv-python-headless")
    half = min(clip.height, clip.width) >= HALVED

    def prepared(index: int) -> np.ndarray:
        frame: np.ndarray = clip.pixels[index]
        return cv2.resize(frame, (clip.width // 2, clip.height // 2), interpolation=cv2.INTER_AREA) if half else frame

    errors, before = [], prepared(0)
    for index in range(1, len(clip)):
        after = prepared(index)
        errors.append(pair_error(before, after, flow(before, after), flow(after, before)))
        before = after
    return Score.mean(errors, first=1)


def pair_error(before: np.ndarray, after: np.ndarray, forward: np.ndarray, backward: np.ndarray) -> float:
    """The error of two frames ``[H, W, 3]`` of 8 bits, with their flows ``[H, W, 2]`` there and back.

    Pixels whose round trip doesn't return are occluded, and left out; where all are, the frames have nothing in common, and the
    error of the frames as they are is given.
    """
    predicted, inside = warped(after.astype(np.float32), forward)
    error = np.square((predicted - before) / 255).sum(-1)
    visible = inside & ~occluded(forward, warped(backward, forward)[0])
    if not visible.any():
        return float(np.square((after.astype(np.float32) - before) / 255).sum(-1).mean())
    return float(error[visible].mean())


def occluded(forward: np.ndarray, returned: np.ndarray) -> np.ndarray:
    """Which pixels ``[H, W]`` the other frame doesn't show, or are at an edge of motion.

    Args:
        forward: the flow ``[H, W, 2]``.
        returned: the flow back, read where each pixel goes.
    """
    length = (forward**2).sum(-1)
    trip = ((forward + returned) ** 2).sum(-1) > RELATIVE * (length + (returned**2).sum(-1)) + ABSOLUTE
    gradient = np.zeros_like(length)
    gradient[:, :-1] += (np.diff(forward, axis=1) ** 2).sum(-1)
    gradient[:-1] += (np.diff(forward, axis=0) ** 2).sum(-1)
    return trip | (gradient > RELATIVE * length + EDGES)
