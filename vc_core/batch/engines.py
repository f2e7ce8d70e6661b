"""The engines: who runs the jobs. Each yields what became of the jobs as they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..parallel.world import World
from .job_list import Job
from .making import Setup, Worker
from .records import Record

#: Jobs that are made in one batch.
Group = Sequence[Job]
#: Runs groups of jobs.
Engine = Callable[[Setup, Sequence[Group]], Iterator[Record]]


def embedded(setup: Setup, groups: Sequence[Group]) -> Iterator[Record]:
    """In this process, one group after the other."""
    worker = Worker(setup)
    for group in groups:
        yield from worker.run(group)


def on_world(world: World) -> Engine:
    """In the processes of a torchrun: each takes the next group as soon as it is free. Each yields its own jobs' records."""

    def run(setup: Setup, groups: Sequence[Group]) -> Iterator[Record]:
        own = replace(setup, device=world.device(setup.device), worker={"rank": world.rank})
        worker = Worker(own)
        for number in world.numbers(len(groups)):
            yield from worker.run(groups[number])

    return run
