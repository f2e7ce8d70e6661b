"""The bundled model does what it is asked, judged by pixels alone; and the judge itself, on pictures drawn by Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import vc_core
from harness.judge import NAMED, Verdict, as_pixels, judge

COLOURS = ("red", "green", "blue", "yellow", "white", "purple")
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
NAME = "videocrafter_tiny_t2v"
STEPS = 25
AT_ONCE = 12

PAINT = {  # what another painter would take for these words
    "red": "#d62728", "green": "#2ca02c", "blue": "#2f5fdf", "yellow": "#f2d21f", "white": "#f4f4f0", "purple": "#8e3fb5",
}


# --- the judge ------------------------------------------------------------------------------------------------------


def drawn(colour: str, shape: str, direction: str, step: float, size: float, ground: str = "#101418") -> np.ndarray:
    """A clip `[16, 64, 64, 3]`, drawn four times as large by Pillow and made smaller."""
    dx, dy = DIRECTIONS[direction]
    frames = []
    for index in range(16):
        x, y = (4 * (32 + delta * step * (index - 7.5)) for delta in (dx, dy))
        r = 4 * size
        picture = Image.new("RGB", (256, 256), ground)
        draw = ImageDraw.Draw(picture)
        if shape == "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=PAINT[colour])
        elif shape == "square":
            draw.rectangle((x - r, y - r, x + r, y + r), fill=PAINT[colour])
        else:
            draw.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=PAINT[colour])
        frames.append(np.asarray(picture.resize((64, 64), Image.Resampling.LANCZOS)))
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


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Iterator[vc_core.VideoModel]:
    """On two threads, as the speed is promised for two cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield vc_core.load(vc_core.bundled_models()[NAME])
    torch.set_num_threads(threads)


def verdicts(model: vc_core.VideoModel, prompts: list[str], fps: float | None = None) -> list[Verdict]:
    """One seed for all; the settings are the model's own."""
    found: list[Verdict] = []
    for first in range(0, len(prompts), AT_ONCE):
        part = prompts[first : first + AT_ONCE]
        videos = model.text_to_video(
            part, steps=STEPS, eta=model.config.sampling.eta, guidance_scale=model.config.sampling.guidance_scale, fps=fps, seed=0
        )
        found += [judge(as_pixels(video)) for video in videos.numpy()]
    return found


def test_all_prompts(model: vc_core.VideoModel) -> None:
    wanted = list(product(COLOURS, SHAPES, DIRECTIONS))
    seen = verdicts(model, [f"a {colour} {shape} moving {direction}" for colour, shape, direction in wanted])
    wrong = [
        f"{' '.join(want)}: {got.colour} {got.shape} {got.direction}"
        for want, got in zip(wanted, seen, strict=True)
        if want != (got.colour, got.shape, got.direction)
    ]
    right = {
        "colour": sum(want[0] == got.colour for want, got in zip(wanted, seen, strict=True)) / len(wanted),
        "shape": sum(want[1] == got.shape for want, got in zip(wanted, seen, strict=True)) / len(wanted),
        "direction": sum(want[2] == got.direction for want, got in zip(wanted, seen, strict=True)) / len(wanted),
    }
    print(right)
    assert right["colour"] >= 0.95 and right["direction"] >= 0.90 and right["shape"] >= 0.80, f"{right}\n" + "\n".join(wrong)


def test_near_wordings(model: vc_core.VideoModel) -> None:
    seen = verdicts(model, ["green square goes up", "blue triangle moves right", "a red circle", "a yellow square going down"])
    assert [(got.colour, got.shape) for got in seen] == [("green", "square"), ("blue", "triangle"), ("red", "circle"), ("yellow", "square")]
    assert [seen[0].direction, seen[1].direction, seen[3].direction] == ["up", "right", "down"]


def test_fps_sets_the_distance_from_frame_to_frame(model: vc_core.VideoModel) -> None:
    prompts = ["a red circle moving left", "a white square moving up", "a blue triangle moving right", "a yellow circle moving down"]
    steps = [float(np.mean([got.step for got in verdicts(model, prompts, fps)])) for fps in (8, 16, 24)]
    print(steps)
    assert steps[0] > 1.25 * steps[1] and steps[1] > 1.15 * steps[2], steps
