"""Pretrains a projector: its tokens learn to predict what an image shows, and where.

With untrained tokens, a UNet learns colours from them early and positions very late, since positions matter only at the highest
noise, and only after the UNet's own positions use them. So the mean of the tokens, which is what untrained attention reads, is
trained to predict colour, shape and position first, in a few hundred updates without the UNet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vc_core.models.projector import Projector
from vc_core.training.trainer import Pass

from .denoiser import FirstFrames
from .settings import SightTraining
from .world import COLOURS, SHAPES, Clips, World, sample

CELLS = 8  # classes of positions along each axis


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


def cell_weights(positions: Tensor, size: int) -> Tensor:
    """Weights `[B, CELLS]` of the cells along an axis for pixel coordinates `[B]`, linear between the two nearest cells."""
    position = (positions.float() / size * CELLS - 0.5).clamp(0, CELLS - 1)
    return (1 - (position[:, None] - torch.arange(CELLS)).abs()).clamp(min=0)


class SightLoss:
    """The loss of one pass of `vc_core.training.trainer.Trainer`."""

    def __init__(self, model: SeeingProjector, images: FirstFrames, world: World, settings: SightTraining) -> None:
        self.model, self.images, self.world, self.settings = model, images, world, settings

    def __call__(self, network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        clips: Clips = sample(self.world, self.settings.trainer.batch, run.generator)
        colour, shape, column, row = self.model(self.images(clips))
        position = clips.positions[:, 0]
        targets = cell_weights(position[:, 0], self.world.size), cell_weights(position[:, 1], self.world.size)
        loss = F.cross_entropy(colour, clips.colour) + F.cross_entropy(shape, clips.shape)
        loss = loss + F.cross_entropy(column, targets[0]) + F.cross_entropy(row, targets[1])
        cells = torch.arange(CELLS, dtype=torch.float32)
        predicted = torch.stack([column.softmax(1) @ cells, row.softmax(1) @ cells], 1) + 0.5
        distance = (predicted * self.world.size / CELLS - position).norm(dim=1).mean()  # pixels
        right = (colour.argmax(1) == clips.colour) & (shape.argmax(1) == clips.shape)
        return loss, {"right": float(right.float().mean()), "place": float(distance.detach())}
