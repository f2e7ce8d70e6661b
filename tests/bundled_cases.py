"""Images of the bundled models' world, drawn by Pillow, and what is measured of the clips that the models make of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import vc_core
from harness.judge import as_pixels, foreground

COLOURS = {
    "red": (228, 42, 42), "green": (40, 186, 66), "blue": (44, 84, 236), "yellow": (240, 214, 48), "white": (240, 240, 240),
    "purple": (166, 48, 196),
}
GROUND = (18, 18, 24)
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = ("left", "right", "up", "down")
NEAREST, FARTHEST, RADIUS = 11, 53, 9.0  # pixels: where a shape's middle may be, on both axes
ROOM = 16.0  # pixels that a shape can move at least, a quarter of the image
TEXT_TO_VIDEO, IMAGE_TO_VIDEO, DYNAMICRAFTER = "videocrafter_tiny_t2v", "videocrafter_tiny_i2v", "videocrafter_tiny_dynamicrafter"
FEW_STEPS, DEPTH, CAMERA = "videocrafter_tiny_turbo", "videocrafter_tiny_depth", "videocrafter_tiny_camera"
STEPS = 25
BATCH = 12  # videos made at once


@dataclass(frozen=True)
class Case:
    """An image of one shape, and where it is to go."""

    colour: str
    shape: str
    direction: str
    x: float
    y: float

    def image(self) -> np.ndarray:
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
    """One for each colour, shape and direction, at random positions from which the shape has room to move."""
    random, found = np.random.default_rng(seed), []
    for colour, shape, direction in product(COLOURS, SHAPES, DIRECTIONS):
        x, y = random.uniform(NEAREST, FARTHEST, 2)
        while room(x, y, direction) < ROOM:
            x, y = random.uniform(NEAREST, FARTHEST, 2)
        found.append(Case(colour, shape, direction, float(x), float(y)))
    return found


def tensors(chosen: list[Case]) -> Tensor:
    """Images as the core takes them, ``[B, 3, 64, 64]`` in [-1, 1]."""
    return torch.from_numpy(np.stack([case.image() for case in chosen])).permute(0, 3, 1, 2) / 127.5 - 1


def middle(image: np.ndarray) -> np.ndarray:
    """x and y of a shape's middle in an image ``[H, W, 3]``; nan where there is none."""
    rows, columns = np.nonzero(foreground(image.astype(np.float64)))
    return np.array([columns.mean(), rows.mean()]) if len(rows) else np.full(2, np.nan)


#: Lengths of the shapes' outlines in radii.
OUTLINES = {"circle": 2 * np.pi, "square": 8.0, "triangle": 2 + 2 * 5**0.5}


def outline_error(image: np.ndarray, shape: str) -> float:
    """How far a shape's outline is from the ideal shape's at the place that fits best, in pixels in the mean; nan without a shape.

    The ideal shape is drawn by Pillow. The area in which the two differ, divided by the outline's length, is the mean distance.
    """
    seen = foreground(image.astype(np.float64))
    if not seen.any():
        return float("nan")
    rows, columns = np.nonzero(seen)
    x, y = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    shifts = np.linspace(-1.5, 1.5, 7)
    ideal = (foreground(Case("white", shape, "", x + dx, y + dy).image().astype(np.float64)) for dx, dy in product(shifts, shifts))
    return float(min((seen ^ each).sum() for each in ideal) / (OUTLINES[shape] * RADIUS))


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of two images, of 255."""
    return float(np.abs(first.astype(np.float64) - second).mean())


@cache
def model(name: str) -> vc_core.VideoModel:
    """A bundled model, loaded once."""
    return vc_core.load(vc_core.bundled_models()[name])


def text_videos(prompts: list[str], fps: float | None = None) -> list[np.ndarray]:
    """Clips ``[16, 64, 64, 3]`` of 0..255 of the text model, with its own settings and one seed for all."""
    found: list[np.ndarray] = []
    sampling = model(TEXT_TO_VIDEO).config.sampling
    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        made = model(TEXT_TO_VIDEO).text_to_video(
            part, steps=STEPS, eta=sampling.eta, guidance_scale=sampling.guidance_scale, fps=fps, seed=0
        )
        found += [as_pixels(video) for video in made.numpy()]
    return found


def image_videos(
    name: str, chosen: list[Case], prompts: list[str], ends: list[Case] | None = None, loop: bool = False
) -> list[np.ndarray]:
    """Clips ``[16, 64, 64, 3]`` of 0..255 of an image model, with its own settings and one seed for all."""
    found: list[np.ndarray] = []
    for first in range(0, len(chosen), BATCH):
        part = slice(first, first + BATCH)
        made = model(name).image_to_video(
            tensors(chosen[part]), prompts[part], steps=STEPS, seed=0, loop=loop, end_image=None if ends is None else tensors(ends[part])
        )
        found += [as_pixels(video) for video in made.numpy()]
    return found
