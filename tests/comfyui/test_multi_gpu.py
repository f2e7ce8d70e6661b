"""Core's MultiGPU CFG Split and device selection, with the processor as two devices: the results are those of one.

A second GPU is what this can't show: that copies between devices are complete when they are read, and the gain in time.
"""

from __future__ import annotations

import json

import pytest
import torch

from harness.bench import APART, BUNDLED, DYNAMICRAFTER, T2V, Bench, apart, same
from harness.graphs import out
from tests.comfyui.test_options import SIZE


def recorded(comfyui, file: str) -> list[list]:
    return [json.loads(line) for line in (comfyui.base / "output" / file).read_text().splitlines()]


def check_devices(lines: list[list], steps: int) -> None:
    """Each step has a pass on either device, in its own thread, by a model of its own."""
    assert len(lines) == 2 * steps
    for column in range(3):
        assert len({line[column] for line in lines}) == 2
    assert {line[0] for line in lines} == {"cpu", "cpu:0"}


@pytest.mark.parametrize("model", [BUNDLED, pytest.param(T2V, marks=pytest.mark.full), pytest.param(DYNAMICRAFTER, marks=pytest.mark.full)])
def test_guidance_on_two_devices(comfyui, model):
    """With and without DeepCache. On one device core runs both passes in one batch, whose kernels round otherwise."""
    bench = Bench(comfyui, model, size=64 if model == BUNDLED else SIZE)
    cached = out(bench.add("VideoCrafterDeepCache", model=bench.model, interval=2, blocks=1, start_percent=0.0, end_percent=1.0))
    kinds = {"plain": bench.model, "deep cache": cached}
    for name, patched in kinds.items():
        file = f"devices_{name}.jsonl".replace(" ", "_")
        split = out(bench.add("TestTwoDevices", model=patched, file=file))
        bench.save(f"{name} one", latent=bench.ksampler(model=patched, steps=4, cfg=3.0))
        bench.save(f"{name} two", latent=bench.ksampler(model=split, steps=4, cfg=3.0))
    results = bench.results()
    for name in kinds:
        same(results[f"{name} two"], results[f"{name} one"])
        check_devices(recorded(comfyui, f"devices_{name}.jsonl".replace(" ", "_")), steps=4)
    assert apart(results["deep cache two"], results["plain two"]) > APART


def test_patches_and_samplers_of_ours_on_two_devices(comfyui):
    """What hooks into the network, and a sampler that runs several times; all read what belongs to their own pass."""
    bench = Bench(comfyui, BUNDLED, frames=16)
    text = {"subject": "circle", "prompt": "a red circle", "paths": "[[[12, 32], [52, 32]]]"}
    trajectory = {"method": "FreeTraj", "box_size": 0.4, "edited_steps": 2, "noise_seed": 0} | text
    strength = {"strength": 0.5, "blocks": "all", "strengths": ""}
    freeinit = {"iterations": 2, "filter": "gaussian", "spatial_stop": 0.4, "temporal_stop": 0.3, "fast": False}
    sampler = out(bench.add("VideoCrafterFreeInit", sampler=out(bench.add("VideoCrafterDDIM", eta=1.0)), **freeinit))
    models = {
        "trajectory": out(bench.add("VideoCrafterTrajectory", model=bench.model, latent=bench.latent, clip=bench.clip, **trajectory)),
        "strength": out(bench.add("VideoCrafterMotionStrength", model=bench.model, **strength)),
        "freeinit": bench.model,
    }
    for name, model in models.items():
        split = out(bench.add("TestTwoDevices", model=model, file=f"patches_{name}.jsonl"))
        for kind, each in (("one", model), ("two", split)):
            latent = bench.ksampler(model=each, steps=4, cfg=3.0)
            if name == "freeinit":
                sigmas = out(bench.add("VideoCrafterScheduler", model=each, steps=4, denoise=1.0))
                given = {"positive": bench.positive, "negative": bench.negative, "latent_image": bench.latent}
                latent = out(bench.add(
                    "SamplerCustom", model=each, add_noise=True, noise_seed=0, cfg=3.0, sampler=sampler, sigmas=sigmas, **given
                ))
            bench.save(f"{name} {kind}", latent=latent)
    bench.save("plain", latent=bench.ksampler(steps=4, cfg=3.0))
    results = bench.results()
    for name in models:
        same(results[f"{name} two"], results[f"{name} one"])
        check_devices(recorded(comfyui, f"patches_{name}.jsonl"), steps=8 if name == "freeinit" else 4)
        assert apart(results[f"{name} two"], results["plain"]) > APART


def test_text_and_images_on_another_device(comfyui):
    """CLIP and VAE, loaded again for the second device, encode and decode what the first ones do."""
    bench = Bench(comfyui, BUNDLED)
    moved = bench.add("TestReloaded", clip=bench.clip, vae=bench.vae)
    latent = bench.authors(steps=2)
    bench.save("image", image=bench.decode(latent))
    bench.vae = out(moved, 1)
    bench.save("image moved", image=bench.decode(latent))
    for name, clip in (("one", bench.clip), ("two", out(moved))):
        text = out(bench.add("CLIPTextEncode", clip=clip, text="a red circle"))
        bench.save(f"text {name}", latent=bench.authors(steps=2, positive=bench.with_fps(text, bench.latent, fps=8.0)))
    results = bench.results()
    assert torch.equal(results["image moved"], results["image"])
    assert torch.equal(results["text two"], results["text one"])
