"""``python -m benchmarks.deep_cache``: what reusing deep features saves, and what it changes.

Two models, each run whole and then with every setting from the same noise: the bundled one, whose clips are judged by their pixels, and
one of a published model's shapes, whose random weights have learned nothing, so that only the deviation of its latent can be told.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import vc_core
from harness.judge import as_pixels, judge  # the same judge that the tests hold the bundled models to
from vc_core.config import ModelConfig, load_config, published
from vc_core.diffusion.deep_cache import DeepCache
from vc_core.diffusion.guidance import Conditioning, Guidance, guided_denoiser
from vc_core.diffusion.samplers import DDIMTables, ddim_sample, seeded_noise
from vc_core.diffusion.schedule import Schedule

from .floor import flops
from .models import random_networks
from .parts import Clip, conditioning

#: Every how many steps the deep blocks run.
INTERVALS = (2, 3, 5, 8)
#: How many of the first and last blocks run at all of them: of the bundled model's 4, and of a published one's 12.
BUNDLED_BLOCKS, WHOLE_BLOCKS = (1, 2), (1, 3)
BUNDLED, STEPS = "videocrafter_tiny_t2v", 25
SENTENCES = [
    f"a {colour} {shape} moving {direction}"
    for colour, shape, direction in zip(
        ("red", "green", "blue", "yellow", "white", "purple") * 2,
        ("circle", "square", "triangle") * 4,
        ("right",) * 3 + ("left",) * 3 + ("up",) * 3 + ("down",) * 3,
        strict=True,
    )
]


@dataclass(frozen=True)
class Result:
    """One setting.

    Attributes:
        interval, blocks: see :class:`DeepCache`; an interval of 1 is the whole run.
        seconds: of the sampling; of all threads on a processor, where other programs may run as well, by the clock on a GPU.
        deviation: of the latent from the whole run's: the root of the mean square of the difference, over that of the latent.
        operations: share of the whole run's products and convolutions.
        right: of the clips, the share with the colour, shape and direction of their sentence; none for random weights.
    """

    model: str
    interval: int
    blocks: int
    seconds: float
    operations: float
    deviation: float
    right: float | None


def settings(choices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Interval and blocks, that of the whole run first."""
    yield 1, choices[-1]
    for blocks in choices:
        for interval in INTERVALS:
            yield interval, blocks


