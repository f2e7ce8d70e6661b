"""Recorded runs of models and methods that start, or are conditioned, in other ways than the base models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import vc_core
from harness import goldens
from harness.golden_runs import Run, split_context
from harness.goldens import Recording
from vc_core.diffusion.noise import RecordedNoise
from vc_core.diffusion.samplers import Tables
from vc_core.models.conditioning import Conditioning
from vc_core.pipeline import VideoModel

CIL, VIEWCRAFTER, FREEINIT = "dynamicrafter_cil", "viewcrafter", "freeinit"
#: The published configurations that the recorded models, which are smaller, are of the form of.
FORMS = {CIL: "dynamicrafter_cil_512_v1", VIEWCRAFTER: "viewcrafter_25_v1"}


def recorded(*folders: str) -> list[str]:
    """Those of the folders that are there."""
    return [name for name in folders if (goldens.FOLDER / name).is_dir()]


def runs(folder: str) -> list[str]:
    """The numbers of the runs that a folder has; none without the folder."""
    return sorted(goldens.read(folder, "sampling").groups()) if recorded(folder) else []


def configuration(folder: str) -> dict[str, Any]:
    """What the tensors of a model don't tell. ViewCrafter's own last step is in its code, not in its configuration."""
    config = {"name": FORMS[folder], **goldens.recording(folder).configuration}
    if folder == VIEWCRAFTER:
        config["schedule"] = config["schedule"] | {"dynamic_rescale": False, "dynamic_rescale_by_image": True}
    return config


@cache
def load(folder: str) -> VideoModel:
    """The recorded model of a folder of :data:`FORMS`."""
    with TemporaryDirectory() as temporary:
        path = goldens.write_checkpoint(folder, Path(temporary) / f"{folder}.safetensors")
        return vc_core.load(path, config=configuration(folder))


@cache
def freeinit_model(model: str) -> VideoModel:
    """A recorded model of FreeInit's folder."""
    return goldens.load_recorded(goldens.recording(FREEINIT, model))


