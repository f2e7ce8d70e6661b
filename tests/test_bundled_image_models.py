"""The bundled image-to-video model keeps to its picture, judged by pixels alone.

The pictures are drawn by Pillow in the colours of the closed world, at random places from which the shape has room to move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import vc_core
from tests.shapes_judge import as_pixels, foreground, judge

COLOURS = {
    "red": (228, 42, 42), "green": (40, 186, 66), "blue": (44, 84, 236), "yellow": (240, 214, 48), "white": (240, 240, 240), "purple": (166, 48, 196),
}  # fmt: skip
GROUND = (18, 18, 24)
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = ("left", "right", "up", "down")
NEAREST, FARTHEST, RADIUS = 11, 53, 9.0  # from the picture's edges a shape's middle stays away so far
ROOM = 16.0  # pixels, a quarter of the picture
AT_ONCE, STEPS = 12, 25
NAME = "videocrafter_tiny_i2v"


@dataclass(frozen=True)
class Case:
    """A picture of one shape, and where it is to go."""

    colour: str
    shape: str
    direction: str
    x: float
    y: float

    def picture(self) -> np.ndarray:
        """``[64, 64, 3]`` of 0..255, drawn four times as large and made smaller."""
        image = Image.new("RGB", (256, 256), GROUND)
        draw, x, y, r = ImageDraw.Draw(image), 4 * self.x, 4 * self.y, 4 * RADIUS
        if self.shape == "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=COLOURS[self.colour])
        elif self.shape == "square":
            draw.rectangle((x - r, y - r, x + r, y + r), fill=COLOURS[self.colour])
        else:
            draw.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=COLOURS[self.colour])
        return np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS))


def room(x: float, y: float, direction: str) -> float:
    """How far a shape can move."""
    return {"left": x - NEAREST, "right": FARTHEST - x, "up": y - NEAREST, "down": FARTHEST - y}[direction]


def cases(seed: int) -> list[Case]:
    """One for each colour, shape and direction, at random places."""
    random, found = np.random.default_rng(seed), []
    for colour, shape, direction in product(COLOURS, SHAPES, DIRECTIONS):
        x, y = random.uniform(NEAREST, FARTHEST, 2)
        while room(x, y, direction) < ROOM:
            x, y = random.uniform(NEAREST, FARTHEST, 2)
        found.append(Case(colour, shape, direction, float(x), float(y)))
    return found


def tensors(chosen: list[Case]) -> Tensor:
    """Pictures as the core takes them, ``[B, 3, 64, 64]`` in [-1, 1]."""
    return torch.from_numpy(np.stack([case.picture() for case in chosen])).permute(0, 3, 1, 2) / 127.5 - 1


def middle(picture: np.ndarray) -> np.ndarray:
    """x and y of a shape's middle in a picture ``[H, W, 3]``; nan where there is none."""
    rows, columns = np.nonzero(foreground(picture.astype(np.float64)))
    return np.array([columns.mean(), rows.mean()]) if len(rows) else np.full(2, np.nan)


@pytest.fixture(scope="module")
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def kept(two_threads: None) -> dict[str, float]:
    """Of 72 clips, the share in which each thing is the picture's. The settings are the model's own; the prompt says the direction only."""
    model, chosen, found = vc_core.load(vc_core.bundled_models()[NAME]), cases(seed=1), []
    for first in range(0, len(chosen), AT_ONCE):
        part = chosen[first : first + AT_ONCE]
        made = model.image_to_video(tensors(part), [f"moving {case.direction}" for case in part], steps=STEPS, seed=0)
        found += [as_pixels(video) for video in made.numpy()]
    right = []
    for case, video in zip(chosen, found, strict=True):
        seen = judge(video)
        distance = float(np.linalg.norm(seen.centroids[0] - middle(case.picture())))
        right.append((seen.colour == case.colour, seen.shape == case.shape, seen.direction == case.direction, distance <= 6))
    share = dict(zip(("colour", "shape", "direction", "place"), np.mean(right, axis=0).tolist(), strict=True))
    print(share)
    return share


def test_colour_shape_and_direction(kept: dict[str, float]) -> None:
    assert kept["colour"] >= 0.95 and kept["shape"] >= 0.80 and kept["direction"] >= 0.85, kept


@pytest.mark.xfail(reason="The first frame stands some 3 pixels behind the picture's place, against the movement: more training is wanted.")
def test_place(kept: dict[str, float]) -> None:
    """The first frame has the shape within 6 pixels of where the picture has it."""
    assert kept["place"] >= 0.85, kept