def operations(config: ModelConfig, clip: Clip, interval: int, blocks: int) -> float:
    """What a run's products and convolutions are of the whole run's, counted on ``meta``."""
    unet = random_networks(config, ["unet"], "meta", torch.float32)["unet"]
    given, x = conditioning(config, clip, "meta", torch.float32), torch.empty(clip.latent(config), device="meta")
    at = torch.full((1,), 500, device="meta")
    cache = DeepCache(2, blocks)
    denoise = guided_denoiser(unet, given, given, Guidance(), torch.float32, deep_cache=cache)  # type: ignore[arg-type]
    full, shallow = (flops(lambda: denoise(x, at)) for _ in range(2))  # every second pass is shallow
    wholes = -(-clip.steps // interval)
    return (wholes * full + (clip.steps - wholes) * shallow) / (clip.steps * full)


def compared(
    name: str,
    config: ModelConfig,
    clip: Clip,
    choices: Sequence[int],
    device: str,
    sample: Callable[[DeepCache], Tensor],
    right: Callable[[Tensor], float | None],
) -> list[Result]:
    """Sample with every setting; ``choices`` are of blocks."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    results, whole = [], torch.empty(0)
    sample(DeepCache(INTERVALS[-1], choices[-1]))  # what is slower the first time would count for the whole run
    for interval, blocks in settings(choices):
        start = clock()
        latent = sample(DeepCache(interval, blocks)).cpu()  # waits for a GPU
        seconds = clock() - start
        whole = latent if interval == 1 else whole
        deviation = ((latent - whole).square().mean() / whole.square().mean()).sqrt().item()
        share = operations(config, clip, interval, blocks)
        results.append(Result(name, interval, blocks, seconds, share, deviation, right(latent)))
        print(table(results, results[-1:]).splitlines()[-1], flush=True)
    return results


@torch.inference_mode()
def bundled(device: str) -> list[Result]:
    """The bundled model at the settings that its tests judge it at, eta 0, so that runs differ by what is reused only."""
    model = vc_core.load(BUNDLED, device=device)
    own = model.config.sampling
    clip = Clip(own.frames, own.height, own.width, STEPS)
    shape = (len(SENTENCES), *clip.latent(model.config)[1:])
    rates = torch.full((len(SENTENCES),), 8.0, device=model.device)
    positive, negative = (
        Conditioning(model.encode_text(prompts), fps=rates) for prompts in (SENTENCES, [""] * len(SENTENCES))
    )
    tables = DDIMTables.make(model.schedule, model.schedule.spaced(STEPS, own.spacing), eta=0.0)

    def sample(cache: DeepCache) -> Tensor:
        noise = seeded_noise(shape, seed=0)
        denoise = guided_denoiser(model.unet, positive, negative, Guidance(4.0), model.dtype, deep_cache=cache)
        return ddim_sample(denoise, next(noise).to(model.device), tables, noise)

    def right(latent: Tensor) -> float:
        verdicts = [judge(as_pixels(video.cpu().numpy())) for video in model.decode(latent)]
        seen = [f"a {verdict.colour} {verdict.shape} moving {verdict.direction}" for verdict in verdicts]
        return sum(map(str.__eq__, seen, SENTENCES)) / len(seen)

    return compared(BUNDLED, model.config, clip, BUNDLED_BLOCKS, device, sample, right)


@torch.inference_mode()
def whole(name: str, clip: Clip, device: str, dtype: torch.dtype) -> list[Result]:
    """A model of published shapes, under guidance, eta 0."""
    config = load_config(name)
    unet = random_networks(config, ["unet"], device, dtype)["unet"]
    torch.manual_seed(0)
    positive, negative = (conditioning(config, clip, device, dtype) for _ in range(2))
    schedule = Schedule.from_config(config.schedule)
    tables = DDIMTables.make(schedule, schedule.spaced(clip.steps, config.sampling.spacing), eta=0.0)

    def sample(cache: DeepCache) -> Tensor:
        noise = seeded_noise(clip.latent(config), seed=0)
        denoise = guided_denoiser(unet, positive, negative, Guidance(config.sampling.guidance_scale), dtype, deep_cache=cache)  # type: ignore[arg-type]
        return ddim_sample(denoise, next(noise).to(device), tables, noise)

    return compared(f"{name}, random weights", config, clip, WHOLE_BLOCKS, device, sample, lambda latent: None)


def table(results: Sequence[Result], shown: Sequence[Result] | None = None) -> str:
    """In Markdown, times as shares of the whole run's."""
    lines = ["| model | whole every | blocks | of the operations | of the time | deviation of the latent | right |"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    full = {result.model: result.seconds for result in results if result.interval == 1}
    for result in results if shown is None else shown:
        right = "" if result.right is None else f"{result.right:.0%}"
        share = result.seconds / full[result.model]
        every = "step" if result.interval == 1 else f"{result.interval} steps"
        blocks = "all" if result.interval == 1 else result.blocks
        lines.append(f"| {result.model} | {every} | {blocks} | {result.operations:.2f} | {share:.2f} | {result.deviation:.3f} | {right} |")
    return "\n".join(lines)


def plot(path: Path, results: Sequence[Result]) -> None:
    """The latent's deviation over the arithmetic that is saved, a curve for each number of blocks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(result.model for result in results))
    figure, axes = pyplot.subplots(1, len(names), figsize=(5 * len(names), 4), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        own = [result for result in results if result.model == name]
        for blocks in dict.fromkeys(each.blocks for each in own[1:]):
            curve = [own[0]] + [result for result in own if result.interval > 1 and result.blocks == blocks]
            label = f"{blocks} block{'s' * (blocks > 1)} at every step"
            axis.plot([1 / each.operations for each in curve], [each.deviation for each in curve], "o-", label=label)
            for each in curve[1:]:
                wrong = "" if each.right in (None, 1.0) else f" ({each.right:.0%} right)"
                place = (1 / each.operations, each.deviation)
                axis.annotate(f"{each.interval}{wrong}", place, xytext=(-4, 4), textcoords="offset points", fontsize=8, ha="right")
        axis.set(title=name, xlabel="times fewer operations than the whole run", ylabel="deviation of the latent", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(title="numbers: whole every N steps")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.deep_cache", description=__doc__)
    parser.add_argument("--model", default="t2v_512_v2", choices=published(), help="whose shapes the whole model has")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", default="128x128", metavar="HxW", help="of the whole model's clip, in pixels")
    parser.add_argument("--frames", type=int, default=4, help="of the whole model's clip")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the whole model's clip")
    parser.add_argument("--only-bundled", action="store_true", help="leave the whole model out")
    parser.add_argument("--output", type=Path, default=Path("benchmarks_output"), help="folder for the table, JSON and plot")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    results = bundled(given.device)
    if not given.only_bundled:
        height, width = (int(side) for side in given.size.split("x"))
        dtype = torch.float16 if given.device == "cuda" else torch.float32
        results += whole(given.model, Clip(given.frames, height, width, given.steps), given.device, dtype)
    (given.output / "deep_cache.md").write_text(table(results) + "\n")
    (given.output / "deep_cache.json").write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    plot(given.output / "deep_cache.png", results)
    print(f"\n{table(results)}\n\nWritten to {given.output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
