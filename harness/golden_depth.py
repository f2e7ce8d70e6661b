"""The recorded depth model: what the core computes from its inputs."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import vc_core
from harness import goldens
from harness.golden_runs import Run
from harness.golden_settings import SettledRun, settings_of
from vc_core.diffusion.noise import RecordedNoise
from vc_core.media.depth import prepare_depth
from vc_core.models.conditioning import Conditioning
from vc_core.pipeline import VideoModel

FOLDER = "make_your_video"
FORM = "make_your_video_v1"
#: Frames that the reference can make at most; the core has no such bound.
REFERENCE_FRAMES = 64


@cache
def load() -> VideoModel:
    """The recorded model."""
    with TemporaryDirectory() as temporary:
        path = goldens.write_checkpoint(FOLDER, Path(temporary) / f"{FOLDER}.safetensors")
        return vc_core.load(path, config={"name": FORM, **goldens.recording(FOLDER).configuration})


settings = partial(settings_of, FOLDER)


class DepthRun(SettledRun):
    """A run of this folder."""

    folder = FOLDER

    @property
    def maps(self) -> Tensor:
        """The depth maps ``[1, 1, T, H, W]``."""
        return self.tensor("maps").movedim(1, 0)[None]

    @property
    def noise(self) -> RecordedNoise:
        """The start and each step's noise, which runs without any don't record."""
        start = self.tensor("x_T")
        has_noise = f"{self.run}.noise" in goldens.read(FOLDER, "sampling")
        return RecordedNoise(start, self.tensor("noise") if has_noise else start.expand(self.settings["passes"], *start.shape) * 0)

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings of :class:`vc_core.sampling.Sampling`."""
        given = self.settings
        return {"steps": given["steps"], "eta": given["eta"], "guidance_scale": given["guidance"], "spacing": "uniform"}


@torch.inference_mode()
def run_sampling(run: DepthRun) -> Run:
    """A run from its depth maps, noise and prompts."""
    model, predictions, size = load(), list[Tensor](), run.tensor("x_T").shape[-2:]
    concat = prepare_depth(run.maps, *size, "frame")
    both = [Conditioning(model.encode_text([run.settings[each]]), concat=concat) for each in ("prompt", "negative")]
    latent = model.sample(*both, noise=run.noise, callback=lambda _step, _steps, x0, _x: predictions.append(x0), **run.sampling)
    return Run(predictions, latent, model.decode(latent))


@torch.inference_mode()
def run_unet(case: str) -> Tensor:
    """One pass from recorded inputs."""
    golden = goldens.read(FOLDER, "unet")
    x = golden[f"{case}.x"]
    return load().unet(x[:, :4], golden[f"{case}.timesteps"], Conditioning(golden[f"{case}.context"], concat=x[:, 4:]))


@torch.inference_mode()
def run_layer(case: str) -> Tensor:
    """A convolution over time, or a temporal transformer, on recorded inputs."""
    x = goldens.read(FOLDER, "layers")[f"{case}.x"]
    name = settings("layers")[int(case)]["layer"].removeprefix("model.diffusion_model.")
    layer = load().unet.get_submodule(name)
    if name.endswith("temopral_conv"):
        return layer(x)
    frames = x.movedim(2, 1).flatten(0, 1)
    run = load().unet.prepare(
        x.new_zeros(len(x), 4, *x.shape[2:]), torch.zeros(len(x)),
        Conditioning(x.new_zeros(len(x), 77, 32), concat=x.new_zeros(len(x), 1, *x.shape[2:])),
    )
    return layer(frames, run).unflatten(0, (len(x), x.shape[2])).movedim(1, 2)
