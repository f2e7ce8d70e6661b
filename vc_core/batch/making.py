"""A worker: it loads the model once and makes clips of jobs."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import platform
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.convert import DTYPE_NAMES
from ..errors import VideoCrafterError, printable
from ..family.model_file import ModelFile
from ..family.naming import model_path
from ..generating import Given, Plan, check_options, make, planned, read_inputs
from ..loading import load
from ..lora.merging import LoraSetting
from ..media.formats import FORMATS
from ..media.video import check_target, save_video
from ..memory import is_out_of_memory
from ..pipeline import VideoModel
from .groups import make_together
from .job_list import Job
from .records import DONE, FAILED, Record, Records, digest_of_text, sha256_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """What all jobs share. It can be pickled, for workers in other processes.

    Attributes:
        device: the torch device; ``cuda`` is the process's own GPU.
        threads: of torch on a CPU; 0 leaves them as they are.
        worker: said of the worker in its records.
    """

    model: str
    output: Path
    device: str
    config: str | None = None
    base: str | None = None
    dtype: str = "float32"
    adapters: tuple[Path, ...] = ()
    loras: tuple[LoraSetting, ...] = ()
    image_encoder: Path | None = None
    format: str = "h264"
    crf: float | None = None
    ping_pong: bool = False
    loop_count: int = 0
    threads: int = 0
    worker: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Setup:
        """From the options of the command ``batch``."""
        return cls(
            os.path.abspath(arguments.model) if os.path.exists(arguments.model) else arguments.model, arguments.output.absolute(),
            str(arguments.device), arguments.config, arguments.base, arguments.dtype, tuple(arguments.adapter), tuple(arguments.lora),
            arguments.image_encoder, arguments.format or "h264", arguments.crf, arguments.ping_pong, arguments.loop_count,
            torch.get_num_threads(),
        )

    def path(self, job: Job) -> Path:
        """The job's file, or its folder for a format of single images."""
        return self.output / (job.name + FORMATS[self.format].suffix)

    @property
    def in_worker(self) -> Mapping[str, Any]:
        """The worker, for its records."""
        return {"host": socket.gethostname(), "pid": os.getpid(), "device": self.device, **self.worker}

    def described(self) -> dict[str, Any]:
        """What of it decides the clips, for digests and the manifest. The model's file goes by its name and size."""
        path = model_path(self.model)
        names = ("config", "base", "dtype", "adapters", "loras", "image_encoder", "format", "crf", "ping_pong", "loop_count")
        size = path.stat().st_size if path.is_file() else 0
        return {"model": path.name, "model_bytes": size, **{name: getattr(self, name) for name in names}}


def digest_of(setup: Mapping[str, Any], job: Job) -> str:
    """A digest of all that decides a job's clip: the model, its own options, and the content of its images.

    Args:
        setup: :meth:`Setup.described`.
    """
    own = {name: value for name, value in vars(job.options).items() if value is not None}
    return digest_of_text({"setup": {**setup, "loras": [asdict(each) for each in setup["loras"]]}, "job": own})


