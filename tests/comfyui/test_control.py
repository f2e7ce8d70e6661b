"""Cameras and trajectories in a real ComfyUI: the recorded runs, the core's clips, the off switch, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vc_core
from harness import golden_control, goldens
from harness.bench import T2V, same_pixels
from harness.golden_control import CAMERA_MODELS, CAMERAS, FREETRAJ, MOTIONCTRL, of_camera
from harness.graphs import TextGraph, assert_fails, out
from tests.comfyui.recorded import LATENT_SCALE, frames_of
from vc_core.control.cameras import camera_path
from vc_core.diffusion.boxes import BoxNoise, BoxPath
from vc_core.diffusion.freetraj import FreeTraj

PATH = json.dumps([{"x": 12, "y": 20}, {"x": 50, "y": 40}])
BOTH, CAMERA_ONLY = "motionctrl_both.safetensors", "motionctrl_videocrafter2_cmcm.safetensors"


@pytest.fixture(scope="module", autouse=True)
def files(checkpoints: Path, comfyui) -> None:
    """The recorded models, and an adapter's file without its model."""
    recorded = goldens.recording(MOTIONCTRL)
    for name, camera_only in ((BOTH, False), (CAMERA_ONLY, True)):
        tensors = golden_control.checkpoint(recorded, camera_only)
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("cond_stage_model")}
        golden_control.write(tensors, checkpoints / name)
    for name in CAMERA_MODELS:
        whole = golden_control.checkpoint(of_camera(name))
        golden_control.write(whole, checkpoints / f"camera_{name}.safetensors")
    goldens.recording(FREETRAJ, "vc2").write_checkpoint(checkpoints / "freetraj.safetensors")


class MotionGraph(TextGraph):
    """A graph with MotionCtrl, whose texts are the recorded ones."""

    def __init__(self, comfyui, file, frames):
        super().__init__(f"{T2V}.safetensors", "a boat", frames=frames)
        golden = goldens.read(MOTIONCTRL, "guidance")
        save_file({"text": golden["context"], "negative": golden["negative"]}, comfyui.base / "input" / "motion_texts.st")
        self.model = out(self.add("VideoCrafterLoader", ckpt_name=file, weight_dtype="default"))
        self.positive, self.negative = (
            out(self.add("TestText", conditioning=each, file="motion_texts.st", name=name))
            for each, name in ((self.positive, "text"), (self.negative, "negative"))
        )


def given(comfyui, file, start, steps):
    """Writes the start and the draws of a run for TestNoise and TestStepNoise."""
    save_file({"noise": frames_of(start), "steps": frames_of(steps)}, comfyui.base / "input" / file)


def camera_of(graph, comfyui, file, poses, intrinsics=None):
    tensors = {"poses": poses.double().contiguous()}
    if intrinsics is not None:
        tensors["intrinsics"] = intrinsics
    save_file(tensors, comfyui.base / "input" / file)
    return out(graph.add("TestCamera", file=file))


def controlled(graph, comfyui, file, **tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, comfyui.base / "input" / file)
    graph.patch("TestControl", file=file)


def sampled(graph, file, steps, eta, spacing, **guider):
    ddim = graph.add("VideoCrafterDDIM", eta=eta)
    scheduler = graph.add("VideoCrafterScheduler", model=graph.model, steps=steps, denoise=1.0, spacing=spacing)
    kind = "VideoCrafterCameraGuider" if "camera_cfg" in guider else "CFGGuider"
    chosen = graph.add(kind, model=graph.model, positive=graph.positive, negative=graph.negative, **guider)
    return out(graph.add(
        "SamplerCustomAdvanced", guider=out(chosen), sampler=out(graph.add("TestStepNoise", sampler=out(ddim), file=file)),
        sigmas=out(scheduler), noise=out(graph.add("TestNoise", file=file)), latent_image=graph.latent,
    ))


def trajectory(graph, method="auto", **more):
    settings = {"subject": "", "prompt": "", "box_size": 0.4, "edited_steps": 6, "noise_seed": 0, "paths": PATH} | more
    node = graph.add("VideoCrafterTrajectory", model=graph.model, latent=graph.latent, method=method, **settings)
    graph.model = out(node, 0)
    return out(node, 1)


def apply_camera(graph, camera, **more):
    settings = {"trace_scale": 1.0, "conditioned_frame": 0} | more
    graph.patch("VideoCrafterApplyCamera", camera=camera, latent=graph.latent, **settings)


