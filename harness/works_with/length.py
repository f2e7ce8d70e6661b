"""Context windows: videos longer than a model makes at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..bench import BUNDLED, DYNAMICRAFTER, T2V, Bench, Link, same
from ..graphs import TextGraph, out
from .table import LENGTH, Check, Claims, Line, row

CLAIMS: Claims = {
    "test_memory.test_64_frames_take_the_memory_of_16": (
        Line(LENGTH, "ContextWindowsManual with windows of 16, 64 frames", "the memory of 16 frames for a pass", (T2V, DYNAMICRAFTER)),
    ),
}


def windowed(
    graph: TextGraph,
    length: int,
    overlap: int,
    schedule: str = "standard_static",
    fuse: str = "pyramid",
    closed: bool = False,
    dim: int = 0,
) -> Link:
    """A graph's model sent through ContextWindowsManual; settings that are not named here have the node's defaults."""
    inputs = {
        "context_length": length,
        "context_overlap": overlap,
        "context_schedule": schedule,
        "fuse_method": fuse,
        "closed_loop": closed,
    }
    later = {"freenoise": False, "cond_retain_index_list": "", "split_conds_to_windows": False, "latent_retain_index_list": ""}
    rest = {"context_stride": 1, "dim": dim, "causal_window_fix": True}
    return out(graph.add("ContextWindowsManual", model=graph.model, **inputs, **rest, **later))


@row(LENGTH, "ContextWindowsManual, a window as long as the video", "the identity", T2V, DYNAMICRAFTER)
def a_window_of_all(bench: Bench) -> Check:
    bench.save("plain", latent=bench.ksampler(cfg=2.0))
    bench.save("windowed", latent=bench.ksampler(cfg=2.0, model=windowed(bench, 4, 2)))
    return lambda results: same(results["windowed"], results["plain"])


def fuse_weights(fuse: str, place: int, length: int, overlap: int, first: bool, last: bool) -> float:
    """The weight of a window for the frame at an index in it, by the description of the fuse methods."""
    if fuse == "pyramid":
        return min(place + 1, length - place)
    if fuse == "relative":
        return max(1e-2, 1 - abs(place - (length - 1) / 2) / ((length - 1 + 1e-2) / 2))
    if fuse == "overlap-linear":
        rising = 1 if first or place >= overlap else place / (overlap - 1)
        falling = 1 if last or place < length - overlap else (length - 1 - place) / (overlap - 1)
        return rising * falling
    return 1.0


@row(
    LENGTH, "ContextWindowsManual, every schedule and fuse method",
    "the weighted mean of the windows' predictions, each as if sampled alone, with its own image latents and image tokens", T2V,
    frames=8,
)
@row(LENGTH, "ContextWindowsManual, every schedule and fuse method", "as above, with an image latent per frame", DYNAMICRAFTER, frames=16)
def windows(bench: Bench) -> Check:
    with_image = bench.name == DYNAMICRAFTER
    total = 16 if with_image else 8
    length, overlap = total // 2, total // 4  # DynamiCrafter's is the number of frames that have image tokens of their own

    def run_of(start: int, count: int = length) -> list[int]:
        return [frame % total for frame in range(start, start + count)]

    overlapping = [run_of(start) for start in range(0, total - overlap, overlap)]
    cases = [("standard_static", fuse, False, length, overlap, overlapping) for fuse in ("pyramid", "relative", "flat", "overlap-linear")]
    cases += [
        ("standard_uniform", "pyramid", False, length, overlap, overlapping),
        ("looped_uniform", "pyramid", False, length, overlap, overlapping),
        ("looped_uniform", "pyramid", True, length, overlap, [*overlapping, run_of(total - overlap)]),
        ("batched", "flat", False, length, 0, [run_of(0), run_of(length)]),
        ("batched", "flat", False, length - 1, 0, [run_of(0, length - 1), run_of(length - 1, length - 1), run_of(2 * length - 2, 2)]),
    ]
    concat = torch.randn(total, 4, 8, 8, generator=torch.manual_seed(4))
    if with_image:
        bench.positive = bench.with_concat(concat)
    for number, (schedule, fuse, closed, size, shared, _) in enumerate(cases):
        bench.save(f"case {number}", latent=bench.one_step(model=windowed(bench, size, shared, schedule, fuse, closed)))

    blank = bench.tensor_input("TestLatent", "latent", torch.zeros(total, 4, 8, 8))
    for frames in {tuple(window) for case in cases for window in case[-1]}:
        before = [frame for frame in frames if frame >= frames[0]]
        part = bench.frames_of(blank, frames[0], len(before))
        if len(before) < len(frames):  # it goes round
            part = out(bench.add("LatentBatch", samples1=part, samples2=bench.frames_of(blank, 0, len(frames) - len(before))))
        alone = bench.one_video(len(frames), concat[list(frames)] if with_image else None)
        bench.save(f"window {frames}", latent=bench.one_step(latent_image=part, positive=alone, negative=alone))

    def check(results: dict[str, Tensor]) -> None:
        for number, (_, fuse, _, _, shared, chosen) in enumerate(cases):
            fused, weight = torch.zeros(total, 4, 8, 8), torch.zeros(total, 1, 1, 1)
            for frames in chosen:
                said = results[f"window {tuple(frames)}"]
                for place, frame in enumerate(frames):
                    part = fuse_weights(fuse, place, len(frames), shared, 0 in frames, total - 1 in frames)
                    fused[frame] += part * said[place]
                    weight[frame] += part
            same(results[f"case {number}"], fused / weight)

    return check


@row(
    LENGTH,
    "ContextWindowsManual as it is set at first",
    "32 frames of a model of 16, each with the red circle that was asked for",
    BUNDLED,
    frames=32,
)
def a_long_video(bench: Bench) -> Check:
    bench.save("frames", image=bench.decode(bench.ksampler(steps=8, cfg=4.0, model=windowed(bench, 16, 4))))

    def check(results: dict[str, Tensor]) -> None:
        red, green, blue = results["frames"].unbind(-1)
        shown = (red > 0.5) & (green < 0.4) & (blue < 0.4)
        area = shown.float().mean(dim=(1, 2))
        assert len(area) == 32 and area.min() > 0.01 and area.max() < 0.3, area

    return check
