"""MotionCtrl on VideoCrafter against its authors' code: features, passes, guidance, paths of points, whole runs."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from harness import golden_control, goldens
from harness.golden_control import MOTIONCTRL, adapter, poses_of
from harness.goldens import PIXEL_TOLERANCE, RUN_TOLERANCE
from vc_core.adapters.control import Control
from vc_core.adapters.flow import CANVAS, SIDE, flow_of_tracks, spread_points
from vc_core.adapters.motionctrl import MotionCtrl
from vc_core.adapters.places import temporal_places
from vc_core.config import load_config
from vc_core.family.parts import PARTS, part_shapes
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import PassInputs
from vc_core.models.layers import LayerFactory
from vc_core.models.text_encoder import tokenize

pytestmark = [pytest.mark.golden, pytest.mark.skipif(not golden_control.recorded(MOTIONCTRL), reason="not recorded")]
#: The page's, for single layers and passes.
TOLERANCE = 2e-5
KINDS = ("plain", "camera", "objects", "both")
RUNS = golden_control.groups(MOTIONCTRL, "sampling")


def predicted(model, x, timesteps, conditioning, control, role="positive", guided=True):
    inputs = PassInputs((role,) * len(x), x, timesteps, conditioning, guided=guided)
    return model.unet(x, timesteps, conditioning, adapter(model).controlled(control)(inputs))


@torch.inference_mode()
@pytest.mark.parametrize("case", golden_control.groups(MOTIONCTRL, "omcm"))
def test_features_of_motion(case, agrees):
    golden, encoder = goldens.read(MOTIONCTRL, "omcm"), adapter(golden_control.motionctrl()).omcm
    flow = golden[f"{case}.flow"].float()
    for level, ours in enumerate(encoder(flow)):
        shaped = rearrange(ours, "(b t) c h w -> b c t h w", b=len(flow))
        agrees(MOTIONCTRL, "features", shaped, golden[f"{case}.feature.{level}"], TOLERANCE)
    for level, ours in enumerate(encoder(torch.zeros_like(flow[:1, :, :1]))):
        agrees(MOTIONCTRL, "features", ours[:, :, None], golden[f"{case}.still.{level}"], TOLERANCE)


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", golden_control.groups(MOTIONCTRL, "unet"))
def test_unet(case, kind, agrees):
    """The reference's UNet has no lower bound of timesteps: that is its sampler's."""
    golden, model = goldens.read(MOTIONCTRL, "unet"), golden_control.motionctrl()
    poses = poses_of(golden[f"{case}.pose"]) if kind in ("camera", "both") else None
    flow = golden[f"{case}.flow"].float() if kind in ("objects", "both") else None
    conditioning = Conditioning(golden[f"{case}.context"])
    ours = predicted(model, golden[f"{case}.x"], golden[f"{case}.timesteps"], conditioning, Control(poses=poses, flow=flow), guided=False)
    agrees(MOTIONCTRL, "UNet", ours, golden[f"{case}.y.{kind}"], TOLERANCE)


@torch.inference_mode()
@pytest.mark.parametrize("timestep", [901, 801, 800, 799, 101])
@pytest.mark.parametrize("cfg", ["7.5", "1.0"])
def test_objects_are_controlled_at_high_timesteps_or_without_guidance(timestep, cfg, agrees):
    golden, model = goldens.read(MOTIONCTRL, "guidance"), golden_control.motionctrl()
    control = Control(poses=poses_of(golden["pose"]), flow=golden["flow"].float())
    said = goldens.recording(MOTIONCTRL).json("settings.json")["guidance"]
    for name, role, context in (("cond", "positive", "context"), ("uncond", "negative", "negative")):
        key = f"{timestep}.cfg{cfg}.{name}"
        if key in golden:
            assert said[key]["camera"] and said[key]["object_features"] == (timestep >= 800 or cfg == "1.0")
            timesteps = torch.tensor([timestep])
            ours = predicted(model, golden["x"], timesteps, Conditioning(golden[context]), control, role, guided=cfg != "1.0")
            agrees(MOTIONCTRL, "UNet", ours, golden[key], TOLERANCE)


@torch.inference_mode()
def test_roles_in_one_batch_are_as_they_are_alone():
    golden, model = goldens.read(MOTIONCTRL, "guidance"), golden_control.motionctrl()
    if "901.cfg7.5.cond" not in golden:
        pytest.skip("not recorded")
    control = Control(poses=poses_of(golden["pose"]), flow=golden["flow"].float())
    x, timesteps = golden["x"].repeat(2, 1, 1, 1, 1), torch.tensor([901, 901])
    both = Conditioning(torch.cat([golden["negative"], golden["context"]]))
    hooks = adapter(model).controlled(control)(PassInputs(("negative", "positive"), x, timesteps, both))
    ours = model.unet(x, timesteps, both, hooks)
    for row, name in zip(ours, ("uncond", "cond"), strict=True):
        assert goldens.error(row[None], golden[f"901.cfg7.5.{name}"]) <= TOLERANCE


def tracks():
    golden = goldens.read(MOTIONCTRL, "trajectories") if golden_control.recorded(MOTIONCTRL) else ()
    return sorted({name.split(".")[0] for name in golden})


@pytest.mark.parametrize("track", tracks())
def test_paths_of_points(track):
    golden = goldens.read(MOTIONCTRL, "trajectories")
    points = [tuple(point) for point in golden[f"{track}.points"].tolist()]
    sixteen = torch.tensor(spread_points(points))
    assert torch.equal(sixteen, golden[f"{track}.sixteen"])
    pixels = sixteen * SIDE // CANVAS
    assert torch.equal(pixels, golden[f"{track}.pixels"])
    flow = flow_of_tracks(pixels[None].float(), SIDE, SIDE).permute(1, 2, 3, 0)  # [t, y, x, (x, y)]
    peak = flow.abs().max().item() or 1.0
    shown = flow[[1, 8, 15]]
    edges = torch.stack([shown[:, 0, ::4], shown[:, -1, ::4], shown[:, ::4, 0], shown[:, ::4, -1]])
    for ours, name in ((shown[:, ::8, ::8], "flow"), (edges, "edges"), (flow.double().sum((1, 2)), "sums")):
        theirs = golden[f"{track}.{name}"].double()
        largest = max(peak, theirs.abs().max().item()) if name == "sums" else peak
        assert (ours.double() - theirs).abs().max() <= 1e-5 * largest, name
    assert torch.equal(flow[0], torch.zeros_like(flow[0]))


@pytest.mark.parametrize("run", RUNS)
def test_runs(run, agrees):
    golden, settings = goldens.read(MOTIONCTRL, "sampling"), golden_control.motionctrl_settings(run)
    result, model = golden_control.run_motionctrl(run)
    assert not model.config.unet.fps_embedding and model.config.schedule.scale_end is None
    assert model.schedule.uniform(settings["steps"]).flip(0).tolist() == settings["timesteps"]
    said = goldens.recording(MOTIONCTRL).json("settings.json")
    texts = ((f"{settings['prompt']}, {said['prompt_suffix']}", f"{run}.tokens", f"{run}.text"),
             (said["negative_prompt"], "negative_tokens", "negative"))
    for prompt, tokens, text in texts:
        assert torch.equal(tokenize([prompt])[0, :1], golden[tokens])  # the reference has no second piece of a long prompt
        agrees(MOTIONCTRL, "text", model.encode_text([prompt])[:, :77], golden[text], TOLERANCE)
    for ours, theirs in zip(result.predictions, golden[f"{run}.pred_x0"], strict=True):
        agrees(MOTIONCTRL, "predictions", ours, theirs, RUN_TOLERANCE)
    agrees(MOTIONCTRL, "latent", result.latent, golden[f"{run}.latent"], RUN_TOLERANCE)
    if f"{run}.video" in golden:
        agrees(MOTIONCTRL, "pixels / 255", result.video[:, :, settings["video_frames"]], golden[f"{run}.video"], PIXEL_TOLERANCE)


@pytest.mark.skipif(not (goldens.FOLDER / MOTIONCTRL / "published.json").exists(), reason="not recorded")
def test_the_published_file_s_tensors():
    """At the published widths: the UNet, and both modules."""
    theirs = {name: tuple(shape) for name, shape in goldens.recording(MOTIONCTRL).json("published.json")["tensors"]}
    config = load_config("motionctrl_v1")
    ours = {PARTS["unet"].prefix + name: shape for name, shape in part_shapes(config, "unet").items()}
    paths = {each.key: each.path for each in temporal_places(config.unet)}
    for name, tensor in MotionCtrl(config, True, [320, 640, 1280, 1280], 2, LayerFactory(device="meta")).state_dict().items():
        layer, key, rest = name.split(".", 2)
        ours[name if layer == "omcm" else f"model.diffusion_model.{paths[key]}.{layer}.{rest}"] = tuple(tensor.shape)
    assert len(paths) == 17 and ours == theirs