@pytest.mark.parametrize("run", golden_control.groups(MOTIONCTRL, "sampling"))
def test_the_recorded_runs_of_motionctrl(comfyui, run):
    golden, settings = goldens.read(MOTIONCTRL, "sampling"), golden_control.motionctrl_settings(run)
    said = goldens.recording(MOTIONCTRL).json("settings.json")
    start, file = golden[f"{run}.x_T"], f"motionctrl_{run}.st"
    graph = TextGraph(f"{T2V}.safetensors", f"{settings['prompt']}, {said['prompt_suffix']}", frames=start.shape[2])
    file_name = CAMERA_ONLY if "camera file" in settings["weights"] else BOTH
    graph.model = out(graph.add("VideoCrafterLoader", ckpt_name=file_name, weight_dtype="default"))
    # The authors' texts, one of which they cut, of a text encoder that core can't load: its width is not that of its embedding.
    save_file({"text": golden[f"{run}.text"], "negative": golden["negative"]}, comfyui.base / "input" / f"text_{file}")
    graph.positive, graph.negative = (
        out(graph.add("TestText", conditioning=each, file=f"text_{file}", name=name))
        for each, name in ((graph.positive, "text"), (graph.negative, "negative"))
    )
    if settings["what"] != "objects":
        apply_camera(graph, camera_of(graph, comfyui, f"camera_{file}", golden[f"{run}.pose"][0].unflatten(-1, (3, 4))))
    if settings["what"] != "camera":
        trajectory(graph)
        controlled(graph, comfyui, f"flow_{file}", flow=golden["flow"].float())
    given(comfyui, file, start, golden[f"{run}.noise"])
    latent = sampled(graph, file, settings["steps"], settings["eta"], "uniform", cfg=settings["cfg"])
    saved = graph.run(comfyui, latent=latent)["latent"] * LATENT_SCALE
    assert goldens.error(saved, frames_of(golden[f"{run}.latent"])) <= goldens.TOLERANCE


@pytest.mark.parametrize("name", CAMERA_MODELS)
@pytest.mark.parametrize("run", ["0", "1"])
def test_the_recorded_runs_of_cameras(comfyui, run, name):
    common = goldens.read(CAMERAS, "common")
    if f"run.{run}.x_T" not in common:
        pytest.skip("not recorded")
    golden = of_camera(name).read("sampling")
    settings, start, file = golden_control.camera_settings(name, run), common[f"run.{run}.x_T"], f"{name}_{run}.st"
    graph = TextGraph(
        f"camera_{name}.safetensors", settings["prompt"], settings["negative_prompt"], frames=start.shape[2], fps=settings["fs"]
    )
    save_file({"image": ((common["run.picture"] + 1) / 2).movedim(1, -1).contiguous()}, comfyui.base / "input" / f"photo_{file}")
    node = graph.add(
        "VideoCrafterImageToVideo", positive=graph.positive, negative=graph.negative, clip_vision=graph.clip_vision, vae=graph.vae,
        latent=graph.latent, image=out(graph.add("TestImage", file=f"photo_{file}")), fps=float(settings["fs"]), strength=1.0,
    )
    concat = common["run.z"][:, :, None].expand(-1, -1, start.shape[2], -1, -1)
    save_file({"concat": frames_of(concat) / LATENT_SCALE}, comfyui.base / "input" / f"concat_{file}")
    graph.positive, graph.negative = (
        out(graph.add("TestConcat", conditioning=out(node, slot), file=f"concat_{file}")) for slot in (0, 1)
    )
    height, width = common["run.picture"].shape[2:]
    lens = common["run.intrinsics"][0].double()
    shares = torch.stack([lens[:, 0, 0] / width, lens[:, 1, 1] / height, lens[:, 0, 2] / width, lens[:, 1, 2] / height], dim=1)
    camera = camera_of(graph, comfyui, f"camera_{file}", common[f"run.{run}.w2c"][0, :, :3], shares.contiguous())
    apply_camera(graph, camera, trace_scale=settings["trace"], conditioned_frame=settings["cond_frame"])
    if name == "cami2v":
        controlled(graph, comfyui, f"drawn_{file}", drawn=golden[f"{run}.drawn"][..., 0])
    given(comfyui, file, start, common[f"run.{run}.noise"])
    latent = sampled(
        graph, file, settings["steps"], settings["eta"], settings["spacing"], cfg=settings["cfg"], camera_cfg=settings["camera_cfg"],
        schedule=settings["camera_cfg_scheduler"], guidance_rescale=settings["rescale"],
    )
    saved = graph.run(comfyui, latent=latent)["latent"] * LATENT_SCALE
    assert goldens.error(saved, frames_of(golden[f"{run}.latent"])) <= goldens.TOLERANCE


