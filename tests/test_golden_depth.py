"""Make-Your-Video against the authors' runs."""

from __future__ import annotations

import pytest
import torch

from harness import golden_depth, golden_methods, goldens
from harness.golden_depth import FOLDER, DepthRun
from harness.goldens import PASS_TOLERANCE, PIXEL_TOLERANCE, RUN_TOLERANCE
from vc_core.config import load_config
from vc_core.diffusion.samplers import Tables
from vc_core.family.model_file import meta_networks
from vc_core.family.parts import PARTS
from vc_core.media.depth import prepare_depth

RECORDED = bool(golden_methods.recorded(FOLDER))
pytestmark = [pytest.mark.golden, pytest.mark.skipif(not RECORDED, reason="not recorded")]


def cases(kind: str) -> list[str]:
    return sorted(goldens.read(FOLDER, kind).groups()) if RECORDED else []


@pytest.mark.parametrize("case", cases("depth"))
def test_depth(case):
    golden, settings = goldens.read(FOLDER, "depth"), golden_depth.settings("depth")[int(case)]
    maps = golden[f"{case}.maps"].unflatten(0, (settings["videos"], settings["frames"])).movedim(2, 1)
    ours = prepare_depth(maps, *settings["target"], "clip" if settings["temporal_norm"] else "frame")
    assert goldens.error(ours, golden[f"{case}.depth"]) <= 1e-6


@pytest.mark.parametrize("case", cases("layers"))
def test_layers(case):
    """Convolutions of 4 frames and of one, and transformers of more frames than the band of causal attention is wide."""
    assert goldens.error(golden_depth.run_layer(case), goldens.read(FOLDER, "layers")[f"{case}.y"]) <= PASS_TOLERANCE


@pytest.mark.parametrize("case", cases("unet"))
def test_unet(case):
    assert goldens.error(golden_depth.run_unet(case), goldens.read(FOLDER, "unet")[f"{case}.y"]) <= PASS_TOLERANCE


@pytest.mark.parametrize("run", golden_methods.runs(FOLDER))
def test_runs(run):
    recorded = DepthRun(run)
    ours, model = golden_depth.run_sampling(recorded), golden_depth.load()
    assert goldens.error(model.encode_text([recorded.settings["prompt"]]), recorded.tensor("text")) <= PASS_TOLERANCE
    assert goldens.error(model.encode_text([recorded.settings["negative"]]), recorded.tensor("empty")) <= PASS_TOLERANCE
    assert goldens.error(prepare_depth(recorded.maps, *recorded.tensor("x_T").shape[-2:], "frame"), recorded.tensor("depth")) <= 1e-6
    assert len(ours.predictions) == recorded.settings["passes"]
    for predicted, golden in zip(ours.predictions, recorded.tensor("pred_x0"), strict=True):
        assert goldens.error(predicted, golden) <= RUN_TOLERANCE
    assert goldens.error(ours.latent, recorded.tensor("latent")) <= RUN_TOLERANCE
    assert goldens.pixel_error(ours.video, recorded.tensor("video")) <= PIXEL_TOLERANCE


def test_timesteps_and_tables():
    golden, schedule = goldens.read(FOLDER, "schedule"), golden_depth.load().schedule
    assert torch.equal(schedule.alphas_cumprod, golden["alphas_cumprod"])
    for steps in (int(name.split(".")[0]) for name in golden if name.endswith(".timesteps")):
        visited = schedule.spaced(steps, "uniform")
        tables = Tables.make(schedule, visited, 1.0)
        assert visited.tolist() == golden[f"{steps}.1.0.timesteps"].tolist()
        for field in ("alphas", "alphas_prev", "sigmas"):
            assert torch.allclose(getattr(tables, field).double(), golden[f"{steps}.1.0.{field}"], rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not (goldens.FOLDER / FOLDER / "published.json").exists(), reason="the list is not in tests/data")
def test_the_published_file_s_names_and_shapes():
    published = {name: shape for name, shape in goldens.recording(FOLDER).json("published.json")["checkpoint"]}
    for part, network in meta_networks(load_config(golden_depth.FORM)).items():
        prefix = PARTS[part].prefix
        ours = {prefix + name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        assert ours == {name: shape for name, shape in published.items() if name.startswith(prefix)}
    assert sum(name.startswith("model.diffusion_model.") for name in published) == 1606
