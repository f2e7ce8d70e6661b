"""Adapters that control motion and FreeTraj, beyond their recordings: files, the off switch, guidance, windows, odd inputs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import vc_core
from harness import golden_control, goldens
from harness.golden_control import MOTIONCTRL, adapter, poses_of
from vc_core.__main__ import main
from vc_core.adapters.control import Control
from vc_core.adapters.flow import flow_of_tracks, spread_points
from vc_core.adapters.geometry import default_intrinsics, fundamental_matrices, rays, relative_poses
from vc_core.adapters.places import temporal_places
from vc_core.checkpoint import CheckpointError
from vc_core.config import load_config, published
from vc_core.control.cameras import camera_path
from vc_core.control.tracks import Tracks
from vc_core.controlling import Motion, box_path, subject_places, with_motion
from vc_core.diffusion.boxes import BoxNoise, BoxPath, start_with_box
from vc_core.diffusion.freetraj import FreeTraj, one_sided, two_sided
from vc_core.diffusion.guidance import Guidance, guide
from vc_core.errors import InputError
from vc_core.family.model_file import meta_networks
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import PassInputs
from vc_core.models.layers import sdpa
from vc_core.sampling import Sampling

BUNDLED = "videocrafter_tiny_t2v"
SETTINGS = {"frames": 4, "steps": 3, "seed": 1}
BOX = BoxPath.from_keys([(0, 0.1, 0.6, 0.0, 0.5), (3, 0.4, 0.9, 0.4, 0.9)], 4)


@pytest.fixture(scope="module")
def camera_only(tmp_path_factory):
    """The recorded MotionCtrl without its object module: the whole file, the model's tensors and the adapter's alone."""
    folder = tmp_path_factory.mktemp("motionctrl")
    tensors = golden_control.checkpoint(goldens.recording(MOTIONCTRL), camera_only=True)
    parts = {
        "whole": tensors,
        "model": {name: each for name, each in tensors.items() if not any(part in name for part in ("cc_proj", "fps_emb", "scale_arr"))},
        "adapter": {name: each for name, each in tensors.items() if "cc_projection" in name},
    }
    return {name: golden_control.write(part, folder / f"{name}.safetensors") for name, part in parts.items()}


def load(path, **more):
    return vc_core.load(path, config={"text_encoder": {"heads": 3}}, **more)


def clip(model, **more):
    texts = [Conditioning(model.encode_text([text])) for text in ("a boat", "")]
    return model.sample(*texts, height=32, width=32, guidance_scale=5.0, **SETTINGS, **more)


def test_a_whole_file_is_its_model_and_its_adapter(camera_only):
    whole, both = load(camera_only["whole"]), load(camera_only["model"], adapters=[camera_only["adapter"]])
    assert list(whole.adapters) == ["MotionCtrl"] and list(both.adapters) == ["adapter"]
    poses = camera_path("pan left", 4).poses[None]
    made = [clip(each, hooks=[adapter(each).controlled(Control(poses=poses))]) for each in (whole, both)]
    assert torch.equal(*made)


def test_without_a_camera_the_model_is_the_base_model_to_the_bit(camera_only):
    plain = clip(load(camera_only["model"]))
    whole = load(camera_only["whole"])
    assert torch.equal(clip(whole), plain)
    assert adapter(whole).controlled(Control())(PassInputs(("positive",), torch.zeros(1, 4, 4, 4, 4), torch.zeros(1), None)) is None
    still = torch.eye(3, 4).expand(1, 4, 3, 4)
    assert goldens.error(clip(whole, hooks=[adapter(whole).controlled(Control(poses=still))]), plain) > 0.05


def test_a_converted_file_has_the_adapter_and_info_tells_it(camera_only, tmp_path, capsys):
    assert main(["info", str(camera_only["whole"])]) == 0
    assert "adapter in the file (MotionCtrl): 24 tensors" in capsys.readouterr().out
    target = tmp_path / "converted.safetensors"
    assert main(["convert", str(camera_only["whole"]), str(target), "--dtype", "float32"]) == 0
    poses = camera_path("pan left", 4).poses[None]
    made = [clip(each, hooks=[adapter(each).controlled(Control(poses=poses))]) for each in (load(camera_only["whole"]), load(target))]
    assert torch.equal(*made)


def test_an_adapter_alone_is_no_model_and_a_model_no_adapter(camera_only):
    with pytest.raises(CheckpointError, match="is an adapter, not a model"):
        vc_core.load(camera_only["adapter"])
    with pytest.raises(CheckpointError, match="together with .* weights of the model.*load it as the model"):
        load(camera_only["model"], adapters=[camera_only["whole"]])


def test_an_adapter_with_some_of_the_model_s_weights_is_laid_over_it(camera_only, tmp_path):
    """As the files for DynamiCrafter are, which were trained with attention of the UNet."""
    tensors, name = load_file(camera_only["adapter"]), "model.diffusion_model.middle_block.2.transformer_blocks.0.attn2.to_q.weight"
    changed = torch.zeros_like(load_file(camera_only["model"])[name])
    save_file({**tensors, name: changed}, tmp_path / "overlay.safetensors")
    model = load(tmp_path / "overlay.safetensors", base=camera_only["model"])
    assert list(model.adapters) == ["MotionCtrl"]
    assert not model.unet.middle_block[2].transformer_blocks[0].attn2.to_q.weight.any()


def test_the_places_are_the_unet_s():
    for name in published():
        config = load_config(name)
        unet = meta_networks(config)["unet"]
        expected = {module for module, _ in unet.named_modules() if module.endswith("transformer_blocks.0") and ".1.tr" not in module}
        places = temporal_places(config.unet)
        assert {each.path for each in places} == expected
        for each in places:
            assert unet.get_submodule(each.path).norm1.weight.shape == (each.width,)


def test_guidance_by_the_camera():
    positive, negative, without = (torch.randn(1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    guidance = Guidance(5.0, camera_scale=2.5)
    ours = guide(positive, negative, guidance, uncontrolled=without, camera_weight=guidance.camera_weight(torch.tensor([500])))
    assert torch.allclose(ours, negative + 5 * (positive - negative) + 1.5 * (positive - without), atol=1e-5)
    cosine = replace(guidance, camera_schedule="cosine").camera_weight(torch.tensor([999, 499, 0]))
    assert torch.allclose(cosine.flatten(), 1.5 * torch.tensor([1.0, 0.70654, 0.0]), atol=1e-4)


def test_guidance_by_the_camera_pushes_away_from_the_pass_without_it(camera_only):
    """Scale 1 is off to the bit, and so is any without guidance by the text."""
    model = load(camera_only["whole"])
    hooks = [adapter(model).controlled(Control(poses=camera_path("zoom in", 4).poses[None]))]
    plain = clip(model, hooks=hooks)
    assert torch.equal(clip(model, hooks=hooks, camera_guidance_scale=1.0), plain)
    assert goldens.error(clip(model, hooks=hooks, camera_guidance_scale=2.0), plain) > 0.01
    roles = []

    def see(inputs):
        roles.append((inputs.roles, inputs.guided))

    texts = [Conditioning(model.encode_text([text])) for text in ("a boat", "")]
    run = {"frames": 2, "height": 16, "width": 16, "steps": 1, "hooks": [see], "camera_guidance_scale": 2.0}
    model.sample(*texts, guidance_scale=1.0, **run)
    model.sample(*texts, guidance_scale=3.0, **run)
    assert roles == [(("positive",), False), *((((role,), True)) for role in ("positive", "negative", "uncontrolled"))]


def test_uncontrolled_rows_of_a_batch_are_the_base_model_s(camera_only):
    model = load(camera_only["whole"])
    x = torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    conditioning, timesteps = Conditioning(torch.zeros(2, 77, 48)), torch.tensor([500, 500])
    hooks = adapter(model).controlled(Control(poses=camera_path("zoom in", 4).poses[None]))
    made = hooks(PassInputs(("positive", "uncontrolled"), x, timesteps, conditioning))
    with torch.inference_mode():
        both, plain = model.unet(x, timesteps, conditioning, made), model.unet(x, timesteps, conditioning)
    assert goldens.error(both[1], plain[1]) <= 1e-5 and goldens.error(both[0], plain[0]) > 0.05


@pytest.mark.skipif("cami2v" not in golden_control.CAMERA_MODELS, reason="not recorded")
def test_uncontrolled_rows_beside_controlled_ones_of_cami2v():
    """Rows of a batch are what they are alone, whichever are controlled."""
    model = golden_control.camera_model("cami2v")
    x, timesteps, conditioning = golden_control.camera_case("0", goldens.read(golden_control.CAMERAS, "common"), model)
    hooks = adapter(model).controlled(Control(poses=camera_path("orbit left", x.shape[2]).poses[None]))
    roles = ("uncontrolled", "positive", "positive")
    batch, times, both = x.repeat(3, 1, 1, 1, 1), timesteps.repeat(3), Conditioning.stack(*[conditioning] * 3)
    with torch.inference_mode():
        made = model.unet(batch, times, both, hooks(PassInputs(roles, batch, times, both)))
        alone = model.unet(x, timesteps, conditioning, hooks(PassInputs(("positive",), x, timesteps, conditioning)))
        plain = model.unet(x, timesteps, conditioning)
    for ours, theirs in zip(made, (plain, alone, alone), strict=True):
        assert goldens.error(ours[None], theirs) <= 1e-5


def test_a_window_has_the_poses_of_its_frames(camera_only):
    model = load(camera_only["whole"])
    numbers = torch.arange(6 * 12).reshape(1, 6, 12).float()
    x, timesteps = torch.zeros(1, 4, 3, 4, 4), torch.tensor([500])
    hooks = adapter(model).controlled(Control(poses=poses_of(numbers)))
    made = hooks(PassInputs(("positive",), x, timesteps, Conditioning(torch.zeros(1, 77, 48)), window=(5, 0, 2)))
    assert torch.equal(made.poses, numbers[:, [5, 0, 2]])
    with pytest.raises(InputError, match="for 6 frames, but the video has at least 8"):
        hooks(PassInputs(("positive",), x, timesteps, Conditioning(torch.zeros(1, 77, 48)), window=(5, 6, 7)))
    with pytest.raises(InputError, match="for 6 frames, but the video has 3"):
        hooks(PassInputs(("positive",), x, timesteps, Conditioning(torch.zeros(1, 77, 48))))


def test_controls_that_can_t_be():
    for values, words in (
        ({"poses": torch.zeros(4, 3, 4)}, r"poses has the shape \[4, 3, 4\]; expected is \[B, T, 3, 4\]"),
        ({"flow": torch.zeros(1, 3, 4, 8, 8)}, r"flow has the shape"),
        ({"poses": torch.full((1, 2, 3, 4), float("nan"))}, "not finite"),
    ):
        with pytest.raises(InputError, match=words):
            Control(**values)
    model = golden_control.motionctrl(True)
    with pytest.raises(InputError, match="camera module only"):
        adapter(model).controlled(Control(flow=torch.zeros(1, 2, 4, 8, 8)))


def test_rays_by_hand():
    """The pixel at the principal point looks along the axis of the camera, and a ray's moment is that of any of its points."""
    poses = camera_path("pan left and roll clockwise", 5).poses[None]
    worlds = relative_poses(poses, torch.tensor([2]), 1.0)
    assert torch.allclose(worlds[0, 2], torch.eye(4, dtype=torch.float64))
    made = rays(worlds, default_intrinsics(7, 9).expand(1, 5, 3, 3), 7, 9).double()
    moment, direction = made[0, :3], made[0, 3:]
    assert torch.allclose(direction.norm(dim=0), torch.ones(5, 7, 9, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(direction[:, :, 3, 4], worlds[0, :, :3, 2].T, atol=1e-6)
    point = worlds[0, :, :3, 3].T[:, :, None, None] + 3 * direction
    assert torch.allclose(torch.linalg.cross(point, direction, dim=0), moment, atol=1e-5)


def test_a_point_seen_by_two_cameras_is_on_its_epipolar_line():
    poses = camera_path("orbit left", 4).poses[None]
    worlds, lens = relative_poses(poses, torch.tensor([0]), 1.0), default_intrinsics(32, 48)
    matrices = fundamental_matrices(worlds, lens.expand(1, 4, 3, 3), torch.ones(1, 4, 4, 3))
    point = torch.tensor([0.3, -0.2, 4.0, 1.0], dtype=torch.float64)
    seen = (torch.linalg.inv(worlds[0]) @ point)[:, :3] @ lens.T
    seen = seen / seen[:, 2:]
    for first, second in ((0, 3), (2, 1)):
        line = matrices[0, first, second] @ seen[first]
        assert abs(line @ seen[second]) / line[:2].norm() < 1e-6


def test_points_at_the_edge_and_outside_move_nothing_beyond_it():
    """Cases 1 and 7 of trajectories: never an index error, never on the other side; x is x in a portrait, too."""
    tracks = torch.tensor([[[-20.0, 600.0], [531.0, 160.0]], [[511.9, 319.9], [500.0, 300.0]]])
    flow = flow_of_tracks(tracks, 320, 512)
    assert flow.shape == (2, 2, 320, 512) and flow.isfinite().all()
    assert flow[:, 1, -1, -1].abs().max() > 0 and not flow[:, 1, :100].any()  # around the second point only
    portrait = flow_of_tracks(torch.tensor([[[288.0, 342.0], [300.0, 100.0]]]), 576, 320)
    peak = portrait[1, 1].abs().flatten().argmax().item()
    assert (peak % 320, peak // 320) == (288, 342)
    assert not flow_of_tracks(torch.tensor([[[5.0, 5.0]]]), 16, 16).any()
    assert flow_of_tracks(torch.rand(1000, 4, 2) * 64, 64, 64).isfinite().all()


def test_points_are_spread():
    assert spread_points([(0, 0), (15, 30)]) == [(i, 2 * i) for i in range(16)]
    assert spread_points([(7, 7)]) == [(512, 512)] * 16


def test_two_sides_are_the_authors_factor_on_logits():
    """Also with many heads and in half the positions, against logits that are multiplied."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 10, 12, generator=generator) for _ in range(3))
    inside = torch.rand(2, 10, generator=generator) < 0.4
    ours = one_sided(sdpa(*two_sided(q, k, v, inside, 3), 3), 3)
    split = [each.unflatten(-1, (3, 4)).transpose(1, 2) for each in (q, k, v)]
    logits = split[0] @ split[1].transpose(-1, -2) / 2
    factor = torch.where(inside[:, :, None] == inside[:, None, :], 1.0, 0.01)[:, None]
    expected = ((logits * factor).softmax(dim=-1) @ split[2]).transpose(1, 2).flatten(-2)
    assert torch.allclose(ours, expected, atol=1e-6)


def test_a_box_that_leaves_the_picture_is_cut():
    path = BoxPath.from_keys([(0, -0.3, 0.2, 0.8, 1.3), (1, 0.9, 1.4, 1.2, 1.7)], 2)
    masks = path.masks(10, 10, (0, 1))
    assert masks[0].nonzero().tolist() == [[row, column] for row in (0, 1) for column in (8, 9)] and not masks[1].any()
    total, box = torch.zeros(1, 1, 2, 10, 10), torch.arange(25).reshape(1, 1, 5, 5).float()
    target = total[0, 0, 0].clone()
    path.box(0, 10, 10).paste(target, box[0, 0])
    assert target[:2, 8:].tolist() == [[15, 16], [20, 21]] and target.sum() == 72
    assert start_with_box(total, box, total, path).isfinite().all()


def test_a_box_too_small_for_a_level_leaves_it_as_it_is():
    path = BoxPath(0.1, 0.1, ((0.5, 0.5),) * 4)
    model = vc_core.load(BUNDLED)
    x, timesteps = torch.zeros(1, 4, 4, 8, 8), torch.tensor([900])
    conditioning = Conditioning(torch.zeros(1, 77, model.config.unet.context_dim), fps=torch.tensor([8.0]))
    hooks = FreeTraj(path, (1,))(PassInputs(("positive",), x, timesteps, conditioning))
    with torch.inference_mode():
        assert goldens.error(model.unet(x, timesteps, conditioning, hooks), model.unet(x, timesteps, conditioning)) <= 1e-5


def test_freetraj_on_the_bundled_model():
    """No edited step is the model alone, to the bit; batches and windows are as they are alone."""
    model, prompt = vc_core.load(BUNDLED), "a red circle moving right"
    plain = model.text_to_video(prompt, guidance_scale=4.0, **SETTINGS)
    tokens = subject_places(prompt, "red circle", model.config)
    assert tokens == (2, 3)
    idle = model.text_to_video(prompt, guidance_scale=4.0, hooks=[FreeTraj(BOX, tokens, 0)], **SETTINGS)
    assert (idle - plain).abs().max() <= 1e-4
    assert (model.text_to_video(prompt, guidance_scale=4.0, hooks=[FreeTraj(BOX, tokens, 2)], **SETTINGS) - plain).abs().max() > 1e-2
    with pytest.raises(InputError, match="'blue square' is not in the prompt"):
        subject_places(prompt, "blue square", model.config)
    with pytest.raises(InputError, match="say which words"):
        FreeTraj(BOX, ())
    with pytest.raises(InputError, match="path has 4 frames, but the video has 5"):
        FreeTraj(BOX, (1,))(PassInputs(("positive",), torch.zeros(1, 4, 5, 8, 8), torch.tensor([1]), Conditioning(torch.zeros(1, 77, 8))))


def test_a_drawn_box_needs_a_place_in_the_finest_attention():
    """A smaller one would change nothing: it is refused. In a grid of 8 by 8, half a place is a sixteenth of the picture."""
    unet = load_config("tiny_t2v").unet
    tracks = Tracks(torch.full((1, 4, 2), 32.0), torch.ones(1, 4, dtype=torch.bool), size=(64, 64))
    assert box_path(tracks, 0.07, unet, (8, 8)).grid(8, 8) == (1, 1)
    with pytest.raises(InputError, match=r"0.05 x 0.05 of the picture's width and height.*at least 0.0625 x 0.0625"):
        box_path(tracks, 0.05, unet, (8, 8))
    assert box_path(tracks, 0.05, unet, (16, 16)).grid(16, 16) == (1, 1)


def test_freetraj_without_guidance_says_that_only_the_noise_follows(caplog):
    x, conditioning = torch.zeros(1, 4, 4, 8, 8), Conditioning(torch.zeros(1, 77, 8))
    for step in (0, 1):
        inputs = PassInputs(("positive",), x, torch.tensor([1]), conditioning, step, guided=False)
        assert FreeTraj(BOX, (1,))(inputs) is None
    assert [record.message for record in caplog.records] == [
        "FreeTraj edits attention with guidance only (cfg above 1): without it, the noise alone follows the path."
    ]


def test_a_drawn_box_is_at_the_nearest_place_of_a_grid():
    """Of every place in the picture; the authors' boxes are half a place up and left in the mean."""
    nearest, down = [], []
    for corner in torch.linspace(0.0, 0.65, 53, dtype=torch.float64).tolist():
        table = torch.tensor([[corner, corner + 0.35, 0.2, 0.55]], dtype=torch.float64)
        for path, off in ((BoxPath.from_table(table), nearest), (BoxPath(0.35, 0.35, ((corner, 0.2),)), down)):
            box = path.box(0, 8, 8)
            off.append((box.rows.start + box.rows.stop) / 2 - 8 * (corner + 0.175))
    assert max(map(abs, nearest)) <= 0.5 + 1e-4 and abs(sum(nearest) / len(nearest)) < 0.05
    assert -0.9 < sum(down) / len(down) < -0.7  # half a row, and the box is 2 rows in place of 2.8
    assert BoxPath.from_table(table).grid(8, 8) == (3, 3) and BoxPath(0.35, 0.35, ((0.1, 0.2),)).grid(8, 8) == (2, 2)
    outside = BoxPath.from_table(torch.tensor([[-0.2, 0.15, 0.9, 1.25]], dtype=torch.float64)).box(0, 8, 8)
    assert (outside.rows, outside.columns, outside.cut) == (slice(0, 1), slice(7, 8), (2, 0))


def test_keys_of_a_box():
    for keys in ([(0, 0, 0.3, 0, 0.3)], [(3, 0, 0.3, 0, 0.3), (3, 0, 0.4, 0, 0.3)], []):
        with pytest.raises(InputError, match="at least two keys"):
            BoxPath.from_keys(keys)
    assert BoxPath.from_keys([(0, 0, 0.3, 0, 0.3), (5, 0.5, 0.8, 0, 0.3)], 40).frames == 40
    with pytest.raises(InputError, match="box's height is 1.2"):
        BoxPath(1.2, 0.3, ((0.0, 0.0),))


def test_the_box_s_noise_is_drawn_in_the_documented_order():
    noise = BoxNoise((2, 4, 4, 8, 8), 5, BOX)
    second = BoxNoise((1, 4, 4, 8, 8), 6, BOX)
    assert torch.equal(noise.start[1:], second.start)  # the second video of a batch is the one of the next seed
    own, apart = (torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**32))
    total = torch.randn(4, 4, 8, 8, generator=own)
    box, high = torch.randn(4, 4, 4, generator=apart), torch.randn(4, 4, 8, 8, generator=apart)
    assert torch.equal(noise.start[:1], start_with_box(total[None], box[None], high[None], BOX))
    assert torch.equal(next(noise.steps())[0], torch.randn(4, 4, 8, 8, generator=own))


def test_generate_follows_a_path_and_refuses_what_it_can_t(tmp_path, capsys):
    path, target = tmp_path / "path.json", tmp_path / "clip.webp"
    path.write_text(json.dumps([{"x": 10, "y": 32}, {"x": 50, "y": 32}]))
    start = ["generate", BUNDLED, "a red circle", "--frames", "2", "--steps", "1", "--output", str(target)]
    assert main([*start, "--trajectory", str(path), "--subject", "circle"]) == 0 and target.is_file()
    for options, words in (
        (["--camera", "pan left"], "no layers for a camera"),
        (["--trajectory", str(path)], "say which words"),
        (["--trajectory", str(tmp_path / "none.json"), "--subject", "circle"], "can't be read"),
        (["--trajectory", str(path), "--subject", "square"], "'square' is not in the prompt"),
    ):
        assert main([*start, *options]) != 0
        assert words in capsys.readouterr().err


def test_a_motion_in_python(camera_only):
    model = load(camera_only["whole"])
    sampling = Sampling.of(model.config, frames=4, height=32, width=32, steps=2, seed=3)
    run = with_motion(model, sampling, Motion(camera=camera_path("pan left", 4)), "a boat")
    expected = adapter(model).controlled(Control(poses=camera_path("pan left", 4).poses[None], seed=3))
    plain = model.text_to_video("a boat", sampling=sampling.changed(hooks=[expected]))
    assert torch.equal(model.text_to_video("a boat", sampling=run), plain)
