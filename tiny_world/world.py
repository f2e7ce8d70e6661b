"""The closed world that the bundled models know: one flat shape that moves over a dark ground.

A clip is `frames` images of `size` x `size` pixels: a {circle, square, triangle} in one of six colours that moves left, right, up
(towards smaller y) or down at one physical speed, which is `speed / fps` pixels from frame to frame, or stands still. If a sentence has
no colour, the clip can have any. Positions are whole pixels, so that the finite number of different frames can be encoded once
(`tiny_world.denoiser`).

A motion is one of `MOTIONS`: straight through the middle (text to video), onwards from the shape's position in an image, between
two images, or round, back to the start (a loop). In text to video, a sentence without a direction goes with a curve anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vc_core.media.shapes import COLOURS, RADIUS, SHAPES, SIZE, draw_shapes

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # image coordinates: y grows downwards
STILL = len(DIRECTIONS)  # in the place of a direction's number: the shape does not move
UNSAID = -1
THROUGH, ONWARDS, BETWEEN, ROUND = MOTIONS = ("through", "onwards", "between", "round")

WORDINGS = (  # (weight, sentence); a sentence without a field leaves that attribute unsaid
    (8.0, "a {colour} {shape} moving {direction}"),
    (1.0, "{colour} {shape} moving {direction}"),
    (1.0, "a {colour} {shape} moves {direction}"),
    (1.0, "{colour} {shape} moves {direction}"),
    (1.0, "a {colour} {shape} goes {direction}"),
    (1.0, "{colour} {shape} goes {direction}"),
    (0.5, "the {colour} {shape} is moving {direction}"),
    (0.5, "a {colour} {shape} going {direction}"),
    (4.0, "a {colour} {shape}"),
    (1.0, "{colour} {shape}"),
    (0.5, "a {shape} moving {direction}"),
    (0.5, "a {shape}"),
    (1.0, "a {colour} {shape} standing still"),
    (0.3, "{colour} {shape} standing still"),
    (0.2, "a {shape} standing still"),
)
IMAGE_WORDINGS = (  # prompts beside an image, which shows colour and shape
    (3.0, "moving {direction}"),
    (1.0, "moves {direction}"),
    (0.5, "going {direction}"),
    (0.5, "it moves {direction}"),
    (0.5, "the {shape} moves {direction}"),
    (1.0, "a {shape} moving {direction}"),
    (4.0, "a {colour} {shape} moving {direction}"),
    (0.5, "{colour} {shape} moves {direction}"),
    (0.5, "standing still"),
    (0.2, "a {shape} standing still"),
    (0.5, "a {colour} {shape} standing still"),
)


@dataclass(frozen=True)
class World:
    """Sizes of the world. `spread` is how far, in pixels, the middle of a `through` path can be from the image's middle."""

    size: int = SIZE
    frames: int = 16
    radius: float = RADIUS
    speed: float = 20.0  # pixels a second
    fps_min: int = 8
    fps_max: int = 28
    spread: int = 5
    motions: tuple[str, ...] = (THROUGH,)  # each clip has one of them, with equal probability
    silhouettes: bool = False  # the model sees each frame's silhouette and no image, so that prompts must name the colour

    @property
    def wordings(self) -> tuple[tuple[float, str], ...]:
        """The sentences of this world, with their weights."""
        return WORDINGS if self.motions == (THROUGH,) or self.silhouettes else IMAGE_WORDINGS

    @property
    def margin(self) -> int:
        """The smallest distance from a shape's middle to the image's edge, in whole pixels."""
        return int(self.radius) + 2

    @property
    def span(self) -> int:
        """The number of positions along one axis."""
        return self.size - 2 * self.margin + 1


@dataclass
class Clips:
    """A batch of clips as attributes: `colour`, `shape`, `direction`, `fps`, `motion` `[B]`, `positions` `[B, T, 2]` (x, y)."""

    colour: Tensor
    shape: Tensor
    direction: Tensor
    fps: Tensor
    motion: Tensor  # index into MOTIONS
    positions: Tensor
    prompts: list[str]
    said: Tensor  # [B, 3] colour, shape, direction in the sentence, UNSAID if it has none


