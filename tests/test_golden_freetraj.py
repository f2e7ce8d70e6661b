"""FreeTraj's paths, noise, attention and whole runs, against its authors' code."""

from __future__ import annotations

import pytest
import torch

from harness import golden_control, goldens
from harness.golden_control import FREETRAJ, freetraj_of, freetraj_settings
from harness.goldens import PASS_TOLERANCE, PIXEL_TOLERANCE, RUN_TOLERANCE
from harness.weights import weight
from vc_core.config import UNetConfig
from vc_core.diffusion.boxes import BoxPath, planned, start_with_box
from vc_core.diffusion.freetraj import FreeTrajHooks, gaussian
from vc_core.models.attention import CrossAttention, TemporalAttention
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import PassInputs, Site
from vc_core.models.layers import LayerFactory

pytestmark = [pytest.mark.golden, pytest.mark.skipif(not golden_control.recorded(FREETRAJ), reason="not recorded")]
#: The page's, for single passes.
TOLERANCE = 2e-5


def cases(kind, name):
    """The numbers of the cases of a kind whose tensor of this name was recorded."""
    if not golden_control.recorded(FREETRAJ):
        return []
    if not goldens.recording(FREETRAJ).has(kind):
        return []
    golden = goldens.read(FREETRAJ, kind)
    return [number for number in range(len(freetraj_settings("runs" if kind == "sampling" else kind))) if f"{number}{name}" in golden]


def test_paths():
    golden = goldens.read(FREETRAJ, "paths")
    for number, keys in enumerate(freetraj_settings("paths")):
        if str(number) in golden:
            assert torch.equal(torch.tensor(planned(keys), dtype=torch.float64), golden[str(number)]), keys


@pytest.mark.parametrize("case", cases("noise", ".x_T"))
def test_noise(case):
    golden, settings = goldens.read(FREETRAJ, "noise"), freetraj_settings("noise")[case]
    total, box, rand, start = (golden[f"{case}.{name}"] for name in ("total", "box", "rand", "x_T"))
    path = BoxPath.from_keys(settings["keys"])
    assert path.grid(settings["height"], settings["width"]) == tuple(box.shape[-2:])
    ours = start_with_box(total[:, 0], box[:, 0], rand[:, 0], path)
    assert goldens.error(ours, start[:, 0]) <= 1e-6


def test_bumps():
    golden = goldens.read(FREETRAJ, "gaussians")
    for name in golden:
        assert torch.equal(gaussian(*map(int, name.split("x"))), golden[name]), name


def lone_layer(name):
    """A layer that VideoCrafter2 lacks, with its own weights."""
    drawn = {key: torch.from_numpy(weight(key, shape, goldens.SEED))
             for key, shape in goldens.recording(FREETRAJ).json("manifest.json")["layers_alone"]}
    start = next(key for key in drawn if name in key).rpartition(f".{name}")[0]
    own = {key[len(start) + 1 :]: value for key, value in drawn.items() if key.startswith(f"{start}.")}
    config = UNetConfig(head_channels=16, context_dim=32, image_attention=name == "to_k_ip", max_relative_position=16)
    width = own["to_q.weight"].shape[0]
    kind = CrossAttention if name == "to_k_ip" else TemporalAttention
    layer = kind(config, width, LayerFactory())
    layer.load_state_dict(own)
    return layer


def layer_of(settings):
    """A layer of the model by its name in the file."""
    if "(with to_k_ip" in settings["layer"]:
        return lone_layer("to_k_ip")
    if "(with relative" in settings["layer"]:
        return lone_layer("relative_position_k")
    return golden_control.freetraj_model().unet.get_submodule(settings["layer"].removeprefix("model.diffusion_model."))


@torch.inference_mode()
@pytest.mark.parametrize("case", range(len(freetraj_settings("attention"))) if golden_control.groups(FREETRAJ, "attention") else [])
def test_attention(case):
    golden, settings = goldens.read(FREETRAJ, "attention"), freetraj_settings("attention")[case]
    expected = f"{settings['inputs']}.plain" if settings["same_as_plain"] else f"{case}.y"
    if expected not in golden or f"{settings['inputs']}.x" not in golden:
        pytest.skip("not recorded")
    x, layer = golden[f"{settings['inputs']}.x"], layer_of(settings)
    temporal = settings["kind"] == "temporal"
    frames, positions = (x.shape[1], x.shape[0]) if temporal else x.shape[:2]
    width = int((positions / 40 / 64) ** 0.5 * 64)
    site = Site("middle", 0, 0, 0, 1, frames, x.shape[-1], positions // width, width)
    hooks = FreeTrajHooks(BoxPath.from_keys(settings["keys"]), settings["tokens"], range(frames))
    if temporal:
        found, tokens = hooks.temporal(site), x.transpose(0, 1)[None]  # [1, t, l, c]
        ours = layer(tokens) if found is None else found.attention(layer, tokens, "attn1", None)
        ours = ours[0].transpose(0, 1)
    elif settings["kind"] == "self":
        ours = hooks.spatial(site).self_attention(layer, x, None)
    else:
        context = golden[f"{settings['inputs']}.context"]
        streams = layer.streams(context[:, :77], context[:, 77:])
        ours = hooks.spatial(site).cross_attention(layer, x, streams, None)
    assert goldens.error(ours, golden[expected]) <= PASS_TOLERANCE


@torch.inference_mode()
@pytest.mark.parametrize("case", cases("unet", ".y"))
def test_unet(case, agrees):
    golden, model = goldens.read(FREETRAJ, "unet"), golden_control.freetraj_model()
    x, timesteps = golden[f"{case}.x"], golden[f"{case}.timesteps"]
    conditioning = Conditioning(golden[f"{case}.context"], fps=golden[f"{case}.fps"].float())
    edits = freetraj_of(freetraj_settings("unet")[case])
    hooks = edits(PassInputs(("positive",), x, timesteps, conditioning))
    agrees(FREETRAJ, "UNet", model.unet(x, timesteps, conditioning, hooks), golden[f"{case}.y"], TOLERANCE)
    plain = model.unet(x, timesteps, conditioning)
    agrees(FREETRAJ, "UNet", plain, golden[f"{case}.plain"], TOLERANCE)
    assert edits(PassInputs(("positive",), x, timesteps, conditioning, step=edits.steps)) is None
    assert edits(PassInputs(("positive",), x, timesteps, conditioning, guided=False)) is None


@pytest.mark.parametrize("run", golden_control.groups(FREETRAJ, "sampling"))
def test_runs(run, agrees):
    golden, model, settings = goldens.read(FREETRAJ, "sampling"), golden_control.freetraj_model(), freetraj_settings("runs")[int(run)]
    texts = model.encode_text([settings["prompt"], ""])
    assert goldens.error(texts, torch.cat([golden[f"{run}.text"], golden[f"{run}.empty"]])) <= PASS_TOLERANCE
    start = start_with_box(*(golden[f"{run}.{name}"] for name in ("total", "box", "rand")), BoxPath.from_keys(settings["keys"]))
    assert goldens.error(start, golden[f"{run}.x_T"]) <= 1e-6
    result = golden_control.run_freetraj(run)
    for ours, theirs in zip(result.predictions, golden[f"{run}.pred_x0"], strict=True):
        agrees(FREETRAJ, "predictions", ours, theirs, RUN_TOLERANCE)
    agrees(FREETRAJ, "latent", result.latent, golden[f"{run}.latent"], RUN_TOLERANCE)
    if f"{run}.video" in golden:
        agrees(FREETRAJ, "pixels / 255", result.video, golden[f"{run}.video"], PIXEL_TOLERANCE)
