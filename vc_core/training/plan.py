"""Which clips the passes of a run have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .trainer import generator_of


@dataclass(frozen=True)
class Sample:
    """One use of a clip: its number in the set, and how often it has come before, which decides what is drawn of it."""

    clip: int
    epoch: int


class Plan:
    """The passes of a run: which samples each has.

    In every epoch each clip comes once, in an order of its own. A pass is complete when a bucket has enough clips for it; what is left
    of an epoch is the beginning of the next one's. The order depends on the seed alone, so a resumed run goes on where it was.
    """

    def __init__(self, buckets: Sequence[object], batch: int, seed: int) -> None:
        self.buckets, self.batch, self.seed = list(buckets), batch, seed
        self._passes: list[list[Sample]] = []
        self._waiting: dict[object, list[Sample]] = {}
        self._epoch = 0

    def samples(self, number: int) -> list[Sample]:
        """The samples of pass ``number``, from 0."""
        while len(self._passes) <= number:
            self._add_epoch()
        return self._passes[number]

    def _add_epoch(self) -> None:
        order = torch.randperm(len(self.buckets), generator=generator_of(self.seed, self._epoch, 2)).tolist()
        for index in order:
            waiting = self._waiting.setdefault(self.buckets[index], [])
            waiting.append(Sample(index, self._epoch))
            if len(waiting) == self.batch:
                self._passes.append(self._waiting.pop(self.buckets[index]))
        self._epoch += 1