class Worker:
    """Makes clips, and keeps the model from job to job.

    Args:
        setup: what all jobs share.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup, self.records, self.described = setup, Records(setup.output), setup.described()
        if setup.threads:
            torch.set_num_threads(setup.threads)
        self._file: ModelFile | None = None
        self._given: Given | None = None
        self._model: VideoModel | None = None

    @property
    def model(self) -> VideoModel:
        """The model, loaded when it is first needed."""
        if self._model is None:
            setup = self.setup
            self._model = load(
                self.file, None, setup.device, DTYPE_NAMES[setup.dtype], setup.adapters, loras=setup.loras,
                image_encoder=setup.image_encoder,
            )
        return self._model

    @property
    def file(self) -> ModelFile:
        if self._file is None:
            self._file = ModelFile.open(self.setup.model, self.setup.config, self.setup.base)
        return self._file

    @property
    def given(self) -> Given:
        """The files that all jobs are made with.

        Raises:
            CheckpointError: one can't be read.
        """
        if self._given is None:
            self._given = Given.of(self.file, self.setup.adapters, self.setup.image_encoder)
        return self._given

    def run(self, jobs: Sequence[Job]) -> list[Record]:
        """Make the clips of some jobs, those that go together in one batch, and write what became of each.

        A job that fails is recorded, with its error; nothing is raised for it.
        """
        plans, records = list[tuple[Job, Plan]](), list[Record]()
        for job in jobs:
            plan = self._tried(job, lambda job=job: self._planned(job))  # type: ignore[misc]
            if isinstance(plan, Record):
                records.append(plan)
            else:
                plans.append((job, plan))
        records += self._made(plans)
        for record in records:
            self.records.write(record)
        return records

    def _planned(self, job: Job) -> Plan:
        setup = self.setup
        check_options(job.options)
        plan = planned(job.options, self.given, read_inputs(job.options))
        height, width = plan.size
        target = setup.path(job)
        if FORMATS[setup.format].suffix:
            check_target(target, width, height, plan.settings.playback_fps, setup.format, setup.crf)
        return plan

    def _made(self, plans: Sequence[tuple[Job, Plan]]) -> list[Record]:
        """The records of clips that are made in one batch, or in smaller ones where memory runs out."""
        if not plans:
            return []
        start = time.perf_counter()
        if len(plans) == 1:
            job, plan = plans[0]
            made = self._tried(job, lambda: make(self.model, plan))
            if isinstance(made, Record):
                return [made]
            return [self._saved(job, plan, made, time.perf_counter() - start)]
        try:
            clips = make_together(self.model, [plan for _, plan in plans])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            clips = None
        if clips is None:  # outside of the handler, which holds the failed run's tensors
            self._release()
            half = len(plans) // 2
            logger.warning("%d clips at once take too much memory: trying %d.", len(plans), half)
            return self._made(plans[:half]) + self._made(plans[half:])
        each = (time.perf_counter() - start) / len(plans)
        return [self._saved(job, plan, clip, each) for (job, plan), clip in zip(plans, clips, strict=True)]

    def _saved(self, job: Job, plan: Plan, clip: Tensor, seconds: float) -> Record:
        setup, path, start = self.setup, self.setup.path(job), time.perf_counter()

        def save() -> Record:
            remove_folder(path)
            save_video(clip, path, plan.settings.playback_fps, setup.format, setup.crf, setup.ping_pong, setup.loop_count)
            spent = round(seconds + time.perf_counter() - start, 4)
            named = {each.name: getattr(plan.settings, each.name) for each in fields(plan.settings) if "help" in each.metadata}
            return replace(self._record(job, DONE), sha256=sha256_of(path), settings=named, seconds=spent)

        return self._tried(job, save)

    def _tried(self, job: Job, step: Callable[[], Any]) -> Any:
        """The result of a step, or the record of a job that failed in it."""
        try:
            return step()
        except VideoCrafterError as error:
            why = str(error)
        except Exception as error:  # one job must not stop thousands of others
            if is_out_of_memory(error):
                why = "there is too little memory: make a smaller or shorter clip."
            else:
                why = printable(f"{type(error).__name__}: {error}")
                logger.error("Job %s: %s", job.name, traceback.format_exc())
        self._release()
        return replace(self._record(job, FAILED), error=why)

    def _record(self, job: Job, status: str) -> Record:
        path = self.setup.path(job)
        return Record(job.name, path.name, digest_of(self.described, job), status, job.fields, worker=self.setup.in_worker)

    def _release(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def remove_folder(path: Path) -> None:
    """Remove an older clip of single images, of which a new one can't be written over."""
    if path.is_dir():
        for image in path.glob("*.png"):
            image.unlink()


def described_run(setup: Setup, engine: str, workers: int) -> dict[str, Any]:
    """What the manifest says of a run as a whole."""
    return {
        "run": {name: _plain(value) for name, value in setup.described().items()}, "engine": engine, "workers": workers,
        "device": setup.device, "threads": setup.threads, "torch": torch.__version__, "python": platform.python_version(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return [str(each) for each in value] if isinstance(value, (tuple, list)) else str(value)
