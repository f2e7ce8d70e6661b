"""``python -m benchmarks.deep_cache``: what reusing deep features saves, and what it changes.

Two models, each with every setting from the same noise: a bundled one, whose clips are judged by their pixels, and one of a
published model's shapes with random weights, of which only the deviation of the latents can be measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import vc_core
from harness.judge import as_pixels, judge  # the same judge that the tests hold the bundled models to
from vc_core.config import ModelConfig, load_config, published
from vc_core.diffusion.deep_cache import DeepCache
from vc_core.diffusion.denoiser import GuidedDenoiser
from vc_core.diffusion.guidance import Guidance
from vc_core.models.conditioning import Conditioning
from vc_core.sampling import Sampling

from .floor import flops
from .models import random_model, random_networks
from .parts import Clip, conditioning

#: A full UNet pass every so many steps.
INTERVALS = (2, 3, 5, 8)
#: How many of the first and last blocks run at every step: of the bundled model's 4, and of a published one's 12.
BUNDLED_BLOCKS, PUBLISHED_BLOCKS = (1, 2), (1, 3)
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
        interval, blocks: see :class:`DeepCache`; with an interval of 1 every pass is a full one.
        seconds: of the sampling; of all threads on a CPU, where other programs may run as well, by the clock on a GPU.
        deviation: of the latents from those of the full run: the root of the mean square of the difference, over that of the latents.
        operations: share of the full run's products and convolutions.
        right: of the clips, the share with the colour, shape and direction of their sentence; None for random weights.
    """

    model: str
    interval: int
    blocks: int
    seconds: float
    operations: float
    deviation: float
    right: float | None


def settings(choices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Interval and blocks, those of the full run first."""
    yield 1, choices[-1]
    for blocks in choices:
        for interval in INTERVALS:
            yield interval, blocks


def operations(config: ModelConfig, clip: Clip, interval: int, blocks: int) -> float:
    """The share of the full run's products and convolutions, counted on ``meta``."""
    unet = random_networks(config, ["unet"], "meta", torch.float32)["unet"]
    given, x = conditioning(config, clip, "meta", torch.float32), torch.empty(clip.latent(config), device="meta")
    timesteps = torch.full((1,), 500, device="meta")
    denoise = GuidedDenoiser(unet, given, given, Guidance(), deep_cache=DeepCache(2, blocks))  # type: ignore[arg-type]
    full, shallow = (flops(lambda: denoise(x, timesteps)) for _ in range(2))  # every second pass is shallow
    full_steps = -(-clip.steps // interval)
    return (full_steps * full + (clip.steps - full_steps) * shallow) / (clip.steps * full)


def compare(
    name: str,
    config: ModelConfig,
    run: Sampling,
    choices: Sequence[int],
    sample: Callable[[Sampling], Tensor],
    right: Callable[[Tensor], float | None],
) -> list[Result]:
    """Sample with every setting.

    Args:
        choices: numbers of blocks that run at every step.
        sample: makes the latents of a run.
        right: the share of latents that show what they should, see :class:`Result`.
    """
    clip = Clip(run.frames, run.height, run.width, run.steps)
    results, reference = [], torch.empty(0)
    sample(replace(run, deep_cache_interval=INTERVALS[-1], deep_cache_blocks=choices[-1]))  # what is slower only once
    for interval, blocks in settings(choices):
        start = time.perf_counter(), time.process_time()
        latents = sample(replace(run, deep_cache_interval=interval, deep_cache_blocks=blocks))
        on_cpu = latents.device.type == "cpu"
        latents = latents.cpu()  # waits for a GPU
        seconds = time.process_time() - start[1] if on_cpu else time.perf_counter() - start[0]
        reference = latents if interval == 1 else reference
        deviation = ((latents - reference).square().mean() / reference.square().mean()).sqrt().item()
        share = operations(config, clip, interval, blocks)
        results.append(Result(name, interval, blocks, seconds, share, deviation, right(latents)))
        print(table(results, results[-1:]).splitlines()[-1], flush=True)
    return results


def bundled(device: str) -> list[Result]:
    """The bundled model with the settings that its tests use, but eta 0, so that runs differ by what is reused only."""
    model = vc_core.load(BUNDLED, device=device)
    run = Sampling.of(model.config, steps=STEPS, eta=0.0, guidance_scale=4.0, fps=8.0)
    positive, negative = (Conditioning(model.encode_text(prompts)) for prompts in (SENTENCES, [""] * len(SENTENCES)))

    def right(latents: Tensor) -> float:
        verdicts = [judge(as_pixels(video.cpu().numpy())) for video in model.decode(latents)]
        seen = [f"a {verdict.colour} {verdict.shape} moving {verdict.direction}" for verdict in verdicts]
        return sum(map(str.__eq__, seen, SENTENCES)) / len(seen)

    return compare(BUNDLED, model.config, run, BUNDLED_BLOCKS, lambda run: model.sample(positive, negative, sampling=run), right)


def published_sizes(name: str, clip: Clip, device: str, dtype: torch.dtype) -> list[Result]:
    """A model of published shapes, under guidance, eta 0."""
    config = load_config(name)
    model = random_model(config, ["unet"], device, dtype)
    run = Sampling.of(config, frames=clip.frames, height=clip.height, width=clip.width, steps=clip.steps, eta=0.0)
    torch.manual_seed(0)
    positive, negative = (conditioning(config, clip, device, model.dtype) for _ in range(2))

    def sample(run: Sampling) -> Tensor:
        return model.sample(positive, negative, sampling=run)

    return compare(f"{name}, random weights", config, run, PUBLISHED_BLOCKS, sample, lambda latents: None)


def table(results: Sequence[Result], shown: Sequence[Result] | None = None) -> str:
    """In Markdown, times as shares of the full run's."""
    lines = ["| model | full UNet every | blocks | of the operations | of the time | deviation of the latents | right |"]
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
    """The latents' deviation over the arithmetic that is saved, a curve for each number of blocks."""
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
        axis.set(title=name, xlabel="times fewer operations than the full run", ylabel="deviation of the latents", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(title="numbers: full UNet every N steps")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.deep_cache", description=__doc__)
    parser.add_argument("--model", default="t2v_512_v2", choices=published(), help="the published model whose shapes are taken")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", default="128x128", metavar="HxW", help="size of its clip, in pixels")
    parser.add_argument("--frames", type=int, default=4, help="frames of its clip")
    parser.add_argument("--steps", type=int, default=STEPS, help="sampling steps of its clip")
    parser.add_argument("--only-bundled", action="store_true", help="measure the bundled model only")
    parser.add_argument("--output", type=Path, default=Path("benchmarks_output"), help="folder for the table, JSON and plot")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    results = bundled(given.device)
    if not given.only_bundled:
        height, width = (int(side) for side in given.size.split("x"))
        dtype = torch.float16 if given.device == "cuda" else torch.float32
        results += published_sizes(given.model, Clip(given.frames, height, width, given.steps), given.device, dtype)
    (given.output / "deep_cache.md").write_text(table(results) + "\n")
    (given.output / "deep_cache.json").write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    plot(given.output / "deep_cache.png", results)
    print(f"\n{table(results)}\n\nWritten to {given.output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
