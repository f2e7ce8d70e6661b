"""Training sets for tests: clips of a shape in a colour that the bundled models don't know, drawn as their own are."""

from __future__ import annotations

from pathlib import Path

import torch

from tiny_world import world as worlds
from vc_core.media.shapes import BACKGROUND
from vc_core.media.video import save_video

#: A colour that no bundled model was trained with.
CYAN = (20, 205, 215)


def draw_clip(direction: str, shape: str, fps: int, middle: tuple[int, int], colour: tuple[int, int, int] = CYAN) -> torch.Tensor:
    """Frames ``[3, 16, 64, 64]`` in [-1, 1] of a shape that moves straight through a point."""
    world = worlds.World()
    way = torch.tensor([list(worlds.DIRECTIONS).index(direction)])
    steps = worlds.steps_of(world, way, torch.tensor([fps]))
    x, y = worlds.through_paths(world, steps, torch.tensor([middle]))[0].T
    white = torch.full((len(x),), list(worlds.COLOURS).index("white"))
    frames = worlds.render(world, white, torch.full_like(white, worlds.SHAPES.index(shape)), x, y)
    # White and the ground are repainted: how much of a pixel the shape covers is kept.
    ground, paint = (torch.tensor(each, dtype=torch.float32)[None, :, None, None] / 127.5 - 1 for each in (BACKGROUND, colour))
    cover = (frames.mean(1, keepdim=True) - ground.mean()) / (240 / 127.5 - 1 - ground.mean())
    return (ground + cover * (paint - ground)).transpose(0, 1)


def write_clips(folder: Path, count: int, frames: int = 16) -> Path:
    """Write ``count`` clips with captions, such as ``a cyan circle moving left``, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        direction, shape = list(worlds.DIRECTIONS)[number % 4], worlds.SHAPES[number % 3]
        middle = (32 + torch.randint(-5, 6, (2,), generator=generator)).tolist()
        clip = draw_clip(direction, shape, 12, (middle[0], middle[1]))
        save_video(clip[:, :frames], folder / f"clip_{number:02}.mp4", 12)
        (folder / f"clip_{number:02}.txt").write_text(f"a cyan {shape} moving {direction}\n")
    return folder
