"""The closed world that the bundled models know: one flat shape that moves over a dark ground.

A clip is `frames` pictures of `size` x `size` pixels: a {circle, square, triangle} in one of six colours that moves
left, right, up (towards smaller y) or down at one physical speed, so that it covers `speed / fps` pixels from frame to
frame. A sentence may leave the colour or the direction unsaid; then the clip has any. The places are whole pixels, so
that the finite number of different frames can be encoded once (`vc_core.training.denoiser`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (228, 42, 42), "green": (40, 186, 66), "blue": (44, 84, 236),
    "yellow": (240, 214, 48), "white": (240, 240, 240), "purple": (166, 48, 196),
}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # image coordinates: y grows downwards
BACKGROUND = (18, 18, 24)
UNSAID = -1

WORDINGS = (  # (weight, sentence); a sentence without a field leaves that attribute unsaid
    (8.0, "a {colour} {shape} moving {direction}"),
    (1.0, "{colour} {shape} moving {direction}"),
    (1.0, "a {colour} {shape} moves {direction}"),
    (1.0, "{colour} {shape} moves {direction}"),
    (1.0, "a {colour} {shape} goes {direction}"),
    (1.0, "{colour} {shape} goes {direction}"),
    (0.5, "the {colour} {shape} is moving {direction}"),
    (0.5, "a {colour} {shape} going {direction}"),
    (1.0, "a {colour} {shape}"),
    (0.5, "{colour} {shape}"),
    (0.5, "a {shape} moving {direction}"),
    (0.5, "a {shape}"),
)


@dataclass(frozen=True)
class World:
    """Sizes of the world. `spread` is how far, in pixels, the middle of a path may lie from the middle of the picture."""

    size: int = 64
    frames: int = 16
    radius: float = 9.0
    speed: float = 20.0  # pixels a second
    fps_min: int = 8
    fps_max: int = 28
    spread: int = 5

    @property
    def margin(self) -> int:
        """The smallest whole distance from a shape's middle to the picture's edge."""
        return int(self.radius) + 2

    @property
    def span(self) -> int:
        """The number of whole places along one axis."""
        return self.size - 2 * self.margin + 1


@dataclass
class Clips:
    """A batch of clips as attributes: `colour`, `shape`, `direction`, `fps` `[B]`, `places` `[B, T, 2]` (x, y)."""

    colour: Tensor
    shape: Tensor
    direction: Tensor
    fps: Tensor
    places: Tensor
    prompts: list[str]
    said: Tensor  # [B, 3] colour, shape, direction as the sentence has them, UNSAID where it is silent


def _signed_distance(shape: Tensor, dx: Tensor, dy: Tensor, radius: float) -> Tensor:
    """Distance in pixels to the outline of each shape, negative inside. `shape [N,1,1]`, `dx, dy [N,H,W]`."""
    circle = (dx**2 + dy**2).sqrt() - radius
    square = torch.maximum(dx.abs(), dy.abs()) - 1.06 * radius
    # Pointing up, as wide as high: the base at +radius, the two slanting sides meet at -radius.
    slope = 5**0.5
    sides = (2 * dx.abs() - dy - radius) / slope
    triangle = torch.maximum(sides, dy - radius)
    return torch.where(shape == 0, circle, torch.where(shape == 1, square, triangle))


def render(world: World, colour: Tensor, shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Pictures `[N, 3, H, W]` in [-1, 1] of shapes whose middles are at pixel coordinates `x`, `y` (all `[N]`)."""
    axis = torch.arange(world.size, dtype=torch.float32) + 0.5
    dx = axis[None, None, :] - x.float()[:, None, None]
    dy = axis[None, :, None] - y.float()[:, None, None]
    cover = (0.5 - _signed_distance(shape[:, None, None], dx, dy, world.radius)).clamp(0, 1)[:, None]  # [N, 1, H, W]
    paint = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[colour][:, :, None, None]
    ground = torch.tensor(BACKGROUND, dtype=torch.float32)[None, :, None, None]
    return (ground + cover * (paint - ground)) / 127.5 - 1.0


def sentence(wording: str, colour: int, shape: int, direction: int) -> str:
    """Fill a wording with the names of the attributes."""
    names = {"colour": list(COLOURS)[colour], "shape": SHAPES[shape], "direction": list(DIRECTIONS)[direction]}
    return wording.format(**names)


def paths(world: World, direction: Tensor, fps: Tensor, middle: Tensor) -> Tensor:
    """Whole-pixel places `[B, T, 2]` of paths through `middle [B, 2]`, moved to where the whole path is in the picture."""
    step = torch.tensor(list(DIRECTIONS.values()), dtype=torch.float32)[direction]  # [B, 2]
    time = torch.arange(world.frames, dtype=torch.float32) - (world.frames - 1) / 2  # [T]
    reach = step * (world.speed / fps.float())[:, None]  # [B, 2] pixels a frame
    half = reach.abs() * (world.frames - 1) / 2
    low, high = world.margin + half, world.size - world.margin - half
    middle = torch.minimum(torch.maximum(middle.float(), low), torch.maximum(low, high))
    places = middle[:, None, :] + reach[:, None, :] * time[None, :, None]
    return places.round().long().clamp(world.margin, world.size - world.margin)


def sample(world: World, batch: int, generator: torch.Generator) -> Clips:
    """Draw clips and the sentences that go with them."""
    def integers(low: int, high: int, *size: int) -> Tensor:
        return torch.randint(low, high, size, generator=generator)

    colour, shape = integers(0, len(COLOURS), batch), integers(0, len(SHAPES), batch)
    direction, fps = integers(0, len(DIRECTIONS), batch), integers(world.fps_min, world.fps_max + 1, batch)
    middle = world.size // 2 + integers(-world.spread, world.spread + 1, batch, 2)
    weights = torch.tensor([weight for weight, _ in WORDINGS])
    chosen = torch.multinomial(weights, batch, replacement=True, generator=generator)
    prompts, said = [], torch.stack([colour, shape, direction], 1)
    for row, index in enumerate(chosen.tolist()):
        wording = WORDINGS[index][1]
        prompts.append(sentence(wording, int(colour[row]), int(shape[row]), int(direction[row])))
        for column, field in enumerate(("{colour}", "{shape}", "{direction}")):
            if field not in wording:
                said[row, column] = UNSAID
    return Clips(colour, shape, direction, fps, paths(world, direction, fps, middle), prompts, said)


def all_sentences() -> list[str]:
    """Every sentence of the world, and the empty one."""
    triples = [(c, s, d) for c in range(len(COLOURS)) for s in range(len(SHAPES)) for d in range(len(DIRECTIONS))]
    return ["", *sorted({sentence(wording, *triple) for _, wording in WORDINGS for triple in triples})]
