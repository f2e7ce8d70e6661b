"""Previews, progress and cancelling."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ..bench import BUNDLED, DYNAMICRAFTER, T2V, T2V_V1, Bench, Link
from ..client import Interrupted, Progress
from ..graphs import out
from .table import WATCHING, Check, row

#: Options of a server for the rows with previews; without TAESD's file it is latent2rgb.
PREVIEWS = ("--preview-method", "taesd")


def foreseen(bench: Bench, seconds: float, model: Link | None = None) -> Link:
    """A latent of frames that differ, which the bench's model (or another) from now on predicts at each step, in this many seconds."""
    frames = 4 * torch.randn(bench.videos * bench.frames, 4, 8, 8, generator=torch.manual_seed(1))
    latent = bench.tensor_input("TestLatent", "latent", frames)
    bench.model = out(bench.add("TestForeseen", model=model or bench.model, latent=latent, seconds=seconds))
    return latent


def shown(bench: Bench, stills: Tensor, node: str) -> list[list[int]]:
    """Of which frames the previews of a node's steps were, step by step; each looks like one of the stills ``[T, H, W, 3]``."""
    steps: list[list[int]] = []
    at = None
    for event in bench.events:
        if isinstance(event, Progress):
            at = event.node_id
            steps += [[]] if at == node else []
        elif at == node:
            preview = Image.open(io.BytesIO(event)).convert("RGB")
            sized = [Image.fromarray((still.numpy() * 255).round().astype(np.uint8)).resize(preview.size, 2) for still in stills]
            away = [np.abs(np.asarray(preview, float) - np.asarray(still, float)).mean() for still in sized]
            assert sorted(away)[1] > 4 * min(away), away  # JPEG takes a little
            steps[-1].append(int(np.argmin(away)))
    return steps


def moves(bench: Bench) -> Check:
    """Each sampler shows the frames of the first video in turn during its second and last step, as the first step foretold them."""
    latent = foreseen(bench, seconds=1.0)
    bench.save("stills", image=out(bench.add("TestStills", latent=bench.frames_of(latent, 0, bench.frames))))
    custom = bench.sample_custom(
        noise=out(bench.add("RandomNoise", noise_seed=0)), sampler=out(bench.add("KSamplerSelect", sampler_name="euler")), cfg=1.0,
        sigmas=out(bench.add("BasicScheduler", model=bench.model, scheduler="normal", steps=2, denoise=1.0)),
    )
    samplers = {"KSampler": bench.ksampler(steps=2), "SamplerCustomAdvanced": custom, "VideoCrafter Sampler": bench.authors(steps=2)}
    for name, sampled in samplers.items():
        bench.save(name, latent=sampled)

    def check(results: dict[str, Tensor]) -> None:
        for name, (node, _) in samplers.items():
            first, last = shown(bench, results["stills"], node)
            assert len(set(first)) > 1, (name, first)
            assert all((after - before) % bench.frames in (0, 1) for before, after in pairwise(first)), (name, first)
            # The frame that a step sends itself may come after the next one's turn.
            assert (last[0] - first[-1]) % bench.frames in (0, 1, bench.frames - 1), (name, first, last)

    return check


@row(
    WATCHING, "previews (latent2rgb)",
    "while KSampler, SamplerCustomAdvanced or VideoCrafter Sampler runs, its node shows the frames of the first video in turn",
    T2V, DYNAMICRAFTER, videos=2, flags=PREVIEWS,
)
def moving_previews(bench: Bench) -> Check:
    for path in (bench.comfyui.base / "models" / "vae_approx").glob("*"):
        path.unlink()
    return moves(bench)


@row(WATCHING, "previews (TAESD)", "the same", T2V, videos=2, flags=PREVIEWS)
def moving_previews_by_taesd(bench: Bench) -> Check:
    bench.comfyui.run({"1": {"class_type": "TestTAESD", "inputs": {}}})
    return moves(bench)


@row(WATCHING, "previews of core's models", "the first image of a batch at each step, as without this pack", T2V_V1, flags=PREVIEWS)
def previews_of_others(bench: Bench) -> Check:
    bench.save("ours", latent=bench.one_step())  # our way of showing has been made known
    latent = foreseen(bench, seconds=0.5, model=out(bench.add("TestTwins", model=bench.model), 1))
    bench.save("stills", image=out(bench.add("TestStills", latent=latent)))
    sampled = bench.ksampler(steps=3)
    bench.save("core's", latent=sampled)

    def check(results: dict[str, Tensor]) -> None:
        assert shown(bench, results["stills"], sampled[0]) == [[0]] * 3

    return check


@row(WATCHING, "--preview-method none", "no previews", T2V)
def no_previews(bench: Bench) -> Check:
    foreseen(bench, seconds=0.5)
    sampled = bench.ksampler(steps=2)
    bench.save("sampled", latent=sampled)

    def check(results: dict[str, Tensor]) -> None:
        assert [event for event in bench.events if isinstance(event, bytes)] == []
        assert any(event.node_id == sampled[0] for event in bench.events)

    return check


@row(WATCHING, "progress", "steps and decoded frames are counted, each step with a preview", BUNDLED, DYNAMICRAFTER, flags=PREVIEWS)
def progress(bench: Bench) -> Check:
    core, own = bench.ksampler(steps=5), bench.authors(steps=4, seed=1)
    decoded = bench.decode(own)
    bench.save("core", latent=core)
    bench.save("own", image=decoded)

    def check(results: dict[str, Tensor]) -> None:
        steps = [event for event in bench.events if isinstance(event, Progress)]
        counted = {node: [step.value for step in steps if step.node_id == node] for node in (core[0], own[0], decoded[0])}
        assert counted[core[0]] == [1, 2, 3, 4, 5] and counted[own[0]] == [1, 2, 3, 4]
        assert counted[decoded[0]][-1] == 4 == next(step.maximum for step in steps if step.node_id == decoded[0])
        previews = [Image.open(io.BytesIO(event)) for event in bench.events if isinstance(event, bytes)]
        assert len(previews) >= 5 + 4 and all(preview.width == preview.height for preview in previews), previews
        assert min(np.asarray(preview).std() for preview in previews) > 1

    return check


@row(WATCHING, "Cancel", "ends a run within the current step", BUNDLED, frames=16)
def cancelling(bench: Bench) -> Check:
    sampler = bench.ksampler(steps=60)
    bench.add("TestSave", file="x", latent=sampler)
    values: list[int] = []
    at: list[int] = []

    def watch(progress: Progress) -> None:
        values.append(progress.value)
        if progress.value >= 2 and not at:  # a quick step may not be reported
            bench.comfyui.interrupt()
            at.append(len(values))

    with pytest.raises(Interrupted) as stopped:
        bench.comfyui.run(bench.prompt, on_progress=watch)
    assert stopped.value.node_id == sampler[0]
    # A message that was under way when the server took the order may still come.
    assert len(values) - at[0] <= 1, values
    return lambda results: None
