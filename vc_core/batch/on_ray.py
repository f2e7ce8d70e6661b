"""Jobs on Ray: an actor for each GPU, which loads the model once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InputError
from .engines import Engine, Group
from .making import Setup, Worker, digest_of
from .records import FAILED, Record

#: How often a group is tried again after its worker was lost. A job that ends its worker each time is a failed one.
RETRIES = 2


class RayWorker(Worker):
    """A worker as an actor."""

    def __init__(self, setup: Setup) -> None:
        import ray

        context = ray.get_runtime_context()
        super().__init__(replace(setup, worker={"actor": context.get_actor_id(), "node": context.get_node_id()}))


def on_ray(workers: int | None, address: str | None, device: str | None) -> Engine:
    """On a Ray cluster.

    Args:
        workers: actors; None: one for each GPU of the cluster, or one where it has none.
        address: of the cluster, such as ``auto`` or ``ray://host:10001``; None: a new one on this machine.
        device: each actor's; None: ``cuda`` if the cluster has GPUs, else ``cpu``.

    Raises:
        InputError: Ray is not installed, there is no cluster at the address, or it has fewer GPUs than actors.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs Ray: pip install 'comfyui-videocrafter[ray]'.") from error

    def run(setup: Setup, groups: Sequence[Group]) -> Iterator[Record]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a new cluster reports nothing to anyone
        try:
            ray.init(address=address or "local", include_dashboard=None if address else False, logging_level=logging.WARNING)
        except Exception as error:  # Ray's own are of many classes
            where = "on this machine" if address is None else f"at {address!r:.80}"
            raise InputError(f"Ray can't be used {where}: {str(error).strip()[:500]}") from error
        try:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            own = replace(setup, device=device or ("cuda" if gpus else "cpu"))
            count = min(workers or gpus or 1, max(1, len(groups)))
            if own.device.startswith("cuda") and count > gpus:
                raise InputError(f"--workers is {count}, but the Ray cluster has {gpus} GPUs: give at most as many.")
            yield from _run(ray, own, groups, count)
        finally:
            ray.shutdown()

    return run


def _run(ray: Any, setup: Setup, groups: Sequence[Group], count: int) -> Iterator[Record]:
    """Keep ``count`` actors busy: each has one group at a time, so that a lost one takes no others with it."""
    gpus = 1 if setup.device.startswith("cuda") else 0
    actor_class = ray.remote(RayWorker).options(num_gpus=gpus, num_cpus=0 if gpus else 1, max_restarts=-1, max_task_retries=RETRIES)
    idle, waiting, running = [actor_class.remote(setup) for _ in range(count)], list(reversed(groups)), dict[Any, tuple[Any, Group]]()
    while waiting or running:
        while waiting and idle:
            actor, group = idle.pop(), waiting.pop()
            running[actor.run.remote(list(group))] = actor, group
        (ended, *_), _ = ray.wait(list(running), num_returns=1)
        actor, group = running.pop(ended)
        idle.append(actor)
        try:
            yield from (_here(setup, record) for record in ray.get(ended))
        except ray.exceptions.RayError as error:
            yield from (_lost(setup, job_record, error) for job_record in _records(setup, group))


def _records(setup: Setup, group: Group) -> Iterator[Record]:
    described = setup.described()
    for job in group:
        yield Record(job.name, setup.path(job).name, digest_of(described, job), FAILED, job.fields)


def _lost(setup: Setup, record: Record, error: Exception) -> Record:
    """A job whose worker ended each time it was tried."""
    why = f"its worker was lost {RETRIES + 1} times: {str(error).splitlines()[0]:.300}"
    return replace(record, error=why)


def _here(setup: Setup, record: Record) -> Record:
    if record.done and not (setup.output / record.file).exists():
        why = f"the worker wrote it on another disk: {setup.output} must be a folder that all machines share."
        return replace(record, status=FAILED, error=why)
    return record
