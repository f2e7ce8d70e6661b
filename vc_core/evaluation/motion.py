"""How much a video moves, by optical flow.

* Flow score: the mean length of the flow between frames, in pixels (EvalCrafter, arXiv:2310.11440).
* Dynamic degree: whether a video moves (VBench, arXiv:2311.17982).
* Motion speed: the mean flow in shorter sides of the frame per second. Unlike the other two it hardly depends on size and frame rate.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .clip import Clip
from .flow import Flow
from .score import Score

#: Rate to which dynamic degree thins the frames.
DYNAMIC_FPS = 8
#: Part of a frame's pixels that decides whether it moves, the fastest ones, and by how many pixels of 256 they must.
FASTEST, MOVED, OF_SIDE = 0.05, 6.0, 256
#: Pairs that must move, of a number of frames.
PAIRS, OF_FRAMES = 4, 16


def flow_score(clip: Clip, flow: Flow) -> Score:
    """The mean length of the flow from each frame to the next, in pixels."""
    return Score.mean([float(np.linalg.norm(each, axis=-1).mean()) for each in _flows(clip.pixels, flow)], first=1)


def motion_speed(clip: Clip, flow: Flow) -> Score:
    """The flow score in shorter sides of the frame per second, between frames that are about 1/8 s apart."""
    step = _step(clip)
    side = min(clip.height, clip.width)
    lengths = [float(np.linalg.norm(each, axis=-1).mean()) for each in _flows(clip.pixels[::step], flow)]
    return Score.mean([length / side * clip.fps / step for length in lengths], first=1)


def dynamic_degree(clip: Clip, flow: Flow) -> Score:
    """1 if the video moves, else 0.

    The frames are thinned to about 8 a second. A pair moves if the mean of its longest 5 % of the flow is above 6 pixels of 256 of
    the shorter side, more below 8 frames a second; the video does if 4 pairs of 16 frames move. The curve has each pair's mean over this
    threshold.
    """
    frames = clip.pixels[:: _step(clip)]
    threshold = max(1.0, DYNAMIC_FPS / clip.fps) * MOVED * min(clip.height, clip.width) / OF_SIDE
    curve = []
    for each in _flows(frames, flow):
        lengths = np.sort(np.linalg.norm(each, axis=-1), axis=None)
        curve.append(float(lengths[-max(1, int(len(lengths) * FASTEST)) :].mean() / threshold))
    moves = sum(each > 1 for each in curve)
    return Score(float(moves >= max(1, round(PAIRS * len(frames) / OF_FRAMES))), tuple(curve), 1)


def _step(clip: Clip) -> int:
    """Every how-manieth frame is taken; at least two frames are."""
    return min(max(1, round(clip.fps / DYNAMIC_FPS)), len(clip) - 1)


def _flows(frames: np.ndarray, flow: Flow) -> Iterator[np.ndarray]:
    for index in range(len(frames) - 1):
        yield flow(frames[index], frames[index + 1])
