"""Schedules, and sampling runs from recorded noise, are the reference's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness import golden_contents, golden_runs, goldens
from harness.goldens import PASS_TOLERANCE, PIXEL_TOLERANCE, RUN_TOLERANCE, recording
from vc_core.config import load_config
from vc_core.diffusion.schedule import Schedule

RUNS = [(name, run) for name in goldens.models() for run in golden_contents.runs(recording(name))]
FIELDS = ("timesteps", "alphas", "alphas_prev", "sigmas", "scale", "scale_prev")


@pytest.mark.golden
@pytest.mark.parametrize("name", [name for name in goldens.models() if recording(name).has("schedule")])
def test_schedule(name):
    golden, model = goldens.read(name, "schedule"), goldens.load(name)
    if "alphas_cumprod" in golden:
        assert torch.equal(model.schedule.alphas_cumprod, golden["alphas_cumprod"])
    if "scale_arr" in golden:  # the reference's table is longer than the schedule
        assert goldens.error(model.schedule.scale, golden["scale_arr"][: model.schedule.timesteps]) <= 1e-6
    for run in sorted({key.rsplit(".", 1)[0] for key in golden if "." in key}):
        # "50.0.5" is steps and eta, "uniform_trailing.50" spacing and steps with an eta of 1.
        first, second = run.split(".", 1)
        spacing, steps, eta = (first, second, "1") if first.startswith("uniform") else ("uniform", first, second)
        tables = golden_runs.tables(model, int(steps), spacing, float(eta))
        for field in FIELDS:
            if f"{run}.{field}" in golden:
                expected = golden[f"{run}.{field}"]
                assert torch.allclose(getattr(tables, field).double(), expected.double(), rtol=1e-6, atol=1e-6), (run, field)


@pytest.mark.parametrize("name", goldens.MODELS)
def test_published_configurations_have_the_recorded_schedule(name):
    assert goldens.load(name).config.schedule == load_config(name).schedule


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


def test_trailing_timesteps_of_every_count_are_the_reference_s():
    """numpy's range steps by the same rounded difference; for some counts it has one value more, below 0."""
    schedule = Schedule.from_config(load_config("dynamicrafter_512_v1").schedule)
    longer = 0
    for steps in range(1, 1001):
        expected = np.round(np.arange(1000, 0, -1000 / steps)) - 1
        longer += len(expected) > steps
        assert schedule.uniform_trailing(steps).flip(0).tolist() == expected[:steps].tolist(), steps
        assert (expected[steps:] == -1).all()
    assert longer == 62


def test_an_unknown_spacing_is_refused():
    with pytest.raises(ValueError, match="'karras'; it can be uniform or uniform_trailing"):
        Schedule.from_config(load_config("t2v_512_v2").schedule).spaced(10, "karras")


@pytest.mark.golden
@pytest.mark.parametrize("name, run", RUNS)
def test_runs(name, run, agrees):
    """DynamiCrafter's third run in the repository guides by text and image separately, and ends with an image known as its latent only."""
    golden, model = goldens.read(name, "sampling"), goldens.load(name)
    result = golden_runs.run_sampling(model, recording(name), run)
    if f"{run}.pred_x0" in golden:
        for ours, theirs in zip(result.predictions, golden[f"{run}.pred_x0"], strict=True):
            agrees(name, "predictions", ours, theirs, RUN_TOLERANCE)
    if f"{run}.latent" in golden:
        agrees(name, "latent", result.latent, golden[f"{run}.latent"], RUN_TOLERANCE)
    if f"{run}.video" in golden:
        agrees(name, "pixels / 255", result.video, golden[f"{run}.video"], PIXEL_TOLERANCE)


@pytest.mark.golden
@pytest.mark.parametrize("name, run", [(name, run) for name, run in RUNS if name in goldens.DYNAMICRAFTER])
def test_keyframe_latents(name, run):
    """At every frame for image to video, at the first frame where the recorded latents have another image at the last one."""
    recorded = recording(name)
    concat, model = recorded.read("sampling")[f"{run}.concat"], goldens.load(name)
    size = [side * model.config.downscale for side in concat.shape[-2:]]
    if list(golden_runs.photos(recorded, 1).shape[-2:]) != size:
        return  # the reference's cropping is not recorded
    ours = golden_runs.keyframe_latents(model, recorded, run)
    if torch.equal(concat, concat[:, :, :1].expand_as(concat)):
        assert goldens.error(ours, concat) <= PASS_TOLERANCE
    else:
        assert goldens.error(ours[:, :, 0], concat[:, :, 0]) <= PASS_TOLERANCE and not concat[:, :, 1:-1].any()
