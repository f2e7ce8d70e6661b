"""Recorded runs of control: MotionCtrl on VideoCrafter, cameras on DynamiCrafter, FreeTraj."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import vc_core
from harness import goldens
from harness.golden_runs import Run, split_context
from harness.goldens import Recording, Tensors
from harness.weights import weight
from vc_core.adapters.control import Control, ControlAdapter
from vc_core.diffusion.boxes import BoxPath
from vc_core.diffusion.freetraj import FreeTraj
from vc_core.diffusion.noise import RecordedNoise
from vc_core.diffusion.samplers import Tables
from vc_core.models.conditioning import Conditioning
from vc_core.pipeline import VideoModel

MOTIONCTRL, CAMERAS, FREETRAJ = "motionctrl_vc", "camctrl_dc", "freetraj"
#: The models with a camera over DynamiCrafter.
CAMERA_MODELS = tuple(name for name in ("motionctrl", "cameractrl", "cami2v") if (goldens.FOLDER / CAMERAS / name).is_dir())


def recorded(folder: str) -> bool:
    """Whether a folder is there, with its settings."""
    return (goldens.FOLDER / folder / "settings.json").is_file()


def of_camera(name: str) -> Recording:
    """The recording of one of :data:`CAMERA_MODELS`."""
    return goldens.recording(f"{CAMERAS}/{name}")


def groups(folder: str, kind: str) -> list[str]:
    """The cases or runs of a file; none without the folder."""
    there = recorded(folder) and goldens.recording(folder).has(kind)
    return sorted(goldens.read(folder, kind).groups(), key=int) if there else []


def checkpoint(folder: Recording, camera_only: bool = False) -> dict[str, Tensor]:
    """The file of a model as its authors would publish it.

    Args:
        camera_only: MotionCtrl's file on VideoCrafter2, with what its authors drop.
    """
    shapes = {name: shape for name, shape in folder.json("manifest.json") if not (camera_only and name.startswith("omcm."))}
    if camera_only:
        shapes |= dict(folder.json("manifest_camera.json"))
    drawn = {name: torch.from_numpy(weight(name, shape, folder.seed)) for name, shape in shapes.items()}
    buffers = dict(folder.read("buffers"))
    if camera_only:
        buffers["scale_arr"] = torch.cat([torch.linspace(1, 0.7, 400), torch.full((1000,), 0.7)])
    return drawn | buffers


def write(tensors: dict[str, Tensor], path: Path) -> Path:
    """Writes a checkpoint and returns its path."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def motionctrl_config() -> dict[str, Any]:
    """What MotionCtrl's tensors don't tell: the recorded text encoder is wider than the others, with heads of the same width."""
    config: dict[str, Any] = goldens.recording(MOTIONCTRL).configuration
    return {**config, "text_encoder": {"heads": 3}}


@cache
def motionctrl(camera_only: bool = False) -> VideoModel:
    """MotionCtrl on VideoCrafter."""
    with TemporaryDirectory() as folder:
        path = write(checkpoint(goldens.recording(MOTIONCTRL), camera_only), Path(folder) / "motionctrl.safetensors")
        return vc_core.load(path, config=motionctrl_config())


@cache
def camera_model(name: str) -> VideoModel:
    """One of :data:`CAMERA_MODELS`."""
    with TemporaryDirectory() as folder:
        path = write(checkpoint(of_camera(name)), Path(folder) / f"{name}.safetensors")
        return vc_core.load(path, config=of_camera(name).configuration)


@cache
def freetraj_model() -> VideoModel:
    """VideoCrafter2's form."""
    return goldens.load_recorded(goldens.recording(FREETRAJ, "vc2"))


def adapter(model: VideoModel) -> ControlAdapter:
    """The only adapter of a model."""
    (found,) = model.adapters.values()
    assert isinstance(found, ControlAdapter)
    return found


def poses_of(numbers: Tensor) -> Tensor:
    """``[B, T, 12]`` -> ``[B, T, 3, 4]``."""
    return numbers.unflatten(-1, (3, 4))


def motionctrl_control(run: str) -> Control:
    """The control of a recorded run of MotionCtrl."""
    golden, what = goldens.read(MOTIONCTRL, "sampling"), motionctrl_settings(run)["what"]
    poses = None if what == "objects" else poses_of(golden[f"{run}.pose"])
    return Control(poses=poses, flow=None if what == "camera" else golden["flow"].float())


def motionctrl_settings(run: str) -> dict[str, Any]:
    settings: dict[str, Any] = goldens.recording(MOTIONCTRL).json("settings.json")[f"run.{run}"]
    return settings


def run_motionctrl(run: str) -> tuple[Run, VideoModel]:
    """A recorded run of MotionCtrl, from the recorded texts: its authors cut their negative prompt after 75 tokens."""
    settings, golden = motionctrl_settings(run), goldens.read(MOTIONCTRL, "sampling")
    model = motionctrl("camera file" in settings["weights"])
    predictions: list[Tensor] = []
    latent = model.sample(
        Conditioning(golden[f"{run}.text"]), Conditioning(golden["negative"]),
        noise=RecordedNoise(golden[f"{run}.x_T"], golden[f"{run}.noise"]),
        callback=lambda _step, _steps, x0, _x: predictions.append(x0), steps=settings["steps"], eta=settings["eta"],
        guidance_scale=settings["cfg"], hooks=[adapter(model).controlled(motionctrl_control(run))],
    )
    return Run(predictions, latent, model.decode(latent)), model


