"""Starts at a given timestep, analytic initial noise and a latent for every frame, against the authors' runs (CIL, ViewCrafter)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness import golden_methods, goldens
from harness.golden_methods import CIL, VIEWCRAFTER, ImageRun
from harness.goldens import PASS_TOLERANCE, PIXEL_TOLERANCE, RUN_TOLERANCE
from vc_core.config import load_config, published
from vc_core.diffusion.initial_noise import read_statistics
from vc_core.diffusion.samplers import Tables
from vc_core.diffusion.schedule import Schedule
from vc_core.family.model_file import part_shapes
from vc_core.family.parts import PARTS
from vc_core.fetch import published_files

FOLDERS = golden_methods.recorded(CIL, VIEWCRAFTER)
RUNS = [ImageRun(folder, run) for folder in FOLDERS for run in golden_methods.runs(folder)]
with_cil = pytest.mark.skipif(CIL not in FOLDERS, reason="not recorded")
with_viewcrafter = pytest.mark.skipif(VIEWCRAFTER not in FOLDERS, reason="not recorded")


def tables_of(golden, schedule, key, spacing, start, steps, **settings):
    """Compares every recorded field of one schedule's tables."""
    tables = Tables.make(schedule, schedule.spaced(steps, spacing, start=start), 1.0, **settings)
    for field in ("alphas", "alphas_prev", "sigmas", "scale", "scale_prev"):
        if f"{key}.{field}" in golden:
            assert torch.allclose(getattr(tables, field).double(), golden[f"{key}.{field}"].double(), rtol=1e-6, atol=1e-6), (key, field)


@pytest.mark.golden
@with_cil
def test_timesteps_and_tables_from_each_start():
    golden, schedule = goldens.read(CIL, "schedule"), golden_methods.load(CIL).schedule
    assert torch.equal(schedule.alphas_cumprod, golden["alphas_cumprod"])
    assert goldens.error(schedule.scale, golden["scale_arr"][:1000]) <= 1e-6
    compared = 0
    for name in [name for name in golden if name.endswith(".timesteps")]:
        spacing, start, steps = name.split(".")[:3]
        recorded = golden[name]
        ours = schedule.spaced(int(steps), spacing, start=int(start))
        # Where the reference's range has one value more than asked for, it is -1, at which v models fail.
        expected = sorted(recorded[recorded >= 0].tolist()) if spacing == "uniform_trailing" else recorded.clamp(max=999).tolist()
        assert ours.tolist() == expected, name
        tables_of(golden, schedule, name.removesuffix(".timesteps"), spacing, int(start), int(steps))
        compared += 1
    assert compared >= 130


@pytest.mark.golden
@with_cil
@pytest.mark.parametrize("start", [1000, 960, 940, 900, 860, 820])
@pytest.mark.parametrize("kind", ["zero_snr", "plain"])
def test_analytic_initial_noise(start, kind):
    golden = goldens.read(CIL, "initial_noise")
    statistics = read_statistics(goldens.recording(CIL).path("initial_noise.pt"))
    assert torch.equal(statistics.mean, golden["Expectation_X0"][0]) and torch.equal(statistics.variance, golden["Tr_Cov_d"])
    schedule = Schedule.from_config(load_config("dynamicrafter_512_v1" if kind == "zero_snr" else "dynamicrafter_256_v1").schedule)
    assert torch.equal(schedule.alphas_cumprod, golden[f"{kind}.alphas_cumprod"])
    ours = statistics.start(golden[f"{start}.eps"], schedule, start)
    assert goldens.error(ours, golden[f"{kind}.{start}.x_T"]) <= 1e-6
    if (kind, start) == ("zero_snr", 1000):  # nothing of a clip is left there
        assert torch.equal(ours, golden["1000.eps"])


