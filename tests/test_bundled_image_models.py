"""The bundled image-to-video models keep to their pictures, judged by pixels alone.

The pictures are drawn by Pillow in the colours of the closed world, at random places from which the shape has room to move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import vc_core
from harness.judge import as_pixels, foreground, judge

COLOURS = {
    "red": (228, 42, 42), "green": (40, 186, 66), "blue": (44, 84, 236), "yellow": (240, 214, 48), "white": (240, 240, 240),
    "purple": (166, 48, 196),
}  # fmt: skip
GROUND = (18, 18, 24)
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = ("left", "right", "up", "down")
NEAREST, FARTHEST, RADIUS = 11, 53, 9.0  # from the picture's edges a shape's middle stays away so far
ROOM = 16.0  # pixels, a quarter of the picture
AT_ONCE = 12
PICTURE_TO_VIDEO, DYNAMICRAFTER = "videocrafter_tiny_i2v", "videocrafter_tiny_dynamicrafter"


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


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of two pictures, of 255."""
    return float(np.abs(first.astype(np.float64) - second).mean())


@cache
def model(name: str) -> vc_core.VideoModel:
    return vc_core.load(vc_core.bundled_models()[name])


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def videos(
    name: str, chosen: list[Case], prompts: list[str], ends: list[Case] | None = None, loop: bool = False, steps: int = 25
) -> list[np.ndarray]:
    """Clips ``[16, 64, 64, 3]`` of 0..255, with the model's own settings and one seed for all."""
    found: list[np.ndarray] = []
    for first in range(0, len(chosen), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        made = model(name).image_to_video(
            tensors(chosen[part]), prompts[part], steps=steps, seed=0, loop=loop, end_image=None if ends is None else tensors(ends[part])
        )
        found += [as_pixels(video) for video in made.numpy()]
    return found


def test_image_to_video_keeps_72_pictures() -> None:
    """The prompt says the direction only; all else is in the picture. The first frame's shape is within 6 pixels of the picture's."""
    chosen, right, wrong = cases(seed=1), {"colour": 0, "shape": 0, "place": 0, "direction": 0}, []
    for case, video in zip(chosen, videos(PICTURE_TO_VIDEO, chosen, [f"moving {case.direction}" for case in chosen]), strict=True):
        seen = judge(video)
        distance = float(np.linalg.norm(seen.centroids[0] - middle(case.picture())))
        kept = {
            "colour": seen.colour == case.colour,
            "shape": seen.shape == case.shape,
            "place": distance <= 6,
            "direction": seen.direction == case.direction,
        }
        right = {key: count + kept[key] for key, count in right.items()}
        if not all(kept.values()):
            wrong.append(f"{case.colour} {case.shape} {case.direction}: {seen.colour} {seen.shape} {seen.direction}, {distance:.1f} px off")
    share = {key: count / len(chosen) for key, count in right.items()}
    print(share)
    bounds = {"colour": 0.95, "shape": 0.80, "place": 0.85, "direction": 0.85}
    assert all(share[key] >= bound for key, bound in bounds.items()), f"{share}\n" + "\n".join(wrong)


def test_dynamicrafter_begins_with_the_picture_and_moves_as_told() -> None:
    chosen = [cases(seed=2)[4 * kind + kind % 4] for kind in range(18)]
    made = videos(DYNAMICRAFTER, chosen, [f"moving {case.direction}" for case in chosen])
    off = [difference(video[0], case.picture()) for case, video in zip(chosen, made, strict=True)]
    directions = np.mean([judge(video).direction == case.direction for case, video in zip(chosen, made, strict=True)])
    print(f"first frame: mean {np.mean(off):.2f}, worst {max(off):.2f} of 255; direction right in {directions:.0%}")
    assert max(off) <= 8 and directions >= 0.85


def pairs() -> tuple[list[Case], list[Case]]:
    """40 pictures, and pictures of the same shapes at other places."""
    random, first, last = np.random.default_rng(3), [], []
    kinds = list(product(COLOURS, SHAPES))
    for index in range(40):
        colour, shape = kinds[index % len(kinds)]
        places = random.uniform(NEAREST, FARTHEST, (2, 2))
        first.append(Case(colour, shape, "", *map(float, places[0])))
        last.append(Case(colour, shape, "", *map(float, places[1])))
    return first, last


def off_the_line(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Distance of a point to the line between two others."""
    way = end - start
    along = np.clip((point - start) @ way / max(way @ way, 1e-9), 0, 1)
    return float(np.linalg.norm(point - start - along * way))


def test_interpolation_goes_on_the_line_between() -> None:
    first, last = pairs()
    kept, on_the_line = [], 0
    for start, end, video in zip(first, last, videos(DYNAMICRAFTER, first, [""] * len(first), last), strict=True):
        kept += [difference(video[0], start.picture()), difference(video[-1], end.picture())]
        ways = [off_the_line(middle(frame), middle(start.picture()), middle(end.picture())) for frame in video[4:12]]
        on_the_line += bool(np.nanmax(ways) <= 8 and not np.isnan(ways).any())
    print(f"ends: mean {np.mean(kept):.2f}, worst {max(kept):.2f} of 255; on the line {on_the_line} of {len(first)}")
    assert max(kept) <= 8 and on_the_line >= 0.8 * len(first)


def test_a_loop_closes() -> None:
    """The step from the last frame to the first is no larger than the others, and the shape does move in between."""
    chosen = cases(seed=4)[::6]
    for case, video in zip(chosen, videos(DYNAMICRAFTER, chosen, [f"moving {case.direction}" for case in chosen], loop=True), strict=True):
        steps = [difference(before, after) for before, after in pairwise(video)]
        assert difference(video[-1], video[0]) <= max(steps), case
        assert max(difference(frame, video[0]) for frame in video) > 4, case
