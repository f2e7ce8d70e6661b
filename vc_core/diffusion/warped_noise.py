"""Initial noise that moves with a clip, so that a video takes over the clip's motion.

The noise of a latent pixel is the sum of the noises of k x k fine pixels, divided by k. The fine pixels move with the clip's optical
flow, one to one, and where none arrives there is fresh noise. So each frame is standard normal noise of independent pixels, as the
models expect, while the frames depend on one another along the motion. The aim is that of Chang et al. (How I Warped Your Noise, ICLR
2024) and Burgert et al. (Go-with-the-Flow, arXiv:2501.08331).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .noise import SeededNoise

#: Where a fine pixel looks for its particle, beside the place that the flow says: the nearest first.
AROUND = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, -1), (-1, 1), (1, 1))


@dataclass(frozen=True)
class WarpedNoise:
    """The noise of a seed whose start moves with a clip. Its first frame, and the noise of the steps, are those of the seed alone.

    The generator of the fine pixels is seeded with the complement of the seed's 64 bits. It draws for each frame the fine noise
    ``[C, H, W]``, then a number in [0, 1) for each fine pixel, which decides whether it moves.

    Attributes:
        noise: of the seed, ``[B, C, T, h, w]``.
        flow: ``[T - 1, 2, H, W]``, see :func:`vc_core.media.flow.dis_flow`; H and W are the same multiple of h and w.
        strength: the share of the noise that moves, 0 (none: the noise of the seed) to 1 (all).
    """

    noise: SeededNoise
    flow: Tensor
    strength: float = 1.0

    @property
    def start(self) -> Tensor:
        """
        Raises:
            InputError: a strength out of its range, or a flow of another size or number of frames.
        """
        start = self.noise.start
        fine = self.check(start.shape)
        generators = [torch.Generator("cpu").manual_seed(~(self.noise.seed + index) % 2**64) for index in range(len(start))]
        return torch.stack([self._warped(video, fine, each) for video, each in zip(start, generators, strict=True)])

    def steps(self) -> Iterator[Tensor]:
        return self.noise.steps()

    def check(self, shape: Sequence[int]) -> int:
        """
        Args:
            shape: that of a run's latents, ``[B, C, T, h, w]``.

        Returns:
            How many fine pixels a side of a latent pixel has.

        Raises:
            InputError: see :attr:`start`.
        """
        if not 0 <= self.strength <= 1:
            raise InputError(f"The strength of the motion is {self.strength}; it must be 0 to 1.")
        _, _, frames, height, width = shape
        if self.flow.ndim != 4 or len(self.flow) != frames - 1 or self.flow.shape[1] != 2:
            raise InputError(
                f"The motion is of {len(self.flow) + 1} frames, but the video has {frames}: use a clip with as many frames, or make the "
                "video as long as the clip."
            )
        rows, columns = self.flow.shape[2:]
        if rows % height or columns % width or rows // height != columns // width:
            raise InputError(
                f"The optical flow is of {columns}x{rows} pixels, which is no multiple of the latent's {width}x{height}: fit the clip to "
                "the size of the video first."
            )
        if not self.flow.isfinite().all():
            raise InputError("The optical flow has values that are no numbers: use another clip.")
        return rows // height

    def _warped(self, video: Tensor, fine: int, generator: torch.Generator) -> Tensor:
        """The start ``[C, T, h, w]`` of a video whose fine pixels move."""
        drawn = [_Drawn.of(video[:, index], fine, self.strength, generator) for index in range(video.shape[1])]
        values, moves = drawn[0].values, drawn[0].moves
        offset = torch.zeros(2, *moves.shape)
        frames = [video[:, 0]]
        for flow, fresh in zip(self.flow.cpu().float(), drawn[1:], strict=True):
            source, offset = follow(flow, offset)
            found, index = source >= 0, source.clamp(min=0)
            moves = torch.where(found, moves.flatten()[index], fresh.moves)
            values = torch.where(found & moves, values.flatten(1)[:, index], fresh.values)
            frames.append(coarse(values, fine))
        return torch.stack(frames, 1)


@dataclass(frozen=True)
class _Drawn:
    """What is drawn for a frame: its fine noise ``[C, H, W]``, and which of its fine pixels move, ``[H, W]``."""

    values: Tensor
    moves: Tensor

    @classmethod
    def of(cls, frame: Tensor, fine: int, strength: float, generator: torch.Generator) -> _Drawn:
        """For a frame ``[C, h, w]``: fine noise whose coarse noise is this frame, distributed as independent pixels are that sum to it."""
        channels, height, width = frame.shape
        values = torch.randn(channels, fine * height, fine * width, generator=generator)
        values = values + _spread(frame - coarse(values, fine), fine) / fine
        return cls(values, torch.rand(values.shape[1:], generator=generator) < strength)


def coarse(values: Tensor, fine: int) -> Tensor:
    """The noise of latent pixels, ``[C, h, w]``, from that of their fine pixels, ``[C, fine h, fine w]``."""
    return torch.nn.functional.avg_pool2d(values, fine) * fine


def _spread(frame: Tensor, fine: int) -> Tensor:
    return frame.repeat_interleave(fine, -2).repeat_interleave(fine, -1)


def _nearest(place: Tensor) -> Tensor:
    """The pixel of a place. Halves go up everywhere, so that neighbours stay neighbours."""
    return (place + 0.5).floor().long()


def follow(flow: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Which particle of the frame before arrives at each pixel: each particle at one pixel at most.

    Particles sit on pixels, but keep their exact places, so that slow motion is not lost to rounding.

    Args:
        flow: ``[2, H, W]``, the way (x, y) from each pixel to its place in the frame before.
        offset: ``[2, H, W]``, from each pixel of the frame before to the exact place of its particle.

    Returns:
        source: ``[H, W]``, the number of the particle's pixel in the frame before, counted along the rows; -1 where none arrives.
        offset: ``[2, H, W]``, from each pixel to the exact place of its particle; 0 where none arrives.
    """
    height, width = flow.shape[1:]
    last = torch.tensor([width - 1, height - 1])[:, None, None]
    place = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"))
    exact = place + flow.clamp(-2 * max(height, width), 2 * max(height, width))
    near = _nearest(exact).clamp(torch.zeros_like(last), last)
    aimed = _nearest(exact - offset.flatten(1)[:, near[1] * width + near[0]])
    source = torch.full((height * width,), -1)
    free = torch.ones(height * width, dtype=torch.bool)
    moved = torch.zeros(2, height * width)
    numbers = torch.arange(height * width)
    for step in AROUND:
        target = aimed + torch.tensor(step)[:, None, None]
        inside = ((target >= 0) & (target <= last)).all(0).flatten()
        particle = (target[1] * width + target[0]).flatten()
        wanted = numbers[inside & (source < 0)]
        wanted = wanted[free[particle[wanted]]]
        apart = target.flatten(1)[:, wanted] + offset.flatten(1)[:, particle[wanted]] - exact.flatten(1)[:, wanted]
        # The pixel nearest to the particle's exact place gets it; of equals the first one.
        rank = ((apart**2).sum(0).clamp(max=1e3) * 1e6).long() * len(numbers) + wanted
        best = torch.full((len(numbers),), torch.iinfo(torch.int64).max).scatter_reduce(0, particle[wanted], rank, "amin")
        won = best[particle[wanted]] == rank
        source[wanted[won]] = particle[wanted[won]]
        moved[:, wanted[won]] = apart[:, won]
        free[particle[wanted[won]]] = False
    return source.reshape(height, width), moved.reshape(2, height, width)
