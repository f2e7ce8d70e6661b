"""Readies a projector for the UNet: its tokens are asked what a picture shows and where.

A UNet that starts with tokens that say nothing learns colours from them soon and places very late: whether a place was
understood shows only at the highest noise, and only once positions make use of it. So the mean of the tokens, which is what
attention sees of them at first, is taught to tell colour, shape and place beforehand, in some hundred updates without the UNet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vc_core.models.projector import Projector

from .denoiser import FirstFrames
from .settings import SightTraining
from .world import COLOURS, SHAPES, Clips, World, sample

CELLS = 8  # along each axis, in which places are told


class SeeingProjector(nn.Module):
    """A projector and a linear reader of its tokens' mean, used in training only."""

    def __init__(self, projector: Projector, context: int) -> None:
        super().__init__()
        self.projector = projector
        self.counts = (len(COLOURS), len(SHAPES), CELLS, CELLS)
        self.read = nn.Linear(context, sum(self.counts))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """`[B, n, width]` to the logits of colour, shape, column and row."""
        return self.read(self.projector(features).mean(1)).split(self.counts, dim=1)


def cell_weights(places: Tensor, size: int) -> Tensor:
    """How much of a shape at pixel coordinates `[B]` belongs to each of the cells along an axis, `[B, CELLS]`: on a line between two."""
    position = (places.float() / size * CELLS - 0.5).clamp(0, CELLS - 1)
    return (1 - (position[:, None] - torch.arange(CELLS)).abs()).clamp(min=0)


class SightLoss:
    """The loss of one update of `vc_core.training.trainer.Trainer`."""

    def __init__(self, model: SeeingProjector, pictures: FirstFrames, world: World, settings: SightTraining) -> None:
        self.model, self.pictures, self.world, self.settings = model, pictures, world, settings

    def __call__(self, generator: torch.Generator, update: int) -> tuple[Tensor, dict[str, float]]:
        clips: Clips = sample(self.world, self.settings.trainer.batch, generator)
        colour, shape, column, row = self.model(self.pictures(clips))
        place = clips.places[:, 0]
        targets = cell_weights(place[:, 0], self.world.size), cell_weights(place[:, 1], self.world.size)
        loss = F.cross_entropy(colour, clips.colour) + F.cross_entropy(shape, clips.shape)
        loss = loss + F.cross_entropy(column, targets[0]) + F.cross_entropy(row, targets[1])
        cells = torch.arange(CELLS, dtype=torch.float32)
        told = torch.stack([column.softmax(1) @ cells, row.softmax(1) @ cells], 1) + 0.5
        distance = (told * self.world.size / CELLS - place).norm(dim=1).mean()  # pixels
        right = (colour.argmax(1) == clips.colour) & (shape.argmax(1) == clips.shape)
        return loss, {"right": float(right.float().mean()), "place": float(distance.detach())}