@dataclass(frozen=True)
class ImageRun:
    """A run of CIL or ViewCrafter: its settings, as ``runs.json`` has them, and its tensors."""

    folder: str
    run: str

    @property
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = goldens.recording(self.folder).json("runs.json")[int(self.run)]
        return settings

    def tensor(self, name: str) -> Tensor:
        """``{run}.{name}``, or what all runs have in common."""
        golden = goldens.read(self.folder, "sampling")
        return golden[f"{self.run}.{name}"] if f"{self.run}.{name}" in golden else golden[name]

    @property
    def noise(self) -> RecordedNoise:
        """Without the batch's axis in the file."""
        return RecordedNoise(self.tensor("x_T"), self.tensor("noise")[:, None])

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings of :class:`vc_core.sampling.Sampling`."""
        given = self.settings
        return {
            "steps": given["steps"], "eta": given["eta"], "guidance_scale": given["cfg"], "guidance_rescale": given["rescale"],
            "fps": given["fs"], "spacing": given["spacing"], "start_timestep": given.get("M"),
        }

    def concat(self) -> Tensor:
        """The concat latents ``[1, C, T, h, w]``."""
        concat = self.tensor("concat")
        frames = self.tensor("x_T").shape[2]
        return concat if concat.ndim == 5 else concat[:, :, None].expand(-1, -1, frames, -1, -1)

    def contexts(self, model: VideoModel) -> tuple[Conditioning, Conditioning]:
        """The core's own contexts of the run's prompt and its first image, with the recorded latents."""
        image = goldens.read(self.folder, "sampling")["photo" if self.folder == CIL else "frames"].float()
        first = image if image.ndim == 4 else image[:, :, 0]
        frames, *sides = self.tensor("x_T").shape[2:]
        size = frames, *(side * model.config.downscale for side in sides)
        positive, negative = model.image_conditioning(first, None, self.settings["prompt"], "", size)
        return replace(positive, concat=self.concat()), replace(negative, concat=self.concat())


@torch.inference_mode()
def run_images(model: VideoModel, run: ImageRun) -> Run:
    """A run of CIL or ViewCrafter, with predictions as the reference has them: after the rescaling of the last step."""
    predictions: list[Tensor] = []
    settings = run.sampling
    latent = model.sample(*run.contexts(model), noise=run.noise, callback=lambda _step, _steps, x0, _x: predictions.append(x0), **settings)
    visited = model.schedule.visited(settings["steps"], settings["spacing"], start=settings["start_timestep"])
    scale = Tables.make(model.schedule, visited, settings["eta"]).scale_prev.flip(0)
    predictions = [prediction * each for prediction, each in zip(predictions, scale, strict=True)]
    return Run(predictions, latent, model.decode(latent))


@torch.inference_mode()
def run_unet(model: VideoModel, recorded: Recording, case: str = "") -> Tensor:
    """One pass from recorded inputs, whose names begin with ``case``."""
    golden = recorded.read("unet")
    text, image = split_context(model, golden[f"{case}context"])
    x = golden[f"{case}x"]
    concat = golden[f"{case}concat"] if f"{case}concat" in golden else x[:, 4:]
    conditioning = Conditioning(text, image, fps=golden[f"{case}fs"].float(), concat=concat)
    return model.unet(x[:, :4], golden[f"{case}timesteps"], conditioning)


@dataclass(frozen=True)
class FreeInitRun:
    """A run of FreeInit."""

    run: str

    @property
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = goldens.recording(FREEINIT).json("settings.json")["runs"][int(self.run)]
        return settings

    def tensor(self, name: str) -> Tensor:
        return goldens.read(FREEINIT, "sampling")[f"{self.run}.{name}"]

    @property
    def model(self) -> VideoModel:
        return freeinit_model(self.settings["model"])

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings of :class:`vc_core.sampling.Sampling`."""
        given = self.settings
        return {
            "steps": given["steps"], "eta": given["eta"], "guidance_scale": given["guidance"], "fps": given["fps"], "spacing": "uniform",
            "freeinit_iterations": given["iterations"], "freeinit_filter": given["method"], "freeinit_order": given["n"] or 4,
            "freeinit_spatial_stop": given["d_s"], "freeinit_temporal_stop": given["d_t"], "freeinit_fast": given["use_fast_sampling"],
        }

    @property
    def passes(self) -> list[int]:
        """The steps of each iteration, more than asked for where the spacing makes more."""
        return [len(self.model.schedule.uniform(steps)) for steps in self.settings["asked_steps"]]

    @property
    def noise(self) -> RecordedNoise:
        """The start; then the noise of each iteration's steps, and before each further iteration the fresh noise."""
        golden, total = goldens.read(FREEINIT, "sampling"), sum(self.passes)
        steps = golden[f"{self.run}.noise"] if f"{self.run}.noise" in golden else self.tensor("x_T").expand(total, -1, -1, -1, -1, -1) * 0
        draws, done = [], 0
        for number, passes in enumerate(self.passes):
            draws += list(steps[done : done + passes])
            done += passes
            if number < len(self.passes) - 1:
                draws.append(self.tensor("fresh")[number])
        return RecordedNoise(self.tensor("x_T"), draws)


@torch.inference_mode()
def run_freeinit(run: FreeInitRun) -> tuple[Run, list[Tensor]]:
    """A run of FreeInit, and the latents at the end of each iteration."""
    predictions: list[Tensor] = []
    following: list[Tensor] = []

    def report(_step: int, _steps: int, x0: Tensor, x: Tensor) -> None:
        predictions.append(x0)
        following.append(x)

    model = run.model
    texts = [Conditioning(model.encode_text([prompt])) for prompt in (run.settings["prompt"], "")]
    latent = model.sample(texts[0], texts[1], noise=run.noise, callback=report, **run.sampling)
    ends = [sum(run.passes[: number + 1]) - 1 for number in range(len(run.passes))]
    return Run(predictions, latent, model.decode(latent)), [following[end] for end in ends]