def camera_settings(name: str, run: str) -> dict[str, Any]:
    """Of one model, with what all models have in common."""
    common = goldens.recording(CAMERAS).json("settings.json")[f"run.{run}"]
    return {**common, **of_camera(name).json("settings.json")[f"run.{run}"]}


def camera_control(name: str, run: str) -> Control:
    """The control of a recorded run of one of :data:`CAMERA_MODELS`."""
    golden, settings = goldens.read(CAMERAS, "common"), camera_settings(name, run)
    drawn = of_camera(name).read("sampling")[f"{run}.drawn"][..., 0] if name == "cami2v" else None
    return Control(
        poses=golden[f"run.{run}.w2c"], intrinsics=golden["run.intrinsics"], conditioned_frame=settings["cond_frame"],
        trace=settings["trace"], drawn=drawn,
    )


def camera_sampling(name: str, run: str) -> dict[str, Any]:
    """The settings of :class:`vc_core.sampling.Sampling` of a recorded run."""
    settings = camera_settings(name, run)
    return {
        "steps": settings["steps"], "eta": settings["eta"], "guidance_scale": settings["cfg"], "guidance_rescale": settings["rescale"],
        "fps": settings["fs"], "spacing": settings["spacing"], "camera_guidance_scale": settings["camera_cfg"],
        "camera_guidance_schedule": settings["camera_cfg_scheduler"],
    }


def camera_contexts(model: VideoModel, run: str) -> tuple[Conditioning, Conditioning]:
    """The positive and the negative conditioning, from the run's texts and image, with its recorded latent at every frame."""
    golden = goldens.read(CAMERAS, "common")
    settings, frames = goldens.recording(CAMERAS).json("settings.json")[f"run.{run}"], golden[f"run.{run}.x_T"].shape[2]
    size = frames, *golden["run.picture"].shape[2:]
    both = model.image_conditioning(golden["run.picture"], None, settings["prompt"], settings["negative_prompt"], size)
    concat = golden["run.z"][:, :, None].expand(-1, -1, frames, -1, -1)
    return replace(both[0], concat=concat), replace(both[1], concat=concat)


def recorded_contexts(model: VideoModel) -> tuple[Tensor, Tensor]:
    """The recorded tokens of all runs, ``[1, text and image, width]``."""
    golden = goldens.read(CAMERAS, "common")
    return golden["run.context"], golden["run.negative"]


def run_camera(name: str, run: str) -> Run:
    """A recorded run of one of :data:`CAMERA_MODELS`, with predictions as the reference has them."""
    model, golden = camera_model(name), goldens.read(CAMERAS, "common")
    predictions: list[Tensor] = []
    sampling = camera_sampling(name, run)
    latent = model.sample(
        *camera_contexts(model, run), noise=RecordedNoise(golden[f"run.{run}.x_T"], golden[f"run.{run}.noise"]),
        callback=lambda _step, _steps, x0, _x: predictions.append(x0), hooks=[adapter(model).controlled(camera_control(name, run))],
        **sampling,
    )
    if model.config.schedule.dynamic_rescale:
        scale = _scale_prev(model, sampling)
        predictions = [prediction * each for prediction, each in zip(predictions, scale, strict=True)]
    return Run(predictions, latent, model.decode(latent))


def _scale_prev(model: VideoModel, sampling: dict[str, Any]) -> Tensor:
    visited = model.schedule.spaced(sampling["steps"], sampling["spacing"])
    return Tables.make(model.schedule, visited, sampling["eta"]).scale_prev.flip(0)


def camera_case(case: str, golden: Tensors, model: VideoModel) -> tuple[Tensor, Tensor, Conditioning]:
    """Noisy latents, timesteps and conditioning of a recorded pass of all :data:`CAMERA_MODELS`."""
    text, image = split_context(model, golden[f"unet.{case}.context"])
    x = golden[f"unet.{case}.x"]
    conditioning = Conditioning(text, image, fps=golden[f"unet.{case}.fs"].float(), concat=x[:, 4:])
    return x[:, :4], golden[f"unet.{case}.timesteps"], conditioning


def freetraj_settings(kind: str) -> list[dict[str, Any]]:
    """The settings of all cases of a kind."""
    settings: list[dict[str, Any]] = goldens.recording(FREETRAJ).json("settings.json")[kind]
    return settings


def freetraj_of(settings: dict[str, Any]) -> FreeTraj:
    """FreeTraj as a case or a run has it."""
    return FreeTraj(BoxPath.from_keys(settings["keys"]), tuple(settings["tokens"]), settings.get("edited_steps", 6))


def run_freetraj(run: str) -> Run:
    """A recorded run of FreeTraj."""
    model, golden, settings = freetraj_model(), goldens.read(FREETRAJ, "sampling"), freetraj_settings("runs")[int(run)]
    texts = [Conditioning(model.encode_text([prompt])) for prompt in (settings["prompt"], "")]
    start = golden[f"{run}.x_T"]
    noise = golden[f"{run}.noise"] if f"{run}.noise" in golden else torch.zeros(settings["passes"], *start.shape)
    predictions: list[Tensor] = []
    latent = model.sample(
        *texts, noise=RecordedNoise(start, noise), callback=lambda _step, _steps, x0, _x: predictions.append(x0),
        steps=settings["steps"], eta=settings["eta"], guidance_scale=settings["guidance"], fps=settings["fps"],
        hooks=[freetraj_of(settings)],
    )
    return Run(predictions, latent, model.decode(latent))