def render(world: World, colour: Tensor, shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Images `[N, 3, H, W]` in [-1, 1] of shapes whose middles are at pixel coordinates `x`, `y` (all `[N]`)."""
    return draw_shapes(colour, shape, x, y, size=world.size, radius=world.radius)


def says_motion(wording: str) -> bool:
    """Whether a wording has a direction, or says that there is none."""
    return "{direction}" in wording or "still" in wording


def sentence(wording: str, colour: int, shape: int, direction: int) -> str:
    """Fill a wording with the names of the attributes."""
    names = {"colour": list(COLOURS)[colour], "shape": SHAPES[shape], "direction": [*DIRECTIONS, "still"][direction]}
    return wording.format(**names)


def steps_of(world: World, direction: Tensor, fps: Tensor) -> Tensor:
    """Pixels from frame to frame, `[B, 2]`."""
    return torch.tensor([*DIRECTIONS.values(), (0, 0)], dtype=torch.float32)[direction] * (world.speed / fps.float())[:, None]


def whole_positions(world: World, positions: Tensor) -> Tensor:
    """Positions `[B, T, 2]` rounded to whole pixels; a shape stops at the image's edge."""
    return positions.round().long().clamp(world.margin, world.size - world.margin)


def through_paths(world: World, step: Tensor, middle: Tensor) -> Tensor:
    """Straight paths `[B, T, 2]` through `middle [B, 2]`, moved so that all of the path is in the image."""
    time = torch.arange(world.frames, dtype=torch.float32) - (world.frames - 1) / 2  # [T]
    half = step.abs() * (world.frames - 1) / 2
    low, high = world.margin + half, world.size - world.margin - half
    middle = torch.minimum(torch.maximum(middle.float(), low), torch.maximum(low, high))
    return whole_positions(world, middle[:, None, :] + step[:, None, :] * time[None, :, None])


def curved_paths(world: World, fps: Tensor, middle: Tensor, points: Tensor) -> Tensor:
    """Curves `[B, T, 2]` anywhere in the image, as long as straight paths at most.

    Args:
        middle: around which a curve goes, `[B, 2]`.
        points: start, bend and end of a quadratic Bézier curve, `[3, B, 2]` in [-1, 1].
    """
    reach = 0.5 * world.speed * (world.frames - 1) / fps.float()
    start, bend, end = (middle + points * reach[:, None]).clamp(world.margin, world.size - world.margin)[:, :, None]
    time = torch.linspace(0, 1, world.frames)[None, :, None]
    return whole_positions(world, (1 - time) ** 2 * start + 2 * time * (1 - time) * bend + time**2 * end)


def onward_paths(world: World, step: Tensor, start: Tensor) -> Tensor:
    """Straight paths `[B, T, 2]` from `start [B, 2]`, to the edge at most."""
    return whole_positions(world, start[:, None].float() + step[:, None] * torch.arange(world.frames)[None, :, None])


def between_paths(world: World, start: Tensor, end: Tensor) -> Tensor:
    """Even straight paths `[B, T, 2]` from `start` to `end`, both `[B, 2]`."""
    time = torch.linspace(0, 1, world.frames)[None, :, None]
    return whole_positions(world, torch.lerp(start[:, None].float(), end[:, None].float(), time))


def round_paths(world: World, step: Tensor, start: Tensor) -> Tensor:
    """Paths `[B, T, 2]` from `start [B, 2]` straight out and back: the last frame is the first."""
    time = torch.arange(world.frames)
    time = torch.minimum(time, world.frames - 1 - time)[None, :, None]
    return whole_positions(world, start[:, None].float() + step[:, None] * time)


def direction_of(way: Tensor) -> Tensor:
    """The direction `[B]` that is nearest to `way [B, 2]`."""
    ways = torch.tensor(list(DIRECTIONS.values()), dtype=torch.float32)
    return (way.float() @ ways.T).argmax(1)


def sample(world: World, batch: int, generator: torch.Generator) -> Clips:
    """Draw clips and the sentences that go with them."""
    def integers(low: int, high: int, *size: int) -> Tensor:
        return torch.randint(low, high, size, generator=generator)

    colour, shape = integers(0, len(COLOURS), batch), integers(0, len(SHAPES), batch)
    direction, fps = integers(0, len(DIRECTIONS), batch), integers(world.fps_min, world.fps_max + 1, batch)
    middle = world.size // 2 + integers(-world.spread, world.spread + 1, batch, 2)
    weights = torch.tensor([weight for weight, _ in world.wordings])
    chosen = torch.multinomial(weights, batch, replacement=True, generator=generator)
    wordings = [world.wordings[index][1] for index in chosen.tolist()]
    direction = torch.where(torch.tensor(["still" in wording for wording in wordings]), STILL, direction)
    motion = torch.full((batch,), MOTIONS.index(THROUGH))
    if world.motions == (THROUGH,):
        positions = through_paths(world, steps_of(world, direction, fps), middle)
        anywhere, points = world.margin + integers(0, world.span, batch, 2), 2 * torch.rand(3, batch, 2, generator=generator) - 1
        unsaid = torch.tensor([not says_motion(wording) for wording in wordings])
        positions = torch.where(unsaid[:, None, None], curved_paths(world, fps, anywhere, points), positions)
    else:
        motion = torch.tensor([MOTIONS.index(name) for name in world.motions])[integers(0, len(world.motions), batch)]
        direction, positions = _image_paths(world, motion, direction, fps, world.margin + integers(0, world.span, 2, batch, 2))
    prompts, said = [], torch.stack([colour, shape, direction], 1)
    for row, wording in enumerate(wordings):
        prompts.append(sentence(wording, int(colour[row]), int(shape[row]), int(direction[row])))
        for column, is_said in enumerate(("{colour}" in wording, "{shape}" in wording, says_motion(wording))):
            if not is_said:
                said[row, column] = UNSAID
    return Clips(colour, shape, direction, fps, motion, positions, prompts, said)


def _image_paths(world: World, motion: Tensor, direction: Tensor, fps: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Direction `[B]` and positions `[B, T, 2]` of clips that start with an image; `ends [2, B, 2]` are two random positions each."""
    between, still = motion == MOTIONS.index(BETWEEN), direction == STILL
    ends = torch.stack([ends[0], torch.where(still[:, None], ends[0], ends[1])])
    direction = torch.where(between & ~still, direction_of(ends[1] - ends[0]), direction)
    # The start is independent of the direction, even where there is no room to move. If a model could infer one from the other,
    # guidance by the prompt would push the shape away from its position in the image.
    step, start = steps_of(world, direction, fps), ends[0]
    each = {
        ONWARDS: onward_paths(world, step, start), BETWEEN: between_paths(world, ends[0], ends[1]), ROUND: round_paths(world, step, start),
    }
    positions = each[ONWARDS]
    for name in (BETWEEN, ROUND):
        positions = torch.where((motion == MOTIONS.index(name))[:, None, None], each[name], positions)
    return direction, positions


def all_sentences(world: World) -> list[str]:
    """Every sentence of a world, and the empty one."""
    triples = [(c, s, d) for c in range(len(COLOURS)) for s in range(len(SHAPES)) for d in range(len(DIRECTIONS))]
    return ["", *sorted({sentence(wording, *triple) for _, wording in world.wordings for triple in triples})]
