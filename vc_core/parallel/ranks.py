"""A group of processes that compute one clip together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Some of the processes, in order; this one is among them.

    Attributes:
        rank: this process's number in the group, from 0.
        size: how many they are.
        group: torch's name of them.
    """

    rank: int
    size: int
    group: dist.ProcessGroup

    @classmethod
    def among(cls, groups: Sequence[Sequence[int]]) -> Ranks:
        """The group that this process is in. All processes call this with the same groups, which have each of them once.

        Args:
            groups: numbers of processes.
        """
        own, found = dist.get_rank(), None
        for members in groups:
            made = dist.new_group(list(members))
            if own in members:
                found = cls(list(members).index(own), len(members), made)
        assert found is not None, "a process in no group"
        return found

    def each(self, tasks: Sequence[Callable[[], Tensor]], like: Tensor) -> list[Tensor]:
        """The results of tasks, each of which one process runs, in turn.

        Args:
            like: has the shape, type and device of each result.
        """
        results = []
        for number, task in enumerate(tasks):
            results.append(task().contiguous() if number % self.size == self.rank else torch.empty_like(like))
        for number, result in enumerate(results):
            dist.broadcast(result, src=dist.get_global_rank(self.group, number % self.size), group=self.group)
        return results

    def gather(self, x: Tensor) -> Tensor:
        """Each process's tensor, of one shape, stacked in order: ``[size, ...]``."""
        out = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(out, x.contiguous(), group=self.group)
        return torch.stack(out)

    def exchange(self, x: Tensor) -> Tensor:
        """``[size, ...]``: row r goes to process r, and row r of the result comes from it."""
        x = x.contiguous()
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x, group=self.group)
        return out
