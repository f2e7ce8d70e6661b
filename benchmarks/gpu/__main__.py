"""``python -m benchmarks.gpu``: what a GPU computes, how fast, and why; ``python -m benchmarks.gpu compare A B`` for two runs.

Results are appended to ``results.jsonl`` in the output folder as soon as they are there. Needs no network, no ComfyUI and no weights.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

import torch

from harness.goldens import DEFAULT_FOLDER, DEFAULT_SEED

from . import fast, right, switches, why
from .compare import comparison
from .results import Results, keys, read

SECTIONS = ("right", "fast", "why", "choices")
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="what to measure (default: all, in this order)")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", nargs="+", choices=TYPES, help="types of the weights (default: float16 and bfloat16; float32 on a CPU)")
    parser.add_argument("--rounds", type=int, default=3, help="of timing, of which the best counts")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no case after so many minutes")
    parser.add_argument("--tiny", action="store_true", help="the bundled models' sizes, to try the command itself")
    parser.add_argument("--golden", type=Path, default=DEFAULT_FOLDER, help="folder of the recorded numbers")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of the recordings' weights")
    parser.add_argument("--output", type=Path, default=Path("benchmarks_output/gpu"), help="folder for the results and the profiles")
    return parser.parse_args(arguments)


def machine(device: str) -> dict[str, object]:
    """The device and the versions that the figures are of."""
    described: dict[str, object] = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
    if device == "cpu":
        return {"device": platform.processor() or platform.machine(), **described}
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name, "memory GiB": properties.total_memory / 2**30, **described,
        "CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version(),
    }  # fmt: skip


def measure_all(given: argparse.Namespace) -> None:
    """The chosen sections, one after the other."""
    given.output.mkdir(parents=True, exist_ok=True)
    results = Results(given.output / "results.jsonl", time.monotonic() + 60 * given.minutes)
    types = {name: TYPES[name] for name in given.dtype or (("float32",) if given.device == "cpu" else ("float16", "bfloat16"))}
    subjects = fast.TINY_SUBJECTS if given.tiny else fast.SUBJECTS
    results.add(keys("machine", "machine"), machine(given.device))
    run = {
        "right": lambda: right.run(results, given.device, types, given.golden, given.seed),
        "fast": lambda: fast.run(results, given.device, types, subjects, given.rounds),
        "why": lambda: why.run(results, given.device, types, subjects, given.output),
        "choices": lambda: switches.run(results, given.device, types, subjects, given.rounds),
    }
    for section in given.sections:
        run[section]()
    print(f"Written to {given.output}.")


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["compare"]:
        if len(arguments) != 3:
            print("python -m benchmarks.gpu compare needs two folders or files of results.", file=sys.stderr)
            return 2
        print(comparison(read(Path(arguments[1])), read(Path(arguments[2]))))
        return 0
    given = parse(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU that torch can use: give --device cpu --tiny to try this command.", file=sys.stderr)
        return 1
    measure_all(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
