"""What FreeTraj makes of the bundled text model and of drawn paths, judged by pixels alone."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from harness.judge import as_pixels, judge
from tests.bundled_cases import COLOURS, FARTHEST, NEAREST, SHAPES, STEPS, TEXT_TO_VIDEO, model
from vc_core.control.drawn import read_tracks
from vc_core.control.tracks import Tracks
from vc_core.controlling import Motion, with_motion
from vc_core.sampling import Sampling

FRAMES, SIDE, PATHS = 16, 64, 24
#: Pixels that the shape's middle may be off the path, in the mean over the frames.
NEAR = 8.0


def drawn(seed: int = 9) -> list[Tracks]:
    """Smooth paths through three points, whose ends are apart by a third of the picture at least."""
    random, found = np.random.default_rng(seed), []
    while len(found) < PATHS:
        start, end = random.uniform(NEAREST + 2, FARTHEST - 2, (2, 2))
        bend = (start + end) / 2 + random.uniform(-8, 8, 2)
        if np.linalg.norm(end - start) < SIDE / 3 or not (bend.min() > NEAREST and bend.max() < FARTHEST):
            continue
        points = [{"x": round(x, 1), "y": round(y, 1)} for x, y in (start, bend, end)]
        found.append(read_tracks(json.dumps([{"points": points, "curve": "smooth"}]), (SIDE, SIDE), FRAMES))
    return found


def distance(video: np.ndarray, path: np.ndarray) -> float:
    """Of the shape's middle from the path ``[T, 2]``, in pixels, in the mean over the frames; infinite where most have no shape."""
    seen = judge(video).centroids
    visible = ~np.isnan(seen[:, 0])
    return float(np.linalg.norm(seen - path, axis=1)[visible].mean()) if visible.sum() >= 0.75 * len(video) else float("inf")


@pytest.mark.full
def test_the_shape_follows_the_drawn_path():
    """The same seeds without the path are the comparison."""
    kinds, apart = list(product(COLOURS, SHAPES)), {"with": [], "without": []}
    for number, tracks in enumerate(drawn()):
        name = " ".join(kinds[(5 * number) % len(kinds)])
        plain = Sampling.of(model(TEXT_TO_VIDEO).config, steps=STEPS, seed=number)
        followed = with_motion(model(TEXT_TO_VIDEO), plain, Motion(tracks=tracks, subject=name), f"a {name}")
        for kind, sampling in (("with", followed), ("without", plain)):
            video = as_pixels(model(TEXT_TO_VIDEO).text_to_video(f"a {name}", sampling=sampling)[0].numpy())
            apart[kind].append(distance(video, tracks.points[0].numpy()))
        print(name, round(apart["with"][-1], 1), round(apart["without"][-1], 1), flush=True)
    near = {kind: sum(each <= NEAR for each in values) / PATHS for kind, values in apart.items()}
    print(f"within {NEAR:g} pixels in the mean: {near}; the median distance: {({kind: np.median(each) for kind, each in apart.items()})}")
    assert near["with"] >= 0.8 and near["without"] <= 0.3
