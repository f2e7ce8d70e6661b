"""Section *right*: the recorded numbers of the reference, on this device and in each type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness import golden_contents, golden_runs, goldens
from harness.goldens import Recording
from vc_core.pipeline import VideoModel

from .results import Figures, Results, keys

#: Bound of float32, relative to a tensor's largest magnitude. Half types have none: how far they are is what is measured.
BOUND = 1e-4


@dataclass(frozen=True)
class Comparison:
    """One tensor of ours beside the recorded one.

    Attributes:
        kind: ``UNet``, ``text``, ``VAE``, ``image tokens``, ``latent`` or ``pixels``.
    """

    kind: str
    ours: Tensor
    golden: Tensor

    @property
    def error(self) -> float:
        """Relative to the golden tensor's largest magnitude; of pixels, in shades of 255."""
        ours = self.ours.float().cpu()
        if self.kind == "pixels":
            return goldens.pixel_error(ours, self.golden) * 127.5
        return goldens.error(ours, self.golden)


def comparisons(model: VideoModel, recorded: Recording) -> Iterator[Comparison]:
    """Everything that a model's recording has."""
    for case in golden_contents.cases(recorded):
        yield Comparison("UNet", golden_runs.run_unet(model, recorded, case), recorded.read("unet")[f"{case}.y"])
    if recorded.has("encoders"):
        encoded = recorded.read("encoders")
        if "text" in encoded and "empty" not in encoded:
            yield Comparison("text", model.encode_text(list(recorded.prompts)), encoded["text"])
        if "photo" in encoded and "image_tokens" in encoded:
            yield Comparison("image tokens", model.encode_image(encoded["photo"]), encoded["image_tokens"])
        if {"photo", "z"} <= set(encoded) and recorded.name in goldens.DYNAMICRAFTER:
            yield Comparison("VAE", golden_runs.encode_latent(model, encoded["photo"]), encoded["z"])
        if {"z", "vae_decoded"} <= set(encoded):
            where = {"device": model.device, "dtype": model.dtype}
            yield Comparison("VAE", golden_runs.decode(model, encoded["z"].to(**where)), encoded["vae_decoded"])
    for run in golden_contents.runs(recorded):
        golden, ours = recorded.read("sampling"), golden_runs.run_sampling(model, recorded, run)
        if f"{run}.latent" in golden:
            yield Comparison("latent", ours.latent, golden[f"{run}.latent"])
        if f"{run}.video" in golden:
            yield Comparison("pixels", ours.video, golden[f"{run}.video"])


def measure_errors(recorded: Recording, device: str, dtype: torch.dtype) -> Figures:
    """The largest error of each kind of tensor, and in float32 whether all are within the bound."""
    model = goldens.load_recorded(recorded, device, dtype)
    worst: Figures = {}
    for each in comparisons(model, recorded):
        worst[each.kind] = max(worst.get(each.kind, 0.0), each.error)
    if dtype == torch.float32:
        bounds = {kind: goldens.PIXEL_TOLERANCE * 127.5 if kind == "pixels" else BOUND for kind in worst}
        worst["right"] = all(worst[kind] <= bound for kind, bound in bounds.items())
    return worst


def run(results: Results, device: str, types: dict[str, torch.dtype], folder: Path, seed: int) -> None:
    """All recorded models, in float32 first."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for name, dtype in {"float32": torch.float32, **types}.items():
        for model in goldens.MODELS:
            recorded = Recording(folder / model, seed)
            if recorded.complete:
                results.run(
                    keys("right", "recorded", model, dtype=name),
                    lambda recorded=recorded, dtype=dtype: measure_errors(recorded, device, dtype),  # type: ignore[misc]
                )
