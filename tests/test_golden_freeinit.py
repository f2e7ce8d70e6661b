"""FreeInit's filters, mixing, numbers of steps and whole runs, against those of its authors' pipeline."""

from __future__ import annotations

import pytest
import torch

from harness import golden_methods, goldens
from harness.golden_methods import FREEINIT, FreeInitRun
from harness.goldens import PIXEL_TOLERANCE, RUN_TOLERANCE
from vc_core.diffusion.freeinit import FreeInit
from vc_core.diffusion.frequency import LowPass, mix
from vc_core.diffusion.samplers import noised

RUNS = [FreeInitRun(run) for run in golden_methods.runs(FREEINIT)]
pytestmark = [pytest.mark.golden, pytest.mark.skipif(not golden_methods.recorded(FREEINIT), reason="not recorded")]


def settings(kind):
    return goldens.recording(FREEINIT).json("settings.json")[kind]


def low_pass(given):
    return LowPass(given["method"], given["n"] or 4, given["d_s"], given["d_t"])


def test_filters():
    golden = goldens.read(FREEINIT, "filters")
    for number, given in enumerate(settings("filters")):
        if str(number) in golden:
            assert (low_pass(given).mask(*given["shape"]) - golden[str(number)]).abs().max() <= 1e-6, given


def test_mixing():
    golden = goldens.read(FREEINIT, "mixing")
    for number, given in enumerate(settings("mixing")):
        if f"{number}.y" in golden:
            ours = mix(golden[f"{number}.x"], golden[f"{number}.noise"], low_pass(given))
            assert goldens.error(ours, golden[f"{number}.y"]) <= 1e-6, given


def test_numbers_of_steps_of_fast_sampling():
    """Floats round down from the left, so that some last iterations lose a step."""
    for given in settings("fast_steps"):
        assert FreeInit(given["iterations"], fast=True).steps(given["steps"]) == given["counts"], given
    assert FreeInit(5, fast=True).steps(3) == [1, 1, 1, 2, 3]
    assert FreeInit(3).steps(7) == [7, 7, 7]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.run)
def test_starts_of_later_iterations(run):
    """What is noised again is the last latent, with the first iteration's noise, at the last timestep of training."""
    schedule, filtering = run.model.schedule, low_pass(run.settings)
    for number, fresh in enumerate(run.tensor("fresh")):
        again = noised(run.tensor("latents")[number], run.tensor("x_T"), schedule, 999)
        assert goldens.error(again, run.tensor("noised")[number]) <= 1e-6
        assert goldens.error(mix(again, fresh, filtering), run.tensor("start")[number]) <= 1e-6


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.run)
def test_runs(run, agrees):
    texts = run.model.encode_text([run.settings["prompt"], ""])
    assert goldens.error(texts, torch.cat([run.tensor("text"), run.tensor("empty")])) <= goldens.PASS_TOLERANCE
    result, ends = golden_methods.run_freeinit(run)
    for ours, theirs in zip(result.predictions, run.tensor("pred_x0"), strict=True):
        agrees(FREEINIT, "predictions", ours, theirs, RUN_TOLERANCE)
    for ours, theirs in zip(ends, run.tensor("latents"), strict=True):
        agrees(FREEINIT, "latent", ours, theirs, RUN_TOLERANCE)
    assert torch.equal(result.latent, ends[-1])
    agrees(FREEINIT, "pixels / 255", result.video, run.tensor("video"), PIXEL_TOLERANCE)
