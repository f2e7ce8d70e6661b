"""The noise of a run, drawn on the CPU in float32, so that it is the same on every device.

Each video of a batch has a generator of its own, the first seeded with the seed, the next with seed + 1 and so on: a video is the
same alone and in a batch. Its generator draws tensors ``[C, T, h, w]``: first the start, then one for each step in order, whether
or not the step uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError


class Noise(Protocol):
    """The noise of one run."""

    @property
    def start(self) -> Tensor:
        """The noise that sampling starts from, ``[B, C, T, h, w]``."""

    def steps(self) -> Iterator[Tensor]:
        """The noise of each step, of the shape of the start."""


@dataclass(frozen=True)
class SeededNoise:
    """Noise that follows from a seed.

    Attributes:
        shape: ``[B, C, T, h, w]``.
    """

    shape: Sequence[int]
    seed: int

    @property
    def start(self) -> Tensor:
        return next(self._draws())

    def steps(self) -> Iterator[Tensor]:
        return islice(self._draws(), 1, None)

    def _draws(self) -> Iterator[Tensor]:
        generators = [torch.Generator("cpu").manual_seed((self.seed + index) % 2**64) for index in range(self.shape[0])]
        while True:
            yield torch.stack([torch.randn(*self.shape[1:], generator=generator) for generator in generators])


@dataclass(frozen=True)
class RecordedNoise:
    """Noise from stored tensors.

    Attributes:
        start: ``[B, C, T, h, w]``.
        step_noise: one tensor of that shape for each step.
    """

    start: Tensor
    step_noise: Iterable[Tensor]

    def steps(self) -> Iterator[Tensor]:
        """
        Raises:
            InputError: a tensor of another shape than the start, or fewer of them than steps.
        """
        for index, noise in enumerate(self.step_noise):
            if noise.shape != self.start.shape:
                raise InputError(
                    f"The noise of step {index} has the shape {tuple(noise.shape)}; expected is {tuple(self.start.shape)}, "
                    "that of the start."
                )
            yield noise
        raise InputError("The noise has fewer tensors than the run has steps; one for each step is needed.")
