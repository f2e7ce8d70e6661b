"""The recorded style adapter: its files, and what the core computes from its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import vc_core
from harness import goldens
from harness.golden_runs import Run
from harness.golden_settings import SettledRun, settings_of
from harness.weights import weight
from vc_core.adapters.style import Style, StyleAdapter
from vc_core.diffusion.noise import RecordedNoise
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import PassInputs
from vc_core.pipeline import VideoModel
from vc_core.style import style_features

FOLDER, FORM = "stylecrafter", "t2v_512_v1"


def weights(which: str) -> dict[str, Tensor]:
    """The weights of one of the four files, by the names in it: ``checkpoint``, ``adapter``, ``temporal`` or ``open_clip``."""
    recorded = goldens.recording(FOLDER)
    rows = [(".".join(names), shape) for *names, shape in recorded.json("manifest.json")[which]]
    return {name: torch.from_numpy(weight(name, shape, recorded.seed)) for name, shape in rows}


def write(which: str, path: Path) -> Path:
    """One of the files; the temporal one as its authors save it, a pickle of a state dict for each module."""
    tensors = weights(which)
    if which != "temporal":
        save_file(tensors, path)
        return path
    modules: dict[str, dict[str, Tensor]] = {}
    for module, name, _ in goldens.recording(FOLDER).json("manifest.json")["temporal"]:
        modules.setdefault(module, {})[name] = tensors[f"{module}.{name}"]
    torch.save(modules, path)
    return path


def configuration() -> dict[str, Any]:
    """What the tensors don't tell."""
    return {"name": FORM, "schedule": goldens.recording(FOLDER).schedule}


@cache
def load(temporal: bool) -> VideoModel:
    """The model with the adapter and the image tower, with or without the temporal file."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = write("checkpoint", folder / "t2v_512_v1.safetensors")
        path = write("temporal", folder / "temporal_v1_1.pth") if temporal else base
        return vc_core.load(
            path, config=configuration(), base=base if temporal else None, adapters=[write("adapter", folder / "adapter_v1.safetensors")],
            image_encoder=write("open_clip", folder / "open_clip.safetensors"),
        )


def adapter() -> StyleAdapter:
    """The adapter alone."""
    found = load(False).adapters["adapter_v1"]
    assert isinstance(found, StyleAdapter)
    return found


settings = partial(settings_of, FOLDER)


def picture(number: int) -> Tensor:
    """A style image ``[3, H, W]`` in [-1, 1]; the last one is a formula."""
    golden = goldens.read(FOLDER, "encoders")
    if f"picture.{number}" in golden:
        return golden[f"picture.{number}"].permute(2, 0, 1) / 127.5 - 1
    y, x = torch.meshgrid(torch.arange(600), torch.arange(800), indexing="ij")
    return torch.stack([(y * (c + 1) + x * (3 - c)) // 4 % 256 for c in range(3)]) / 127.5 - 1


def features(numbers: list[int]) -> Tensor:
    """The core's features of style images."""
    return style_features(load(False).networks["image_encoder"], [picture(number) for number in numbers])  # type: ignore[arg-type]


@dataclass(frozen=True)
class GivenStyle(Style):
    """A style of recorded tokens and scales, in place of images."""

    tokens: Tensor | None = None
    scales: Tensor | None = None

    def __call__(self, inputs: PassInputs) -> Any:
        hooks = super().__call__(inputs)
        if not self.strength or hooks is None:
            return hooks
        assert self.tokens is not None and self.scales is not None
        hooks.tokens, hooks.strengths = self.tokens, self.strength * (1 + self.scales[..., 0])
        return hooks


@torch.inference_mode()
def run_unet(case: str, styled: bool = True) -> Tensor:
    """One pass from recorded tokens and scales."""
    golden, mode = goldens.read(FOLDER, "unet"), settings("unet")[int(case)]["mode"]
    tokens, x = golden[f"{case}.style"], golden[f"{case}.x"]
    conditioning, timesteps = Conditioning(golden[f"{case}.context"]), golden[f"{case}.timesteps"]
    images = torch.zeros(1, 17, adapter().image_context_model.style_emb.shape[-1])
    style = GivenStyle(adapter(), images, float(styled), still=mode == "picture", tokens=tokens, scales=golden[f"{case}.scales"])
    inputs = PassInputs(("positive",) * len(x), x, timesteps, conditioning)
    return load(mode == "video").unet(x, timesteps, conditioning, style(inputs))


class StyleRun(SettledRun):
    """A run of this folder."""

    folder = FOLDER

    @property
    def still(self) -> bool:
        return self.settings["mode"] == "picture"

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
        return {
            "steps": given["steps"], "eta": given["eta"], "guidance_scale": given["guidance"],
            "style_guidance_scale": given["style_guidance"], "spacing": "uniform",
        }


@torch.inference_mode()
def run_sampling(run: StyleRun) -> Run:
    """A run from its images, its prompt and its noise."""
    model, predictions = load(not run.still), list[Tensor]()
    given = run.settings
    style = Style(adapter(), features(given["pictures"]), given["style_weight"], still=run.still)
    both = [Conditioning(model.encode_text([prompt])) for prompt in (given["prompt"], "")]
    latent = model.sample(
        *both, noise=run.noise, hooks=[style], callback=lambda _step, _steps, x0, _x: predictions.append(x0), **run.sampling
    )
    return Run(predictions, latent, model.decode(latent))
