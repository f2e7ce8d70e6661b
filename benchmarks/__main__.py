"""``python -m benchmarks``: what a model costs, part by part, beside the plain formulation and the arithmetic's floor."""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from vc_core.config import ModelConfig, load_config, published
from vc_core.kernels.casting import computing_type

from .floor import flops, matrix_rate
from .loading import measured_apart, write_checkpoint
from .measure import measure
from .memory import walk_peak
from .models import random_model, random_networks, weight_bytes
from .parts import BEST, NETWORKS, OURS, PARTS, PLAIN, Clip, arithmetic, step_ways, ways
from .report import GIB, Point, Row, plot, ratios, table, write_json

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: Frames and sizes (height, width) of the plot, beside those that are asked for.
FRAMES, SIZES = (16, 32, 64), ((192, 320), (320, 512), (576, 1024))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--model", default="t2v_512_v2", choices=published(), help="whose shapes (default: VideoCrafter2's)")
    parser.add_argument("--parts", nargs="*", choices=PARTS, help="what to measure (default: all that the model has; none: the plot only)")
    parser.add_argument("--ways", nargs="+", choices=(PLAIN, OURS, BEST), help="how (default: all that the device has)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", nargs="+", choices=TYPES, help="types of the weights (default: float32; float16 on a GPU)")
    parser.add_argument("--size", nargs="+", default=["192x320"], metavar="HxW", help="sizes in pixels")
    parser.add_argument("--frames", nargs="+", type=int, default=[16])
    parser.add_argument("--steps", type=int, help="of a clip (default: 2; 50 on a GPU)")
    parser.add_argument("--rounds", type=int, default=2, help="of timing, of which the best counts; 0 times the first run only")
    parser.add_argument("--threads", type=int, help="of the processor")
    parser.add_argument("--no-sweep", action="store_true", help="leave out operations and memory over frames and pixels, and their plot")
    parser.add_argument("--output", type=Path, default=Path("benchmarks_output"), help="folder for the table, JSON and plot")
    return parser.parse_args(arguments)


def rows_of(
    config: ModelConfig, part: str, given: argparse.Namespace, rates: Mapping[torch.dtype, float], clips: Iterable[Clip]
) -> list[Row]:
    """All clips' rows of a part, in the types for which there are rates: these are taken in turns as well."""
    rows = []
    models = {dtype: random_model(config, NETWORKS[part], given.device, dtype) for dtype in rates}
    for clip in clips:
        chosen = {
            (dtype, name): run
            for dtype, model in models.items()
            for name, run in ways(part, model, clip).items()
            if given.ways is None or name in given.ways
        }
        operations = arithmetic(part, config, clip)
        for (dtype, name), cost in measure(chosen, given.device, given.rounds).items():
            weights = sum(weight_bytes(network) for network in models[dtype].networks.values())
            rows.append(
                Row(
                    part, name, config.name, clip.height, clip.width, clip.frames, clip.steps, short(dtype),
                    given.device, cost.seconds, cost.processor_seconds, operations / rates[dtype], weights, cost.peak,
                )  # fmt: skip
            )
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def short(dtype: torch.dtype) -> str:
    """A type's name."""
    return str(dtype).removeprefix("torch.")


def load_row(config: ModelConfig, given: argparse.Namespace, dtype: torch.dtype, clip: Clip) -> Row:
    """Loading a file as large as a published one, from a folder for temporary files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        write_checkpoint(config, path)
        taken = measured_apart(path, given.device, dtype)
    return Row(
        "load", OURS, config.name, clip.height, clip.width, clip.frames, clip.steps, short(dtype), given.device, taken["seconds"],
        taken["processor_seconds"], None, int(taken["weights"]), int(taken["peak"] - taken["weights"]),
    )  # fmt: skip


def sweep(config: ModelConfig, dtype: torch.dtype) -> list[Point]:
    """Steps of all numbers of frames at the first size, and of all sizes at the first number of frames, counted on ``meta``."""
    clips = [Clip(frames, *SIZES[0], 1) for frames in FRAMES] + [Clip(FRAMES[0], *size, 1) for size in SIZES[1:]]
    unet = random_networks(config, ["unet"], "meta", dtype)["unet"]
    points = []
    for clip in clips:
        run = step_ways(config, unet, clip, "meta", dtype)  # type: ignore[arg-type]
        operations, peak, plain_peak = flops(run[OURS]), walk_peak(run[OURS]), walk_peak(run[PLAIN])
        points.append(Point(clip.height, clip.width, clip.frames, operations, peak, plain_peak))
        print(
            f"{clip.height}x{clip.width}x{clip.frames} {short(dtype)}: {operations / 1e12:.1f}e12 operations, "
            f"{peak / GIB:.2f} GiB beside the weights, the plain formulation {plain_peak / GIB:.2f}", flush=True,
        )  # fmt: skip
    return points


def machine(given: argparse.Namespace) -> dict[str, object]:
    """Where this is measured."""
    name = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}


def main() -> int:
    given = parse()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU that torch can use: leave --device out, or install torch for your GPU.", file=sys.stderr)
        return 1
    if given.threads:
        torch.set_num_threads(given.threads)
    on_gpu = given.device == "cuda"
    config = load_config(given.model)
    types = [TYPES[name] for name in given.dtype or (["float16"] if on_gpu else ["float32"])]
    sizes = [tuple(int(side) for side in size.split("x")) for size in given.size]
    clips = [Clip(frames, *size, given.steps or (50 if on_gpu else 2)) for size in sizes for frames in given.frames]  # type: ignore[call-arg]
    parts = given.parts if given.parts is not None else [part for part in PARTS if part != "image" or config.projector]
    given.output.mkdir(parents=True, exist_ok=True)

    described, rows, points = machine(given), list[Row](), list[Point]()
    rates: dict[torch.dtype, float] = {}
    for dtype in types if parts else ():
        used = computing_type(given.device, dtype)
        rates[dtype] = described[f"operations a second, {short(used)}"] = matrix_rate(given.device, used)
        print(f"{short(dtype)}: {rates[dtype] / 1e12:.3f}e12 operations a second in a product of matrices of {short(used)}", flush=True)
    for part in parts:
        if part == "load":
            for dtype in types:
                rows.append(load_row(config, given, dtype, clips[0]))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
        else:
            rows += rows_of(config, part, given, rates, clips if part in ("step", "decode", "clip") else clips[:1])
    if not given.no_sweep:
        points = sweep(config, types[-1])
        plot(given.output / "cost.png", points, config.name, short(types[-1]))
    described["most memory of this process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report = "\n\n".join([table(rows), ratios(rows)])
    (given.output / "table.md").write_text(report + "\n")
    write_json(given.output / "results.json", described, rows, points)
    print("\n" + report + f"\n\nWritten to {given.output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
