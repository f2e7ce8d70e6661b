"""The command ``batch``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from ..console import say
from ..devices import default_device
from ..errors import FileWriteError, InputError
from ..media.formats import FORMATS, check_encoder, check_format
from ..parallel.world import World, joined, under_torchrun
from .engines import Engine, embedded, on_world
from .groups import grouped
from .job_list import Job, JobError, JobParser, read_list, resolve
from .making import Setup, Worker, described_run, digest_of
from .on_ray import on_ray
from .records import Record, Records
from .suites import LAYOUTS, arranged, write_map

ENGINES = ("embedded", "ray")


def add_options(parser: argparse.ArgumentParser, job_parser: JobParser) -> None:
    """The options of ``batch`` beside those of ``generate``.

    Args:
        job_parser: has the options that a job can have.
    """
    parser.add_argument("jobs", type=Path, help="the list: .txt with a prompt a line, .csv with a head, or .jsonl; see docs/batch.md")
    parser.add_argument("--output", type=Path, required=True, help="folder for the clips; clips that are there already are not made again")
    parser.add_argument("--layout", choices=LAYOUTS, help="name the clips as the tools of this suite expect them")
    parser.add_argument("--clips-at-once", type=int, default=1, help="clips of one batch; a result then depends on it, by rounding")
    parser.add_argument("--engine", choices=ENGINES, default="embedded", help="who makes the clips; torchrun is noticed by itself")
    parser.add_argument("--workers", type=int, help="with --engine ray: actors (default: one for each GPU, or 1)")
    parser.add_argument("--address", help="with --engine ray: of the cluster, such as auto (default: a new one on this machine)")
    parser.add_argument("--threads", type=int, help="threads of each worker on a CPU (default: torch's)")
    parser.set_defaults(job_parser=job_parser)


def batch(arguments: argparse.Namespace) -> None:
    """Make the clips of a list of jobs, those that aren't there yet.

    Raises:
        JobError: jobs failed; the others are there.
    """
    _check_options(arguments)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    jobs = resolve(read_list(arguments.jobs), arguments, arguments.job_parser, arguments.jobs.absolute().parent)
    if arguments.layout:
        jobs = arranged(jobs, arguments.layout)
    device = str(arguments.device or default_device())
    setup = replace(Setup.of(arguments), device=device)
    with _world(arguments.engine, device.partition(":")[0]) as world:
        if world is None or world.leads:
            _make_folder(arguments.output)
            _check_files(setup)
        engine, workers = _engine(arguments, world)
        todo = _todo(setup, jobs, arguments.clips_at_once, world)
        try:
            _run(engine, setup, todo, len(jobs), quiet=world is not None and not world.leads)
            if world is not None:
                world.wait()
        finally:
            if world is None or world.leads:
                Records(setup.output).write_manifest([job.name for job in jobs], described_run(setup, arguments.engine, workers))
                if arguments.layout:
                    write_map(setup.output, jobs, FORMATS[setup.format].suffix)
        _finish(setup, jobs, world)


def _check_options(arguments: argparse.Namespace) -> None:
    for name, least in (("clips_at_once", 1), ("workers", 1), ("threads", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}.")
    if arguments.engine != "ray" and (arguments.workers or arguments.address):
        raise InputError("--workers and --address are for --engine ray; torchrun has --nproc-per-node.")
    form = arguments.format or "h264"
    check_encoder(form)
    check_format(form, crf=arguments.crf)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"{output}: can't be made a folder for the clips ({error.strerror or error}); give another path.") from error


def _check_files(setup: Setup) -> None:
    """What would make every job fail is found before the first."""
    assert Worker(setup).given.file.config


@contextmanager
def _world(engine: str, kind: str) -> Iterator[World | None]:
    if engine == "ray" or not under_torchrun():
        yield None
        return
    with joined(kind) as world:
        yield world


def _engine(arguments: argparse.Namespace, world: World | None) -> tuple[Engine, int]:
    if arguments.engine == "ray":
        device = None if arguments.device is None else str(arguments.device)
        return on_ray(arguments.workers, arguments.address, device), arguments.workers or 0
    return (embedded, 1) if world is None else (on_world(world), world.size)


def _todo(setup: Setup, jobs: Sequence[Job], at_once: int, world: World | None) -> list[list[Job]]:
    """The groups with a job that isn't done. A group is made whole, since a clip depends by rounding on those beside it."""
    groups, records, described = grouped(jobs, at_once), Records(setup.output), setup.described()
    missing: list[int] = []
    if world is None or world.leads:
        missing = [
            number for number, group in enumerate(groups)
            if not all(records.is_done(job.name, digest_of(described, job)) for job in group)
        ]
    if world is not None:
        missing = world.agree(missing)
    return [groups[number] for number in missing]


def _run(engine: Engine, setup: Setup, groups: Sequence[Sequence[Job]], count: int, quiet: bool) -> None:
    left = sum(map(len, groups))
    records: Iterable[Record] = engine(setup, groups) if groups else ()
    with tqdm(desc="clips", total=count, initial=count - left, unit="clip", disable=quiet) as bar:
        for record in records:
            if not record.done:
                Records(setup.output).write(record)  # a lost worker wrote none
                bar.write(f"{record.name}: {record.error}")
            bar.update()


def _finish(setup: Setup, jobs: Sequence[Job], world: World | None) -> None:
    records = Records(setup.output)
    failed = [(job.name, record) for job in jobs if (record := records.read(job.name)) is None or not record.done]
    if world is not None and not world.leads:
        if failed:
            raise SystemExit(1)  # the first process says what failed
        return
    say(f"{setup.output}: {len(jobs) - len(failed)} of {len(jobs)} clips are there; manifest.json lists them.")
    if failed:
        lines = [f"{name}: {'was not made' if record is None else record.error}" for name, record in failed]
        raise JobError(f"{len(failed)} of {len(jobs)} jobs failed; the same command tries them again:", lines)
