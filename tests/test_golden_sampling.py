"""Schedules, and whole runs from recorded noise, are the reference's."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import vc_core
from harness import goldens
from vc_core.config import load_config
from vc_core.diffusion.samplers import Tables
from vc_core.diffusion.schedule import Schedule


@pytest.mark.parametrize("name", goldens.MODELS)
def test_schedule(name):
    golden = goldens.read(name, "schedule")
    schedule = Schedule.from_config(load_config(name).schedule)
    assert torch.equal(schedule.alphas_cumprod, golden["alphas_cumprod"])
    if "scale_arr" in golden:
        assert goldens.error(schedule.scale, golden["scale_arr"][:1000]) <= 1e-6
    runs = sorted({key.rsplit(".", 1)[0] for key in golden if "." in key})
    assert len(runs) == (6 if name in goldens.DYNAMICRAFTER else 12)
    for run in runs:
        # "50.0.5" is steps and eta, "uniform_trailing.50" spacing and steps with an eta of 1.
        first, second = run.split(".", 1)
        spacing, steps, eta = (first, second, "1") if first.startswith("uniform") else ("uniform", first, second)
        tables = Tables.make(schedule, schedule.spaced(int(steps), spacing), float(eta))
        for field in ("timesteps", "alphas", "alphas_prev", "sigmas", "scale", "scale_prev"):
            if f"{run}.{field}" in golden:
                expected = golden[f"{run}.{field}"]
                assert torch.allclose(getattr(tables, field).double(), expected.double(), rtol=1e-6, atol=1e-6), (run, field)


@pytest.mark.parametrize("steps", [1, 2, 27, 37, 333, 999, 1000])
def test_uniform_spacing_stays_inside_the_table(steps):
    visited = Schedule.from_config(load_config("t2v_512_v2").schedule).uniform(steps)
    assert (visited.diff() > 0).all() or steps in (999, 1000)
    assert visited[0] == 1 and visited[-1] <= 999 and len(visited) >= steps


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_uniform_spacing_refuses(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}; it can be 1 to 1000"):
        Schedule.from_config(load_config("t2v_512_v2").schedule).uniform(steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 27, 333, 999, 1000])
def test_trailing_spacing_ends_at_the_last_timestep(steps):
    visited = Schedule.from_config(load_config("dynamicrafter_512_v1").schedule).uniform_trailing(steps)
    assert len(visited) == steps and visited[-1] == 999 and visited[0] >= 0 and (visited.diff() > 0).all()


def test_an_unknown_spacing_is_refused():
    with pytest.raises(ValueError, match="'karras'; it can be uniform or uniform_trailing"):
        Schedule.from_config(load_config("t2v_512_v2").schedule).spaced(10, "karras")


@pytest.mark.parametrize("run", ["0", "1", "2"])
@pytest.mark.parametrize("name", goldens.VIDEOCRAFTER)
def test_runs(name, run, tmp_path):
    golden = goldens.read(name, "sampling")
    steps, eta, scale, fps = golden[f"{run}.settings"].tolist()
    predicted, samples = [], []

    def watch(step, total, x0, x):
        assert (step, total) == (len(predicted), int(steps))
        predicted.append(x0)
        samples.append(x)

    model = vc_core.load(goldens.write_checkpoint(name, tmp_path / "model.safetensors"))
    make = model.text_to_video
    if name == "i2v_512_v1":
        make = partial(model.image_to_video, goldens.read(name, "encoders")["photo"][:1])
    video = make(
        goldens.PROMPTS[0], goldens.PROMPTS[2], steps=int(steps), eta=eta, guidance_scale=scale, fps=fps,
        x_T=golden[f"{run}.x_T"], step_noise=golden[f"{run}.noise"], callback=watch,
    )  # fmt: skip
    for ours, theirs in zip(predicted, golden[f"{run}.pred_x0"], strict=True):
        assert goldens.error(ours, theirs) <= goldens.TOLERANCE
    assert goldens.error(samples[-1], golden[f"{run}.latent"]) <= goldens.TOLERANCE
    assert (video - golden[f"{run}.video"].float().clamp(-1, 1)).abs().max() <= goldens.PIXEL_TOLERANCE


@pytest.mark.parametrize("run", ["0", "1", "2"])
@pytest.mark.parametrize("name", goldens.DYNAMICRAFTER)
def test_dynamicrafter_runs(name, run, tmp_path):
    """The third run has guidance by the picture of its own, and a last picture that is recorded as its latent only."""
    golden, encoders = goldens.read(name, "sampling"), goldens.read(name, "encoders")
    steps, eta, scale, rate, trailing, rescale, image_scale = golden[f"{run}.settings"].tolist()
    model = vc_core.load(goldens.write_checkpoint(name, tmp_path / "model.safetensors"))
    concat = golden[f"{run}.concat"]
    if run != "2":
        assert goldens.error(model.keyframe_latents(encoders["photo"], None, 8, 64, 64), concat) <= goldens.TOLERANCE
    model.keyframe_latents = lambda *_: concat
    seen = []
    model.image_to_video(
        encoders["photo"], *goldens.prompts(name), steps=int(steps), eta=eta, guidance_scale=scale, guidance_rescale=rescale, fps=rate,
        spacing="uniform_trailing" if trailing else "uniform", image_guidance_scale=image_scale or None,
        x_T=golden[f"{run}.x_T"], step_noise=golden[f"{run}.noise"], callback=lambda step, total, x0, x: seen.append(x),
    )  # fmt: skip
    assert len(seen) == len(golden[f"{run}.noise"])
    assert goldens.error(seen[-1], golden[f"{run}.latent"]) <= goldens.TOLERANCE
