"""Many runs on one server, as over weeks: `python -m dev.endurance --runs 200`.

Models, sizes and LoRAs alternate; at random some runs are cancelled at a random step or run out of memory while sampling or
decoding. Every run must make, to the bit, what the first of its kind made, and the server's memory must stay flat.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from harness import goldens
from harness.bench import BUNDLED, DYNAMICRAFTER, I2V, T2V, T2V_V1, Bench
from harness.client import ComfyError, Interrupted
from harness.graphs import out
from harness.server import Server
from harness.works_with.lora import low_rank, unet_matrices, write_lora

from .fuzz import fuzzing_server, memory

STEPS = 4
#: MB a run that the memory may grow by.
SLOPE = 1.0
#: What run() returns begins so when something was wrong with a run.
WRONG = ("failed", "was cancelled")
#: The share of the runs after which the memory must be flat: until then caches fill.
WARM_UP = 0.4
#: Drawn from at random: half of the runs end well.
ENDINGS = ("result", "result", "result", "result", "cancelled", "out of memory, sampling", "out of memory, decoding", "starved once")


@dataclass(frozen=True)
class Kind:
    """What a run makes."""

    model: str
    frames: int
    size: int
    lora: bool = False


KINDS = (
    Kind(T2V, 4, 64),
    Kind(BUNDLED, 2, 64),
    Kind(T2V, 4, 64, lora=True),
    Kind(DYNAMICRAFTER, 2, 64),
    Kind(T2V_V1, 2, 96),
    Kind(I2V, 3, 64),
    Kind(T2V, 2, 96),
    Kind(DYNAMICRAFTER, 4, 96),
)


@dataclass
class Report:
    """What became of the runs."""

    endings: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)  # MB after each run

    def slope(self) -> float:
        """MB a run, by least squares over the runs after the warm-up."""
        rest = torch.tensor(self.resident[int(len(self.resident) * WARM_UP) :], dtype=torch.float64)
        runs = torch.arange(len(rest), dtype=torch.float64)
        runs -= runs.mean()
        return float((runs * (rest - rest.mean())).sum() / (runs**2).sum())

    def lines(self) -> Iterator[str]:
        """For a person to read."""
        yield f"{self.endings.total()} runs: " + ", ".join(f"{n} {how}" for how, n in self.endings.most_common())
        yield f"memory from {self.resident[0]} to {self.resident[-1]} MB; {self.slope():+.2f} MB a run after the warm-up"
        yield f"{len(self.findings)} findings"
        yield from self.findings


def endure(server: Server, runs: int, seed: int, progress: Callable[[str], None] | None = None) -> Report:
    """Runs graphs on a server with the tests' nodes."""
    report, draw = Report(), random.Random(seed)
    known: dict[Kind, str] = {}
    for number in range(runs):
        kind = KINDS[number % len(KINDS)]
        ending = draw.choice(ENDINGS) if kind in known else "result"
        digest = run(server, kind, ending, draw.randrange(STEPS))
        report.endings[ending] += 1
        if ending == "result" and not digest.startswith(WRONG):
            if known.setdefault(kind, digest) != digest:
                report.findings.append(f"run {number}: {kind} gave another video than its first run")
        elif digest:
            report.findings.append(f"run {number}, {ending}: {kind} {digest}")
        report.resident.append(memory(server, "VmRSS"))
        if progress:
            progress(f"{number}: {ending}, {kind}, {report.resident[-1]} MB")
    return report


def run(server: Server, kind: Kind, ending: str, step: int) -> str:
    """Makes a video that ends so; returns a digest of it, or for other endings what was wrong with them, mostly nothing."""
    bench = graph(server, kind)
    if ending in ("cancelled", "out of memory, sampling"):
        way = "interrupt" if ending == "cancelled" else "out of memory"
        bench.patch("TestFailAt", step=step, way=way)
    elif ending in ("out of memory, decoding", "starved once"):
        bench.vae = out(bench.add("TestStarvedVAE", vae=bench.vae, times=1 if ending == "starved once" else 1000))
    latent = bench.authors(steps=STEPS)
    bench.save("latent", latent=latent)
    bench.save("frames", image=bench.decode(latent))
    for name in bench.saved:
        (server.base / "output" / f"saved_{name}.safetensors").unlink(missing_ok=True)
    try:
        results = bench.results()
    except Interrupted:
        return "" if ending == "cancelled" else "was cancelled"
    except ComfyError as error:
        about_memory = "memory" in str(error).lower() or "Allocation" in str(error)
        return "" if ending.startswith("out of memory") and about_memory else f"failed: {error!s:.300}"
    if ending == "starved once":
        return "" if results["frames"].isfinite().all() else "decoded no numbers in tiles"
    if ending != "result":
        return "ran to its end"
    return hashlib.sha256(b"".join(results[name].contiguous().numpy().tobytes() for name in sorted(results))).hexdigest()


def graph(server: Server, kind: Kind) -> Bench:
    """The beginning of a run's graph."""
    bench = Bench(server, kind.model, frames=kind.frames, size=kind.size)
    if kind.lora:
        matrices = unet_matrices(goldens.weights(kind.model))
        tensors: dict[str, torch.Tensor] = {}
        for name, (up, down) in low_rank(matrices, 0.1).items():
            stem = "lora_unet_" + name.replace(".", "_")
            tensors |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}
        file = write_lora(bench, "endurance", tensors)
        bench.patch("LoraLoaderModelOnly", lora_name=file, strength_model=0.7)
    return bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with fuzzing_server() as server:
        report = endure(server, arguments.runs, arguments.seed, lambda line: print(line, flush=True))
    print("\n".join(report.lines()))
    sys.exit(bool(report.findings) or report.slope() > SLOPE)


if __name__ == "__main__":
    main()
