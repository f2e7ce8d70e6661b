"""Cameras on DynamiCrafter (MotionCtrl, CameraCtrl, CamI2V) against CamI2V's code: poses, rays, masks, features, passes, whole runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange

from harness import golden_control, goldens
from harness.golden_control import CAMERA_MODELS, CAMERAS, adapter, camera_case, of_camera
from harness.goldens import PIXEL_TOLERANCE, RUN_TOLERANCE
from vc_core.adapters import geometry
from vc_core.adapters.cameractrl import CameraCtrl
from vc_core.adapters.cami2v import CamI2V, EpipolarMasks
from vc_core.adapters.control import Control
from vc_core.adapters.motionctrl import MotionCtrl
from vc_core.adapters.places import temporal_places
from vc_core.config import load_config
from vc_core.models.hooks import PassInputs
from vc_core.models.layers import LayerFactory

pytestmark = [pytest.mark.golden, pytest.mark.skipif(not golden_control.recorded(CAMERAS), reason="not recorded")]
#: The page's, for single layers and passes.
TOLERANCE = 2e-5
#: The level of the UNet of each mask, by its pixels a position.
LEVELS = {8: 0, 16: 1}


def common(kind):
    """The cases of ``common.safetensors`` that begin with a word."""
    if not golden_control.recorded(CAMERAS):
        return []
    names = [name.split(".") for name in goldens.read(CAMERAS, "common")]
    return sorted({number for first, number, *_ in names if first == kind and number.isdigit()})


def settings(case):
    return goldens.recording(CAMERAS).json("settings.json")[f"pose.{case}"]


def control(case, **more):
    golden = goldens.read(CAMERAS, "common")
    poses, intrinsics, frames = (golden[f"pose.{case}.{name}"] for name in ("w2c", "intrinsics", "cond_frame"))
    return Control(poses=poses, intrinsics=intrinsics, conditioned_frame=frames.tolist(), trace=settings(case)["trace"], **more)


def relative(case):
    golden = goldens.read(CAMERAS, "common")
    return geometry.relative_poses(golden[f"pose.{case}.w2c"], golden[f"pose.{case}.cond_frame"], settings(case)["trace"])


@pytest.mark.parametrize("case", common("pose"))
def test_poses_and_rays(case):
    golden, (height, width) = goldens.read(CAMERAS, "common"), settings(case)["pixels"]
    assert goldens.error(relative(case), golden[f"pose.{case}.relative_c2w"]) <= 1e-6
    rays = geometry.rays(relative(case), golden[f"pose.{case}.intrinsics"], height, width)
    assert goldens.error(rays[..., ::8, ::8], golden[f"pose.{case}.rays"]) <= 1e-6
    if "motionctrl" in CAMERA_MODELS:
        numbers = adapter(golden_control.camera_model("motionctrl")).pose_numbers(control(case))
        assert goldens.error(numbers, of_camera("motionctrl").read("poses")[f"{case}.RT"]) <= 1e-6


def recorded_cases(kind, name, folder):
    """The cases that a model's own file has, too."""
    if folder not in CAMERA_MODELS:
        return []
    return [case for case in common(kind) if f"{case}.{name}" in of_camera(folder).read("unet" if kind == "unet" else "poses")]


