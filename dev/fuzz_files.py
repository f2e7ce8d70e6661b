"""Opens files and configurations that strangers might write: `python -m dev.fuzz_files --seconds 600 --seed 1`.

Each must be read, or end in an error of ours whose text is printable, within 2 s and 200 MB beyond its size. Anything else is a
finding, shown with the seed that makes it again: `python -m dev.fuzz_files --kind pickle --seed 123 --count 1`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.bounded import MEGABYTES, SECONDS, status
from vc_core.checkpoint import open_checkpoint
from vc_core.config import ModelConfig, from_yaml, load_config, to_yaml
from vc_core.errors import VideoCrafterError
from vc_core.family.model_file import ModelFile

from .file_mutations import KINDS, MODELS, WITH_ZEROS, model_header, sparse_file

#: An input is ended after so many seconds of the processor's time, and of a clock: other programs may keep the processor busy.
ENDED_AFTER, ENDED_BY_CLOCK = 10, 300
#: Only every so many inputs' memory is measured one by one: looking takes longer than most inputs.
MEASURED_AT_ONCE = 20


class TooLong(BaseException):
    """Raised in an input that doesn't end."""


@dataclass
class Report:
    """What became of the inputs, by kind, and what should not have."""

    endings: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: float = 0.0

    def lines(self) -> list[str]:
        """For a person to read."""
        total = sum(each.total() for each in self.endings.values())
        lines = [f"{total} inputs; the slowest took {self.slowest:.2f} s, the largest {self.largest:.0f} MB beyond its size"]
        lines += [f"  {kind}: " + ", ".join(f"{n} {how}" for how, n in each.most_common()) for kind, each in self.endings.items()]
        return [*lines, f"{len(self.findings)} findings", *self.findings]


def write(kind: str, data: bytes, path: Path) -> None:
    """Write a file; the zeros at the end of some are left to the file system."""
    if kind not in WITH_ZEROS:
        path.write_bytes(data)
        return
    size, length = struct.unpack("<QQ", data[:16])
    with path.open("wb") as file:
        file.write(data[8:])
        file.truncate(8 + length + size)


def run(kind: str, made: Any, path: Path) -> str:
    """Do with an input what would be done with a stranger's: ``read``, or the class of our error.

    Raises:
        AssertionError: an error whose text is not printable.
    """
    try:
        if kind == "configuration":
            used(load_config(made))
        elif kind == "yaml":
            used(from_yaml(made))
        elif kind == "metadata":
            used(ModelFile.open(path).config)
        elif kind == "choice":
            write("metadata", sparse_file(*model_header(MODELS[0])), path)
            used(ModelFile.open(path, made).config)
        else:
            checkpoint = open_checkpoint(path)
            if kind == "header" and len(checkpoint) > 100:
                ModelFile.open(path).contents().left_out()
            for name in checkpoint:
                tensor = checkpoint.tensor(name)
                assert tuple(tensor.shape) == checkpoint.shape(name) and tensor.dtype == checkpoint.dtype(name)
    except VideoCrafterError as error:
        assert all(line.isprintable() for line in [error.message, *error.lines]) and len(str(error)) < 10_000, repr(str(error))
        assert error.__cause__ is None or str(error.__cause__).isprintable(), repr(error.__cause__)
        return type(error).__name__
    return "read"


def used(config: ModelConfig) -> None:
    """What is done with a configuration that was read: it is shown, and read again from what is written into files."""
    assert config.title.isprintable() and config.name.isprintable()
    assert from_yaml(to_yaml(config)).unet == config.unet


def fuzz(kinds: list[str], seed: int, seconds: float, count: int | None = None) -> Report:
    """Try inputs of the seeds ``seed``, ``seed + 1`` and so on, of each kind in turn, for a time or a number of seeds."""
    report, start = Report({kind: Counter() for kind in kinds}), time.monotonic()

    def too_long(*_: object) -> None:
        raise TooLong

    before = [(each, signal.signal(each, too_long)) for each in (signal.SIGALRM, signal.SIGPROF)]
    with tempfile.TemporaryDirectory() as folder:
        for number in itertools.count(seed):
            if number - seed == count or count is None and time.monotonic() - start > seconds:
                break
            for kind in kinds:
                try_one(kind, number, Path(folder) / "model.ckpt", report)
    for each, handler in before:
        signal.signal(each, handler)
    return report


def try_one(kind: str, seed: int, path: Path, report: Report) -> None:
    """Make an input, try it, and note what became of it."""
    made = KINDS[kind](random.Random(f"{kind} {seed}"))
    if isinstance(made, bytes):
        write(kind, made, path)
    size = path.stat().st_size if isinstance(made, bytes) else 0
    measured = sys.platform == "linux" and seed % MEASURED_AT_ONCE == 0
    if measured:
        Path("/proc/self/clear_refs").write_text("5")  # the highest memory so far is forgotten
    resident, began = (status("VmRSS") if measured else 0), time.process_time()
    signal.alarm(ENDED_BY_CLOCK)
    signal.setitimer(signal.ITIMER_PROF, ENDED_AFTER)
    try:
        ending = run(kind, made, path)
    except (Exception, TooLong) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        ending = "finding"
        report.findings.append(f"--kind {kind} --seed {seed} --count 1: {error!r:.300} at {frame.filename}:{frame.lineno}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    report.endings[kind][ending] += 1
    took, grew = time.process_time() - began, ((status("VmHWM") - resident) / 1024 - size / 2**20 if measured else 0)
    report.slowest, report.largest = max(report.slowest, took), max(report.largest, grew)
    if took > SECONDS or grew > MEGABYTES:
        report.findings.append(f"--kind {kind} --seed {seed} --count 1: took {took:.1f} s and {grew:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, help="so many seeds, in place of the time")
    parser.add_argument("--kind", choices=KINDS, action="append", help="all by default")
    arguments = parser.parse_args()
    report = fuzz(arguments.kind or list(KINDS), arguments.seed, arguments.seconds, arguments.count)
    print("\n".join(report.lines()))
    sys.exit(bool(report.findings))


if __name__ == "__main__":
    main()
