"""Silhouettes of the closed world's clips, as depth maps for the bundled depth model: the shape is near, the ground far."""

from __future__ import annotations

import torch
from torch import Tensor

from vc_core.media.depth import depth_of_frames, prepare_depth
from vc_core.media.shapes import COLOURS

from .world import Clips, World, render

#: Share of the clips whose maps are flat, so that the model also knows clips without a silhouette.
FLAT = 0.1
WHITE = list(COLOURS).index("white")


def silhouettes(world: World, clips: Clips, side: int, generator: torch.Generator) -> Tensor:
    """Depth maps `[B, 1, T, side, side]` in [-1, 1], 0 where they are flat; `side` is the latent's."""
    batch, frames, _ = clips.positions.shape
    shape = clips.shape.repeat_interleave(frames)
    x, y = clips.positions.flatten(0, 1).unbind(1)
    shown = render(world, torch.full_like(shape, WHITE), shape, x, y).unflatten(0, (batch, frames)).transpose(1, 2)
    depth = prepare_depth(depth_of_frames(shown), side, side, antialias=True)
    kept = torch.rand(batch, generator=generator) >= FLAT
    return depth * kept[:, None, None, None, None]