@pytest.mark.golden
@with_viewcrafter
def test_viewcrafter_s_last_step_is_its_own():
    """But not where the guidance by the image has a scale of its own."""
    golden = goldens.read(VIEWCRAFTER, "schedule")
    names = {"0.3": "viewcrafter_25_v1", "0.7": "viewcrafter_25_512_v1"}
    schedules = {base: Schedule.from_config(load_config(name).schedule) for base, name in names.items()}
    cases = [name.removesuffix(".timesteps").split(".") for name in golden if name.endswith(".timesteps")]
    assert len(cases) >= 10
    for spacing, steps in ((spacing, int(steps)) for spacing, steps in cases):
        ours = schedules["0.3"].spaced(steps, spacing).tolist()
        assert sorted(golden[f"{spacing}.{steps}.timesteps"].tolist()) == ours, (spacing, steps)
        tables_of(golden, schedules["0.3"], f"{spacing}.{steps}", spacing, None, steps)
        for base, schedule in schedules.items():
            tables_of(golden, schedule, f"{base}.{spacing}.{steps}", spacing, None, steps)
            tables_of(golden, schedule, f"{base}.{spacing}.{steps}.two_conditions", spacing, None, steps, by_image=True)


@pytest.mark.golden
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_published_files_have_dynamicrafter_s_tensors(folder):
    """So that its manifest is theirs, and only the schedule, the caller or the file's name tells which model a file is."""
    said = goldens.recording(folder).json("published.json")
    named = {file.file for file in published_files().values() if file.name.startswith(("dynamicrafter_cil", "viewcrafter"))}
    assert any(set(files.split(", ")) <= named for files in said["files"])
    for manifest in said["same_tensors_as"]:
        theirs = load_config(Path(manifest).stem)
        for ours in (each for each in map(load_config, published()) if each.name.startswith(("dynamicrafter_cil", "viewcrafter"))):
            assert all(part_shapes(ours, part) == part_shapes(theirs, part) for part in PARTS)


@pytest.mark.golden
@pytest.mark.parametrize("folder", FOLDERS)
def test_unet(folder, agrees):
    """ViewCrafter's second case has fewer frames than the projector was made for: every frame reads all image tokens."""
    recorded = goldens.recording(folder)
    for case in (f"{number}." for number in recorded.read("unet").groups()) if folder == VIEWCRAFTER else ("",):
        ours = golden_methods.run_unet(golden_methods.load(folder), recorded, case)
        agrees(folder, "UNet", ours, recorded.read("unet")[f"{case}y"], PASS_TOLERANCE)


@pytest.mark.golden
@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.folder}-{run.run}")
def test_runs(run, agrees):
    """From the core's own texts and image tokens, and the recorded latents of the images, which the reference drew."""
    model = golden_methods.load(run.folder)
    for ours, name in zip(run.contexts(model), ("context", "negative_context"), strict=True):
        agrees(run.folder, "image tokens", torch.cat([ours.text, ours.image_tokens], dim=1), run.tensor(name), PASS_TOLERANCE)
    result, golden = golden_methods.run_images(model, run), goldens.read(run.folder, "sampling")
    for ours, theirs in zip(result.predictions, run.tensor("pred_x0")[:, None], strict=True):
        agrees(run.folder, "predictions", ours, theirs, RUN_TOLERANCE)
    agrees(run.folder, "latent", result.latent, run.tensor("latent"), RUN_TOLERANCE)
    if f"{run.run}.video" in golden:
        agrees(run.folder, "pixels / 255", result.video, run.tensor("video"), PIXEL_TOLERANCE)


@pytest.mark.golden
@with_cil
@pytest.mark.parametrize("run", [run for run in RUNS if run.folder == CIL and run.settings["analytic"]], ids=lambda run: run.run)
def test_a_run_s_noise_is_drawn_by_the_statistics(run):
    statistics = read_statistics(goldens.recording(CIL).path("initial_noise.pt"))
    ours = statistics.start(run.tensor("eps"), golden_methods.load(CIL).schedule, run.settings["M"])
    assert goldens.error(ours, run.tensor("x_T")) <= 1e-6


@pytest.mark.golden
@pytest.mark.parametrize("folder", FOLDERS)
def test_image_latents(folder, agrees):
    golden, model = goldens.read(folder, "sampling"), golden_methods.load(folder)
    frames = golden["photo"][:, :, None] if folder == CIL else golden["frames"]
    z = golden["z_mode"][:, :, None] if folder == CIL else golden["z_mode"]
    agrees(folder, "VAE", model.encode(frames.float()), z, PASS_TOLERANCE)
