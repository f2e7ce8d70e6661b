"""Analytic initial noise: the start of a run that does not start at the last timestep (Zhao et al., arXiv:2406.15735, section 4.1).

At an earlier timestep the clips of training still had some signal. Of all normal distributions with independent pixels of one variance,
``N(sqrt(a) mu, (1 - a + a d) I)`` is nearest to theirs, mu being the mean of the training's latents and d the mean variance.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoint.errors import CheckpointError
from ..checkpoint.filebytes import FileBytes
from ..checkpoint.pickles import open_pickled
from ..checkpoint.reading import Checkpoint, open_checkpoint
from ..errors import InputError
from ..files import replacing
from .noise import Noise
from .schedule import Schedule

#: The names in the authors' files: the mean, and the trace of the covariance divided by its size.
MEAN, VARIANCE = "Expectation_X0", "Tr_Cov_d"


@dataclass(frozen=True)
class LatentStatistics:
    """The statistics of a model's training latents, in the diffusion's scale.

    Attributes:
        mean: ``[C, T, h, w]``.
        variance: the mean over all of its elements, without axes or broadcasting to the mean's.
    """

    mean: Tensor
    variance: Tensor

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        """
        Args:
            shape: that of a run's latents, ``[B, C, T, h, w]``.

        Raises:
            InputError: the statistics are of latents of another size.
        """
        if tuple(self.mean.shape) != tuple(shape[1:]):
            (_, frames, height, width), (*_, own_frames, own_height, own_width) = self.mean.shape, shape
            raise InputError(
                f"The statistics for the initial noise are of {frames} frames of {8 * width}x{8 * height} pixels "
                f"({list(self.mean.shape)} latents), but the clip has {own_frames} of {8 * own_width}x{8 * own_height} "
                f"({list(shape[1:])}): make the clip of that size, or use other statistics or none."
            )

    def start(self, noise: Tensor, schedule: Schedule, start_timestep: int | None = None) -> Tensor:
        """The noise of a run's start, ``[B, C, T, h, w]``, made of standard normal noise of this shape.

        Args:
            start_timestep: see :meth:`vc_core.diffusion.schedule.Schedule.visited`.

        Raises:
            InputError: noise of another shape, or a timestep that the schedule doesn't have.
        """
        self.check(noise.shape)
        last = schedule.timesteps if start_timestep is None else start_timestep
        schedule.check_start(last)
        alpha = schedule.alphas_cumprod[last - 1].to(noise)
        return alpha.sqrt() * self.mean.to(noise) + (1 - alpha + alpha * self.variance.to(noise)).sqrt() * noise


@dataclass(frozen=True)
class AnalyticNoise:
    """Noise whose start is drawn by the statistics of the training's latents.

    Attributes:
        noise: gives the standard normal noise.
        start_timestep: see :meth:`LatentStatistics.start`.
    """

    noise: Noise
    statistics: LatentStatistics
    schedule: Schedule
    start_timestep: int | None = None

    @property
    def start(self) -> Tensor:
        return self.statistics.start(self.noise.start, self.schedule, self.start_timestep)

    def steps(self) -> Iterator[Tensor]:
        return self.noise.steps()


def measured(batches: Iterable[Tensor]) -> LatentStatistics:
    """The statistics of clips.

    Args:
        batches: latents in the diffusion's scale, ``[B, C, T, h, w]``, of at least two clips altogether.

    Raises:
        InputError: fewer clips, or latents of different sizes.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        latents = batch.double().cpu()
        if count and latents.shape[1:] != total.shape:
            raise InputError(f"There are latents of {list(latents.shape[1:])} after those of {list(total.shape)}; all clips must be alike.")
        count, total, squares = count + len(latents), total + latents.sum(0), squares + (latents**2).sum(0)
    if count < 2:
        raise InputError(f"Statistics need at least 2 clips; there are {count}.")
    mean = total / count
    return LatentStatistics(mean.float(), (squares / count - mean**2).clamp(min=0).mean().float())


def write_statistics(statistics: LatentStatistics, path: Path) -> None:
    """Write statistics as safetensors, in the layout of the authors' files.

    Raises:
        FileWriteError: the file can't be written.
    """
    with replacing(path) as temporary:
        save_file({MEAN: statistics.mean[None].contiguous(), VARIANCE: statistics.variance}, temporary)


def read_statistics(path: str | os.PathLike[str]) -> LatentStatistics:
    """Read a file of statistics, written by torch.save or as safetensors, with ``Expectation_X0`` and ``Tr_Cov_d``.

    Raises:
        CheckpointError: the file can't be read, or lacks one of them, or they are of other shapes.
    """
    checkpoint = open_checkpoint(Path(path))
    if MEAN not in checkpoint:
        found = ", ".join(checkpoint.names()[:3])
        raise CheckpointError(
            f"{checkpoint.path} holds no statistics for the initial noise: it has no {MEAN!r}, but {found:.200}. Get the "
            "authors' file, such as initial_noise_512.pt, see docs/models.md."
        )
    mean, variance = checkpoint.sound_tensor(MEAN).float(), _variance(checkpoint)
    if mean.ndim == 5 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 4 or not mean.numel():
        raise CheckpointError(f"{checkpoint.path}: {MEAN} has the shape {list(mean.shape)}; [1, C, T, h, w] is expected.")
    try:
        torch.broadcast_to(variance, mean.shape)
    except RuntimeError:
        shapes = f"{list(variance.shape)}, which does not broadcast to {list(mean.shape)}"
        raise CheckpointError(f"{checkpoint.path}: {VARIANCE} has the shape {shapes}.") from None
    if not (variance.isfinite() & (variance >= 0)).all():
        raise CheckpointError(f"{checkpoint.path}: {VARIANCE} is a variance, but has a negative value or one that is no number.")
    return LatentStatistics(mean, variance)


def _variance(checkpoint: Checkpoint) -> Tensor:
    """A tensor, or a plain number of a pickle; a batch's axis of 1 is left out."""
    if VARIANCE in checkpoint:
        variance = checkpoint.sound_tensor(VARIANCE).float()
        return variance[0] if variance.ndim == 5 and variance.shape[0] == 1 else variance
    content = None if checkpoint.path.suffix == ".safetensors" else open_pickled(FileBytes(checkpoint.path)).content
    number = content.get(VARIANCE) if isinstance(content, dict) else None
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise CheckpointError(f"{checkpoint.path} has no {VARIANCE!r} beside {MEAN!r}: the file is not complete. Get it again.")
    return torch.tensor(float(number))