@pytest.mark.parametrize("run", golden_control.groups(FREETRAJ, "sampling"))
def test_the_recorded_runs_of_freetraj(comfyui, run):
    """The node's box and subject, and the recorded start."""
    golden, settings = goldens.read(FREETRAJ, "sampling"), golden_control.freetraj_settings("runs")[int(run)]
    start, file = golden[f"{run}.x_T"], f"freetraj_{run}.st"
    frames, height, width = start.shape[2:]
    graph = TextGraph("freetraj.safetensors", settings["prompt"], frames=frames, fps=settings["fps"])
    graph.prompt[graph.latent[0]]["inputs"] |= {"height": 8 * height, "width": 8 * width}
    words = {(1, 2): "A squirrel", (2,): "squirrel"}[tuple(settings["tokens"])]
    path = BoxPath.from_keys(settings["keys"], frames)
    table = torch.tensor([[top, top + path.height, left, left + path.width] for top, left in path.corners], dtype=torch.float64)
    save_file({"boxes": table}, comfyui.base / "input" / f"boxes_{file}")
    tracks = out(graph.add("TestBoxes", file=f"boxes_{file}", width=8 * width, height=8 * height))
    trajectory(
        graph, subject=words, prompt=settings["prompt"], edited_steps=settings["edited_steps"], clip=graph.clip, tracks=tracks, paths=""
    )
    controlled(graph, comfyui, f"exact_{file}", boxes=table)  # boxes that are drawn are rounded, which moves some of these by a row
    noise = golden[f"{run}.noise"] if f"{run}.noise" in golden else torch.zeros(settings["passes"], *start.shape)
    given(comfyui, file, start, noise)
    latent = sampled(graph, file, settings["steps"], settings["eta"], "uniform", cfg=settings["guidance"])
    saved = graph.run(comfyui, latent=latent)["latent"] * LATENT_SCALE
    assert goldens.error(saved, frames_of(golden[f"{run}.latent"])) <= goldens.TOLERANCE


def test_a_seed_gives_the_core_s_freetraj(comfyui, checkpoints):
    """The node's noise too, and without guidance nothing is edited."""
    prompt = goldens.PROMPTS[0]
    graph = TextGraph(f"{T2V}.safetensors", prompt, frames=4)
    noise = trajectory(graph, subject="black swan", prompt=prompt, edited_steps=2, noise_seed=7, clip=graph.clip)
    saved = graph.run(comfyui, image=graph.decode(graph.sample(seed=7, cfg=7.0, noise=noise)))
    model = vc_core.load(checkpoints / f"{T2V}.safetensors")
    table = torch.tensor([[12 + (50 - 12) * frame / 3, 20 + (40 - 20) * frame / 3] for frame in range(4)], dtype=torch.float64) / 64
    path = BoxPath.from_table(torch.stack([table[:, 1] - 0.2, table[:, 1] + 0.2, table[:, 0] - 0.2, table[:, 0] + 0.2], dim=1))
    hooks, shape = [FreeTraj(path, (2, 3), 2)], (1, 4, 4, 8, 8)
    video = model.text_to_video(
        prompt, frames=4, height=64, width=64, steps=4, guidance_scale=7.0, fps=8, eta=1.0, spacing="uniform", hooks=hooks,
        noise=BoxNoise(shape, 7, path),
    )
    same_pixels(saved["image"], video)


def test_a_model_with_an_adapter_but_no_camera_is_the_model_alone(comfyui, checkpoints):
    """To the bit, and so is FreeTraj with no step to edit."""
    weights = golden_control.checkpoint(goldens.recording(MOTIONCTRL), camera_only=True)
    added = ("cc_projection", "fps_embedding", "scale_arr", "cond_stage_model")
    plain = {name: tensor for name, tensor in weights.items() if not any(part in name for part in added)}
    golden_control.write(plain, checkpoints / "motionctrl_base.safetensors")
    made = []
    for file in (CAMERA_ONLY, "motionctrl_base.safetensors"):
        graph = MotionGraph(comfyui, file, 4)
        made.append(graph.run(comfyui, latent=graph.sample(seed=3))["latent"])
        if file == CAMERA_ONLY:
            graph = MotionGraph(comfyui, file, 4)
            trajectory(graph, method="FreeTraj", subject="boat", prompt="a boat", edited_steps=0, clip=graph.clip)
            made.append(graph.run(comfyui, latent=graph.sample(seed=3))["latent"])
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_a_saved_model_has_its_adapter(comfyui, checkpoints):
    made = []
    for file in (CAMERA_ONLY, "motionctrl_saved.safetensors"):
        graph = MotionGraph(comfyui, file, 4)
        if not made:
            graph.add("ModelSave", model=graph.model, filename_prefix="motionctrl_saved")
        apply_camera(graph, camera_of(graph, comfyui, "left.st", camera_path("pan left", 4).poses))
        made.append(graph.run(comfyui, latent=graph.sample(seed=3, steps=2))["latent"])
        saved = next((comfyui.base / "output").glob("motionctrl_saved*.safetensors"))
        shutil.copyfile(saved, checkpoints / "motionctrl_saved.safetensors")
    assert goldens.error(*made) <= goldens.TOLERANCE


