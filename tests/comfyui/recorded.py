"""Recorded runs in ComfyUI; what a UNet took and gave there, and the core's UNet on the same."""

from __future__ import annotations

from typing import Any

import pytest
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness import golden_contents, goldens
from harness.golden_runs import Settings
from harness.graphs import TextGraph, out
from harness.server import Server
from vc_core.diffusion.deep_cache import DeepFeatures
from vc_core.diffusion.schedule import Schedule
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import Hooks, PassInputs
from vc_core.models.unet import UNet

POSITIVE, NEGATIVE = 0, 1
#: Between the latents that ComfyUI shows and those that a model sees.
LATENT_SCALE = 0.18215


def runs(*models: str) -> list[Any]:
    """The recorded runs of these models, as parameters of a model and a run; those after each model's first are long tests."""
    return [
        pytest.param(name, run, marks=[pytest.mark.full] if index else [])
        for name in models
        for index, run in enumerate(golden_contents.runs(goldens.recording(name)))
    ]


def frames_of(latents: Tensor) -> Tensor:
    """Latents ``[..., B, C, T, h, w]`` as ComfyUI has them, ``[..., B T, C, h, w]``."""
    return rearrange(latents.float(), "... b c t h w -> ... (b t) c h w").contiguous()


def settings_of(model: str, run: str) -> Settings:
    """The settings of a recorded run."""
    return Settings.read(goldens.recording(model), run)


def recorded_sampling(comfyui: Server, graph: TextGraph, model: str, run: str) -> dict[str, list[Any]]:
    """Inputs of SamplerCustomAdvanced for a recorded run, whose size the graph's blank latent takes on: noise, sampler and sigmas."""
    golden, settings = goldens.read(model, "sampling"), settings_of(model, run)
    videos, _, frames, height, width = golden[f"{run}.x_T"].shape
    graph.prompt[graph.latent[0]]["inputs"] = {"width": 8 * width, "height": 8 * height, "length": frames, "batch_size": videos}
    file = f"{model}_{run}_noise.st"
    tensors = {"noise": frames_of(golden[f"{run}.x_T"]), "steps": frames_of(golden[f"{run}.noise"])}
    save_file(tensors, comfyui.base / "input" / file)
    ddim = graph.add("VideoCrafterDDIM", eta=settings.eta)
    scheduler = graph.add("VideoCrafterScheduler", model=graph.model, steps=settings.steps, denoise=1.0, spacing=settings.spacing)
    return {
        "noise": out(graph.add("TestNoise", file=file)),
        "sampler": out(graph.add("TestStepNoise", sampler=out(ddim), file=file)),
        "sigmas": out(scheduler),
    }


def assert_recorded(model: str, run: str, saved: dict[str, Tensor]) -> None:
    """The latent and, where it is recorded, the video are the reference's."""
    golden = goldens.read(model, "sampling")
    assert goldens.error(saved["latent"] * LATENT_SCALE, frames_of(golden[f"{run}.latent"])) <= goldens.RUN_TOLERANCE
    if f"{run}.video" in golden:
        video = rearrange(golden[f"{run}.video"], "b c t h w -> (b t) h w c")
        assert goldens.pixel_error(saved["image"] * 2 - 1, video) <= goldens.PIXEL_TOLERANCE


class Pass:
    """One pass of several conditionings through a UNet, as a node TestRecord wrote it, with ``frames`` a video."""

    def __init__(self, tensors: dict[str, Tensor], frames: int) -> None:
        self.tensors, self.frames = tensors, frames

    @property
    def conditionings(self) -> list[int]:
        return self.tensors["conditionings"].tolist()

    def of(self, conditioning: int, name: str = "out") -> Tensor:
        """The rows of a conditioning, of what the UNet gave (or was given), ``[frames, 4, h, w]``."""
        return self.tensors[name].chunk(len(self.conditionings))[self.conditionings.index(conditioning)]

    def residuals(self, part: str) -> list[Tensor | None]:
        """What ControlNets gave for a part of the UNet, the first block's last."""
        return [self.tensors.get(f"{part}.{index}") for index in range(int(self.tensors.get(f"{part}.count", 0)))]

    @property
    def controlled(self) -> bool:
        return any(self.residuals(part) for part in ("input", "middle", "output"))

    @property
    def inputs(self) -> PassInputs:
        """What the core's UNet takes of it."""
        rows = ("timesteps", "context", "fps", "image_tokens", "image_strength")
        given = {name: self.tensors[name][:: self.frames] for name in rows if name in self.tensors}
        timesteps, conditioning = given.pop("timesteps"), Conditioning(given.pop("context"), **given)
        x = rearrange(self.tensors["x"], "(n t) c h w -> n c t h w", t=self.frames)
        roles = tuple("positive" if each == POSITIVE else "negative" for each in self.conditionings)
        return PassInputs(roles, x, timesteps, conditioning)

    def by_hand(self, unet: UNet, hooks: Hooks | None = None, deep: DeepFeatures | None = None) -> Tensor:
        """The core's UNet on the same, ``[n, 4, h, w]``."""
        given = self.inputs
        x, conditioning = given.x, given.conditioning
        inputs = unet.prepare(x, given.timesteps, conditioning, hooks)
        hidden = unet.stem(x, conditioning, inputs)
        hidden = unet.body(hidden, inputs) if deep is None else deep.run(unet, hidden, inputs)
        out = unet.head(hidden, inputs)
        return rearrange(out, "n c t h w -> (n t) c h w")


def passes(comfyui: Server, file: str, frames: int = 4) -> list[Pass]:
    """The passes in the order in which they ran."""
    return [Pass(load_file(path), frames) for path in sorted((comfyui.base / "output" / file).iterdir())]


class Residuals(Hooks):
    """Adds what a ControlNet gave in a pass."""

    def __init__(self, seen: Pass) -> None:
        self.input, self.middle, self.output = (seen.residuals(part)[::-1] for part in ("input", "middle", "output"))

    @staticmethod
    def sum(hidden: Tensor, residuals: list[Tensor | None], number: int) -> Tensor:
        residual = residuals[number] if number < len(residuals) else None
        return hidden if residual is None else hidden + residual

    def after_input_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.sum(hidden, self.input, number)
        return hidden, hidden

    def after_middle_block(self, hidden: Tensor) -> Tensor:
        return self.sum(hidden, self.middle, 0)

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        return hidden, self.sum(skip, self.output, number)


class Start:
    """ComfyUI's variables at the last timestep of training, where its schedulers start."""

    def __init__(self, schedule: Schedule) -> None:
        self.prediction = schedule.prediction
        self.alpha, self.scale = schedule.alphas_cumprod[-1].double(), schedule.scale[-1].double()
        kept = self.alpha.clamp(min=4.8973451890853435e-08)
        self.sigma, self.input_scale = ((1 - kept) / kept).sqrt() / self.scale, kept.sqrt() * self.scale

    def x(self, seen: Tensor) -> Tensor:
        """The sampler's sample, of what the UNet saw of it, ``[n, 4, h, w]``."""
        return seen.double() / self.input_scale

    def denoised(self, seen: Tensor, predicted: Tensor) -> Tensor:
        """What a prediction says is clean."""
        if self.prediction == "eps":
            return self.x(seen) - self.sigma * predicted.double()
        return (self.alpha.sqrt() * seen.double() - (1 - self.alpha).sqrt() * predicted.double()) / self.scale
