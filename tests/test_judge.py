"""The judge of clips, on clips drawn by Pillow."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageDraw

from harness.judge import NAMED, judge

COLOURS = ("red", "green", "blue", "yellow", "white", "purple")
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
#: What another painter would take for these words.
PAINT = {
    "red": "#d62728", "green": "#2ca02c", "blue": "#2f5fdf", "yellow": "#f2d21f", "white": "#f4f4f0", "purple": "#8e3fb5",
}


def drawn(colour: str, shape: str, direction: str, step: float, size: float, ground: str = "#101418") -> np.ndarray:
    """A clip `[16, 64, 64, 3]`, drawn four times as large by Pillow and made smaller."""
    dx, dy = DIRECTIONS[direction]
    frames = []
    for index in range(16):
        x, y = (4 * (32 + delta * step * (index - 7.5)) for delta in (dx, dy))
        r = 4 * size
        frame = Image.new("RGB", (256, 256), ground)
        draw = ImageDraw.Draw(frame)
        if shape == "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=PAINT[colour])
        elif shape == "square":
            draw.rectangle((x - r, y - r, x + r, y + r), fill=PAINT[colour])
        else:
            draw.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=PAINT[colour])
        frames.append(np.asarray(frame.resize((64, 64), Image.Resampling.LANCZOS)))
    return np.stack(frames)


@pytest.mark.parametrize(("colour", "shape"), list(product(COLOURS, SHAPES)))
def test_judge_on_drawn_clips(colour: str, shape: str) -> None:
    for direction, step, size in product(DIRECTIONS, (0.7, 2.0), (6.0, 10.0)):
        verdict = judge(drawn(colour, shape, direction, step, size))
        assert (verdict.colour, verdict.shape, verdict.direction) == (colour, shape, direction)
        assert verdict.step == pytest.approx(step, abs=0.1)
        expected = 32 - 0.5 + np.array(DIRECTIONS[direction]) * step * -7.5
        assert np.abs(verdict.centroids[0] - expected).max() < (5 if shape == "triangle" else 1)  # a triangle's centroid is lower


def test_judge_says_nothing_of_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 30, (16, 64, 64, 3))
    verdict = judge(noise)
    assert (verdict.colour, verdict.shape, verdict.direction) == (None, None, None)
    still = np.repeat(drawn("red", "circle", "up", 0.0, 8.0)[:1], 16, axis=0)
    assert (judge(still).colour, judge(still).direction) == ("red", None)
    flicker = drawn("red", "circle", "left", 1.0, 8.0).copy()
    flicker[4:12] = 20
    assert judge(flicker).shape is None


def test_judge_sees_through_noise() -> None:
    clip = drawn("purple", "triangle", "down", 1.5, 9.0) + np.random.default_rng(1).normal(0, 12, (16, 64, 64, 3))
    verdict = judge(np.clip(clip, 0, 255))
    assert (verdict.colour, verdict.shape, verdict.direction) == ("purple", "triangle", "down")
    assert set(NAMED) == set(COLOURS)
