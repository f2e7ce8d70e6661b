"""The bundled text-to-video model does what it is asked, judged by pixels alone, on all 72 prompts of its world and some others."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from harness.judge import Verdict, judge
from tests.bundled_cases import COLOURS, DIRECTIONS, SHAPES, text_videos

pytestmark = pytest.mark.full


def verdicts(prompts: list[str], fps: float | None = None) -> list[Verdict]:
    return [judge(video) for video in text_videos(prompts, fps)]


def test_all_prompts() -> None:
    wanted = list(product(COLOURS, SHAPES, DIRECTIONS))
    seen = verdicts([f"a {colour} {shape} moving {direction}" for colour, shape, direction in wanted])
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


def test_near_wordings() -> None:
    seen = verdicts(["green square goes up", "blue triangle moves right", "a red circle", "a yellow square going down"])
    assert [(got.colour, got.shape) for got in seen] == [("green", "square"), ("blue", "triangle"), ("red", "circle"), ("yellow", "square")]
    assert [seen[0].direction, seen[1].direction, seen[3].direction] == ["up", "right", "down"]


def test_fps_sets_the_distance_from_frame_to_frame() -> None:
    prompts = ["a red circle moving left", "a white square moving up", "a blue triangle moving right", "a yellow circle moving down"]
    steps = [float(np.mean([got.step for got in verdicts(prompts, fps)])) for fps in (8, 16, 24)]
    print(steps)
    assert steps[0] > 1.25 * steps[1] and steps[1] > 1.15 * steps[2], steps