@pytest.mark.parametrize("case", recorded_cases("pose", "F", "cami2v"))
def test_epipolar_masks(case):
    golden, (height, width) = of_camera("cami2v").read("poses"), settings(case)["pixels"]
    intrinsics = goldens.read(CAMERAS, "common")[f"pose.{case}.intrinsics"]
    worlds = relative(case)
    pairs = torch.linalg.inv(worlds)[:, None] @ worlds[:, :, None]
    assert goldens.error(pairs[..., :3, :], golden[f"{case}.pairs"]) <= 1e-5
    matrices = geometry.fundamental_matrices(worlds, intrinsics, golden[f"{case}.drawn"][..., 0])
    assert goldens.error(matrices, golden[f"{case}.F"]) <= 1e-5
    for pixels, level in LEVELS.items():
        tokens = worlds.shape[1] * (height // pixels) * (width // pixels)
        packed = golden[f"{case}.mask.{pixels}"].numpy()
        theirs = torch.from_numpy(np.unpackbits(packed, axis=1).reshape(-1, tokens, tokens)).bool()
        masks = EpipolarMasks(matrices, (0, 1))
        ours = masks.rows(level, height // pixels, width // pixels, 0, tokens)
        allowed = of_camera("cami2v").json("settings.json")[f"pose.{case}"][f"mask.{pixels}"]["pairs_near_the_threshold"]
        assert (ours != theirs).sum() <= allowed
        part = masks.rows(level, height // pixels, width // pixels, 5, tokens - 3)  # which begins and ends within frames
        assert torch.equal(part, ours[:, 5 : tokens - 3])


@torch.inference_mode()
@pytest.mark.parametrize("name", [name for name in CAMERA_MODELS if name != "motionctrl"])
@pytest.mark.parametrize("case", recorded_cases("pose", "feature.0", "cameractrl"))
def test_features_of_rays(case, name, agrees):
    """Both models' encoders have the same weights in the recordings."""
    golden, (height, width) = of_camera("cameractrl").read("poses"), settings(case)["pixels"]
    rays = geometry.rays(relative(case), goldens.read(CAMERAS, "common")[f"pose.{case}.intrinsics"], height, width)
    for level, ours in enumerate(adapter(golden_control.camera_model(name)).pose_encoder(rays)):
        shaped = rearrange(ours, "b t (h w) c -> b c t h w", h=height // (8 << level))
        agrees(CAMERAS, "features", shaped, golden[f"{case}.feature.{level}"], TOLERANCE)


@torch.inference_mode()
@pytest.mark.parametrize("name", CAMERA_MODELS)
@pytest.mark.parametrize("case", recorded_cases("unet", "y.plain", "cami2v"))
def test_unet(case, name, agrees):
    recorded, model = of_camera(name).read("unet"), golden_control.camera_model(name)
    x, timesteps, conditioning = camera_case(case, goldens.read(CAMERAS, "common"), model)
    agrees(CAMERAS, "UNet", model.unet(x, timesteps, conditioning), recorded[f"{case}.y.plain"], TOLERANCE)
    inputs = PassInputs(("positive",) * len(x), x, timesteps, conditioning)
    drawn = of_camera(name).read("poses")[f"{case}.drawn"][..., 0] if name == "cami2v" else None
    hooks = adapter(model).controlled(control(case, drawn=drawn))(inputs)
    agrees(CAMERAS, "UNet", model.unet(x, timesteps, conditioning, hooks), recorded[f"{case}.y.camera"], TOLERANCE)
    if name == "cami2v":
        for kind, levels in (("camera_all_levels", (0, 1)), ("camera_no_mask", ())):
            hooks.given = replace(hooks.given, levels=levels)
            agrees(CAMERAS, "UNet", model.unet(x, timesteps, conditioning, hooks), recorded[f"{case}.y.{kind}"], TOLERANCE)


def runs():
    """The runs of each model whose results are recorded."""
    if not common("run"):
        return []
    return [(run, name) for name in CAMERA_MODELS for run in common("run") if f"{run}.latent" in of_camera(name).read("sampling")]


@pytest.mark.parametrize(("run", "name"), runs())
def test_runs(run, name, agrees):
    golden, model = of_camera(name).read("sampling"), golden_control.camera_model(name)
    said = golden_control.camera_settings(name, run)
    for ours, theirs in zip(golden_control.camera_contexts(model, run), golden_control.recorded_contexts(model), strict=True):
        agrees(CAMERAS, "image tokens", torch.cat([ours.text, ours.image_tokens], dim=1), theirs, TOLERANCE)
    assert model.schedule.spaced(said["steps"], said["spacing"]).flip(0).tolist() == said["timesteps"]
    result = golden_control.run_camera(name, run)
    for ours, theirs in zip(result.predictions, golden[f"{run}.pred_x0"], strict=True):
        agrees(CAMERAS, "predictions", ours, theirs, RUN_TOLERANCE)
    agrees(CAMERAS, "latent", result.latent, golden[f"{run}.latent"], RUN_TOLERANCE)
    if f"{run}.video" in golden:
        agrees(CAMERAS, "pixels / 255", result.video[:, :, said["video_frames"]], golden[f"{run}.video"], PIXEL_TOLERANCE)


@torch.inference_mode()
@pytest.mark.parametrize("name", CAMERA_MODELS)
def test_passes_of_camera_guidance(name, agrees):
    """The three passes of a run's first step."""
    if not of_camera(name).has("sampling") or "1.first.cond" not in of_camera(name).read("sampling"):
        pytest.skip("not recorded")
    golden, shared, model = of_camera(name).read("sampling"), goldens.read(CAMERAS, "common"), golden_control.camera_model(name)
    both, factory = golden_control.camera_contexts(model, "1"), adapter(model).controlled(golden_control.camera_control(name, "1"))
    x, fs = shared["run.1.x_T"], torch.tensor([float(golden_control.camera_settings(name, "1")["fs"])])
    timesteps = torch.tensor([golden_control.camera_settings(name, "1")["timesteps"][0]])
    passes = (("cond", "positive", both[0]), ("uncond", "negative", both[1]), ("cond_without_camera", "uncontrolled", both[0]))
    for key, role, conditioning in passes:
        given = replace(conditioning, fps=fs)
        ours = model.unet(x, timesteps, given, factory(PassInputs((role,), x, timesteps, given)))
        agrees(CAMERAS, "UNet", ours, golden[f"1.first.{key}"], TOLERANCE)


@pytest.mark.parametrize("name", [name for name in CAMERA_MODELS if (of_camera(name).folder / "published.json").exists()])
def test_the_published_files_tensors(name):
    """Those that DynamiCrafter's file has not, at the published widths."""
    said = of_camera(name).json("published.json")
    theirs = {each: tuple(shape) for each, shape in said["tensors"] if not each.endswith(".pos_encoder.pe")}  # of a formula
    config, layers = load_config(f"{said['base']}_v1"), LayerFactory(device="meta")
    paths = {each.key: each.path for each in temporal_places(config.unet)}
    kinds = {"cameractrl": CameraCtrl, "cami2v": CamI2V}
    made = MotionCtrl(config, True, [], 2, layers) if name == "motionctrl" else kinds[name](config, [320, 640, 1280, 1280], layers)
    ours = {}
    for each, tensor in made.state_dict().items():
        layer, key, rest = each.split(".", 2)
        within = f"epipolar.{layer}" if layer == "epipolar_attn" else layer
        ours[each if layer == "pose_encoder" else f"model.diffusion_model.{paths[key]}.{within}.{rest}"] = tuple(tensor.shape)
    assert ours == theirs
