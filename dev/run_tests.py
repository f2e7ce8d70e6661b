"""Runs the checks of `make test` one after the other and prints what each took: `python -m dev.run_tests [--full]`.

ruff, mypy and pytest; with ``--full`` also the tests marked full, and then what works with what once more on the oldest ComfyUI.
A part that fails does not keep the next from running; the exit status is 1 if any failed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.comfyui import OLDEST_RELEASE, REPOSITORY

#: What differs between releases is ComfyUI's side, so the oldest one gets the tests of what works with what.
ON_OLDEST = (
    "works_with", "options", "controlnet", "model_patches", "deep_cache", "memory", "other_packs", "prompt_schedule", "save_formats",
    "turbo", "lora", "training", "drawing", "composing", "control",
)
SMOKE_TEST = "tests/comfyui/test_oldest_release.py"


@dataclass(frozen=True)
class Part:
    """A check that has run."""

    name: str
    passed: bool
    seconds: float
    cpu_seconds: float


def run(name: str, *command: str, **environment: str) -> Part:
    """Runs Python's module `command` in the repository; its output goes where ours goes."""
    print(f"--- {name}", flush=True)
    start, cpu_start = time.monotonic(), children_cpu_seconds()
    done = subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, env=os.environ | environment)
    return Part(name, done.returncode == 0, time.monotonic() - start, children_cpu_seconds() - cpu_start)


def children_cpu_seconds() -> float:
    """CPU seconds of all processes that were started here and have ended, with those that they started."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def pytest_command(workers: int, *options: str) -> list[str]:
    """Tests of a file stay together, for the server and models that they share; the longest files start first."""
    return ["pytest", f"--numprocesses={workers}", "--dist=loadfile", "--no-loadscope-reorder", *options]


def folder_seconds(file_seconds: dict[str, float]) -> dict[str, float]:
    """Seconds of the core's tests, of those in ComfyUI and of the oldest release's, summed over all workers."""
    total: Counter[str] = Counter()
    for file, seconds in file_seconds.items():
        total["oldest release" if file == SMOKE_TEST else "ComfyUI" if file.startswith("tests/comfyui/") else "core"] += seconds
    return dict(total)


def table(parts: list[Part], file_seconds: dict[str, float], workers: int) -> str:
    """The time by part, in Markdown."""
    lines = ["| part | seconds | CPU seconds | |", "|---|---|---|---|"]
    lines += [f"| {part.name} | {part.seconds:.0f} | {part.cpu_seconds:.0f} | {'' if part.passed else 'FAILED'} |" for part in parts]
    seconds, cpu_seconds = sum(part.seconds for part in parts), sum(part.cpu_seconds for part in parts)
    lines.append(f"| in all | {seconds:.0f} | {cpu_seconds:.0f} | |")
    shares = ", ".join(f"{name} {total:.0f} s" for name, total in sorted(folder_seconds(file_seconds).items()))
    return "\n".join(lines) + f"\npytest's {workers} workers: {shares}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="run everything, which takes more than an hour")
    parser.add_argument("--workers", type=int, default=2, help="processes of tests, each with a ComfyUI of its own (2)")
    arguments = parser.parse_args()
    # More threads than cores only wait for each other.
    threads = str(max(1, (os.cpu_count() or 1) // arguments.workers))
    full = ["--full"] if arguments.full else []
    parts = [run("ruff", "ruff", "check", "."), run("mypy", "mypy")]
    with tempfile.TemporaryDirectory() as folder:
        seconds = Path(folder) / "seconds.json"
        command = pytest_command(arguments.workers, f"--write-seconds={seconds}", *full)
        parts.append(run("pytest", *command, OMP_NUM_THREADS=threads))
        file_seconds = json.loads(seconds.read_text()) if seconds.exists() else {}
    if arguments.full:
        files = [f"tests/comfyui/test_{name}.py" for name in ON_OLDEST]
        command = pytest_command(arguments.workers, *full, *files)
        environment = {"OMP_NUM_THREADS": threads, "COMFYUI_DIR": "", "COMFYUI_RELEASE": OLDEST_RELEASE}
        parts.append(run(f"pytest on ComfyUI {OLDEST_RELEASE}", *command, **environment))
    print(table(parts, file_seconds, arguments.workers))
    sys.exit(not all(part.passed for part in parts))


if __name__ == "__main__":
    main()
