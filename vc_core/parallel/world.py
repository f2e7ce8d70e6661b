"""The processes of a torchrun: which one this is, and what it agrees on with the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from ..errors import InputError

#: How long a process waits for the slowest one, such as for the last clip of a long list.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """The processes that were started together.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        local_rank: its number on this machine, which is its GPU's.
        store: what all of them read and write.
    """

    rank: int
    size: int
    local_rank: int
    store: dist.Store  # type: ignore[name-defined]

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes for all."""
        return self.rank == 0

    def device(self, kind: str) -> str:
        """This process's device of a kind: ``cuda:1`` for ``cuda``; a device with a number, and ``cpu``, as they are."""
        return kind if kind == "cpu" or ":" in kind else f"{kind}:{self.local_rank}"

    def agree(self, value: Any) -> Any:
        """The first process's value, in all of them. It is pickled."""
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def numbers(self, count: int, name: str = "next") -> Iterator[int]:
        """The numbers from 0 to ``count - 1``, each to one process only: to the one that asks next."""
        while (number := self.store.add(name, 1) - 1) < count:
            yield number

    def wait(self) -> None:
        """Until all processes are here."""
        self.agree(None)
        gathered = [None] * self.size
        dist.all_gather_object(gathered, None)


def under_torchrun() -> bool:
    """Whether torchrun, or another launcher with its environment variables, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


@contextmanager
def joined(kind: str = "cpu") -> Iterator[World]:
    """Join the processes that torchrun started, until the block ends.

    Args:
        kind: of device, such as ``cuda``, whose tensors they exchange: by NCCL there, and by Gloo on a CPU.

    Raises:
        InputError: torchrun did not start this process, or there are fewer GPUs than processes.
    """
    if not under_torchrun():
        raise InputError("This process was not started by torchrun: start it as `torchrun --nproc-per-node N -m vc_core ...`.")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise InputError(f"Process {local_rank} of this machine has no GPU; there are {torch.cuda.device_count()}: start as many.")
        torch.cuda.set_device(local_rank)
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(rank, size, local_rank, dist.PrefixStore("vc_core", store))  # type: ignore[attr-defined]
    finally:
        dist.destroy_process_group()
