"""Damaged images and videos, odd names and numbers, against reading, measuring and saving: `python -m dev.fuzz_media --seconds 60`.

An input must end in a result or in an error of ours, within a bound of time and memory. Everything else is a fault. The inputs run
in a process of their own, since a library may crash; a crash of Pillow, FFmpeg or x264 is a fault, too. One again:
`python -m dev.fuzz_media --kinds video --seed 1234 --count 1`.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import node_pack
from harness.comfyui import REPOSITORY

from .fuzz_media_inputs import KINDS

#: Seconds of a processor that one input may take, and MB by which it may raise the process's highest memory: 50 million pixels take 750.
MOST_SECONDS, MOST_MEMORY = 20, 1500
#: Seconds in which the process must start, and end an input, on a machine that has other work; ComfyUI is imported for the node.
START, PATIENCE = 120, 120


@dataclass
class Report:
    """How many inputs of each kind ended how, and what should not have been."""

    endings: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    slowest: float = 0.0

    def lines(self) -> Iterator[str]:
        """For a person to read."""
        for kind, endings in self.endings.items():
            yield f"{kind}: {endings.total()} inputs, " + ", ".join(f"{count} {how}" for how, count in endings.most_common())
        yield f"{len(self.faults)} faults in {self.seconds:.0f} s; the slowest input took {self.slowest:.1f} s"
        yield from self.faults


def fuzz(kinds: Sequence[str], seed: int, seconds: float, count: int, progress: Callable[[str], None] = lambda line: None) -> Report:
    """Try inputs ``seed``, ``seed + 1`` and so on of each kind, until their time or number is over.

    Args:
        seconds: for all kinds together.
        count: at most so many of each kind.
    """
    report, start = Report(), time.monotonic()
    for kind in kinds:
        report.endings[kind] = Counter()
        number, left = seed, seconds / len(kinds)
        while number < seed + count and left > 0:
            number, used = _run_process(kind, number, seed + count, left, report)
            left -= used
        progress(f"{kind}: {report.endings[kind].total()} inputs, {len(report.faults)} faults so far")
    report.seconds = time.monotonic() - start
    return report


def _run_process(kind: str, number: int, stop: int, seconds: float, report: Report) -> tuple[int, float]:
    """Let a process try inputs from ``number`` on until it fails or all is done; the next number, and the seconds after its start."""
    command = [sys.executable, "-m", "dev.fuzz_media", "--work", kind, "--seed", str(number), "--count", str(stop - number)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as errors, subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=errors, env=environment
    ) as process:
        why, ready, started = "", 0.0, 0.0
        for line in _lines(process, seconds):
            if line is None:
                why = f"took more than {PATIENCE} s"
                break
            how, _, text = line.partition(" ")
            if how == "next":
                number, started = int(text), time.monotonic()
                ready = ready or started
            elif how == "fault":
                report.faults.append(f"{kind} {number}: {text}")
                report.endings[kind]["fault"] += 1
            elif how == "end":
                report.endings[kind][text] += 1
                report.slowest = max(report.slowest, time.monotonic() - started)
                number += 1
        used = time.monotonic() - ready if ready else 0.0
        over = process.poll() is None
        process.kill()
        if process.wait() < 0 and not over:
            why = f"the process crashed (signal {-process.returncode})"
        elif process.returncode > 0:
            errors.seek(0)
            why = f"the process ended: {ascii(errors.read()[-300:])}"
        if why:
            report.faults.append(f"{kind} {number}: {why}")
            number += 1
        errors.seek(0)
        if any(byte < 32 and byte not in b"\t\n\r" for byte in errors.read()):
            report.faults.append(f"{kind}, before {number}: control characters were written to the terminal")
    return number, used


def _lines(process: subprocess.Popen[bytes], seconds: float) -> Iterator[str | None]:
    """What the process prints, until the time after its start is over; None where it hangs."""
    end, patience, rest = float("inf"), float(START), b""
    while time.monotonic() < end:
        ready, _, _ = select.select([process.stdout], [], [], min(patience, max(0.0, end - time.monotonic())))
        if not ready:
            if time.monotonic() < end:
                yield None
            return
        read = os.read(process.stdout.fileno(), 2**16)
        if not read:
            process.wait()
            return
        end, patience = min(end, time.monotonic() + seconds), float(PATIENCE)
        *lines, rest = (rest + read).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def work(kind: str, seed: int, count: int) -> None:
    """In the process of its own: try inputs, and print before and after each."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        if kind == "node":
            node_pack.import_pack(folder)
        for number in range(seed, seed + count):
            before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, time.process_time()
            print(f"next {number}", flush=True)
            try:
                how = KINDS[kind](number, folder)
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(frame.filename).name}:{frame.lineno}"
                print(f"fault {type(error).__name__} at {place}: {ascii(str(error))[:300]}", flush=True)
                how = ""
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) - before
            if grown > MOST_MEMORY:
                print(f"fault took {grown} MB", flush=True)
            if time.process_time() - started > MOST_SECONDS:
                print(f"fault took {time.process_time() - started:.0f} s", flush=True)
            print(f"end {how}" if how else "end failed", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all kinds together")
    parser.add_argument("--count", type=int, default=10**9, help="at most so many inputs of each kind")
    parser.add_argument("--seed", type=int, default=0, help="the first input's number")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.seed, arguments.count)
        return
    report = fuzz(arguments.kinds, arguments.seed, arguments.seconds, arguments.count, lambda line: print(line, flush=True))
    print("\n".join(report.lines()))
    sys.exit(bool(report.faults))


if __name__ == "__main__":
    main()
