"""What the bundled depth model makes of silhouettes, judged by pixels alone."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

import vc_core
from harness.judge import as_pixels, colour_of, foreground
from tests.bundled_cases import BATCH, COLOURS, DEPTH, FARTHEST, NEAREST, SHAPES, STEPS, Case, model
from vc_core.errors import InputError
from vc_core.media.depth import depth_of_frames

FRAMES = 16


def clips(count: int = 24) -> list[list[Case]]:
    """Silhouettes on straight and on curved paths, one case for each frame; colours and shapes in turn."""
    random, found = np.random.default_rng(5), []
    kinds = list(product(COLOURS, SHAPES))
    for number in range(count):
        colour, shape = kinds[number % len(kinds)]
        start, bend, end = random.uniform(NEAREST + 1, FARTHEST - 1, (3, 2))
        time = np.linspace(0, 1, FRAMES)[:, None]
        path = (1 - time) ** 2 * start + 2 * time * (1 - time) * bend + time**2 * end  # a Bézier curve, within its points' bounds
        found.append([Case(colour, shape, "right", float(x), float(y)) for x, y in path])
    return found


def silhouettes(clip: list[Case]) -> torch.Tensor:
    """White shapes on black, ``[1, 16, 64, 64]``, drawn by Pillow."""
    images = [Case("white", case.shape, case.direction, case.x, case.y).image() for case in clip]
    return depth_of_frames(torch.from_numpy(np.stack(images)).permute(3, 0, 1, 2)[None])[0]


def intersection_over_union(video: np.ndarray, maps: torch.Tensor) -> float:
    """In the mean over the frames of a clip ``[T, H, W, 3]`` of 0..255; 0 in a frame without a shape."""
    shares = []
    for frame, depth in zip(video, maps[0].numpy(), strict=True):
        made, wanted = foreground(frame.astype(np.float64)), depth > (depth.min() + depth.max()) / 2
        shares.append((made & wanted).sum() / (made | wanted).sum())
    return float(np.mean(shares))


@pytest.mark.full
def test_the_shape_is_where_the_silhouette_is_in_the_colour_of_the_prompt():
    chosen, shares, right = clips(), [], 0
    for first in range(0, len(chosen), BATCH):
        part = chosen[first : first + BATCH]
        maps = torch.stack([silhouettes(clip) for clip in part])
        prompts = [f"a {clip[0].colour} {clip[0].shape}" for clip in part]
        made = model(DEPTH).depth_to_video(maps, prompts, steps=STEPS, seed=0)
        for clip, depth, video in zip(part, maps, made.numpy(), strict=True):
            pixels = as_pixels(video)
            shares.append(intersection_over_union(pixels, depth))
            middle = pixels[FRAMES // 2].astype(np.float64)
            right += bool(foreground(middle).any()) and colour_of(middle, foreground(middle)) == clip[0].colour
        print(f"after {len(shares)}: intersection over union {np.mean(shares):.3f} (least {min(shares):.3f}), colours {right}", flush=True)
    assert np.mean(shares) >= 0.7
    assert right >= 0.95 * len(chosen)


def test_a_clip_is_made_from_maps_of_any_aspect_and_other_counts_are_refused():
    model = vc_core.load(DEPTH)
    maps = torch.rand(1, 1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    settings = {"steps": 2, "frames": 3, "seed": 1}
    made = model.depth_to_video(maps, "a red square", **settings)
    assert made.shape == (1, 3, 3, 64, 64)
    other = model.depth_to_video(7 * maps[0] - 2, "a red square", **settings)  # one video's, in another range
    assert (made - other).abs().max() <= 1e-3
    flat = model.depth_to_video(maps, "a red square", depth_strength=0.0, **settings)
    assert (made - flat).abs().max() > 0.05
    with pytest.raises(InputError, match="3 depth maps, but the video has 16 frames"):
        model.depth_to_video(maps, "a red square", steps=2)
    with pytest.raises(InputError, match="use depth_to_video"):
        model.text_to_video("a red square", steps=2)