def test_a_camera_at_rest_is_not_no_camera(comfyui):
    made = []
    for at_rest in (False, True):
        graph = MotionGraph(comfyui, CAMERA_ONLY, 4)
        if at_rest:
            apply_camera(graph, camera_of(graph, comfyui, "rest.st", torch.eye(3, 4).expand(4, 3, 4)))
        made.append(graph.run(comfyui, latent=graph.sample(seed=3))["latent"])
    assert goldens.error(made[1], made[0]) > 0.05


def test_a_path_of_another_length_is_fitted(comfyui):
    """Three poses for seven frames are the seven between them."""
    made = []
    for frames in (3, 7):
        path = camera_path("pan left", 3).resampled(frames)
        graph = MotionGraph(comfyui, CAMERA_ONLY, 7)
        apply_camera(graph, camera_of(graph, comfyui, "short.st", path.poses))
        made.append(graph.run(comfyui, latent=graph.sample(seed=3))["latent"])
    assert goldens.error(made[0], made[1]) <= goldens.TOLERANCE


def test_paths_outside_of_the_picture_and_single_points(comfyui):
    for paths in ('[{"x":-20,"y":600},{"x":531,"y":160}]', '[{"x":30,"y":30}]', json.dumps([[[5, 5], [60, 9]]] * 50)):
        graph = MotionGraph(comfyui, BOTH, 8)
        trajectory(graph, paths=paths)
        assert graph.run(comfyui, latent=graph.sample(seed=3, steps=2))["latent"].isfinite().all()
    graph = TextGraph(f"{T2V}.safetensors", "a boat", frames=4)
    noise = trajectory(graph, subject="boat", prompt="a boat", clip=graph.clip, paths='[{"x":-20,"y":600},{"x":531,"y":160}]')
    assert graph.run(comfyui, latent=graph.sample(seed=3, steps=2, noise=noise))["latent"].isfinite().all()


def test_what_is_refused(comfyui):
    graph = TextGraph(f"{T2V}.safetensors", "a boat", frames=4)
    apply_camera(graph, camera_of(graph, comfyui, "rest.st", torch.eye(3, 4).expand(4, 3, 4)))
    graph.add("PreviewAny", source=graph.sample(steps=1))
    assert_fails(comfyui, graph, "VideoCrafterApplyCamera", "no layers for a camera", "MotionCtrl", "VideoCrafter Load Motion Adapter")
    graph = MotionGraph(comfyui, CAMERA_ONLY, 4)
    trajectory(graph)
    graph.add("PreviewAny", source=graph.sample(steps=1))
    assert_fails(comfyui, graph, "VideoCrafterTrajectory", "camera module only", "leave their paths out")
    for more, parts in (
        ({"paths": ""}, ("There is no path", "connect tracks")),
        ({"subject": "", "prompt": "a boat"}, ("which words of the prompt move",)),
        ({"subject": "house", "prompt": "a boat"}, ("'house' is not in the prompt",)),
        ({"subject": "boat", "prompt": "a boat", "paths": json.dumps([[[5, 5], [60, 9]]] * 2)}, ("one subject", "there are 2")),
        ({"subject": "boat", "prompt": "a boat", "box_size": 0.05}, ("0.05 x 0.05 of the picture", "at least 0.0625 x 0.0625")),
    ):
        graph = TextGraph(f"{T2V}.safetensors", "a boat", frames=4)
        trajectory(graph, clip=graph.clip, **more)
        graph.add("PreviewAny", source=graph.sample(steps=1))
        assert_fails(comfyui, graph, "VideoCrafterTrajectory", *parts)
    graph = TextGraph(f"{T2V}.safetensors", "a boat", frames=4)
    for _ in range(2):
        trajectory(graph, clip=graph.clip, subject="boat", prompt="a boat")
    graph.add("PreviewAny", source=graph.sample(steps=1))
    assert_fails(comfyui, graph, "VideoCrafterTrajectory", "follows a path by FreeTraj already", "before the first")
