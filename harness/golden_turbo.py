"""What was recorded of T2V-Turbo, and what the core computes from it.

The first version's recording has a list of LoRA matrices over a base model, the second's the whole model. Both have ``runs.json`` with the
settings of each sampling run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor

import vc_core
from harness import goldens
from harness.golden_runs import Run
from harness.goldens import Recording
from harness.weights import weight
from vc_core.diffusion.noise import RecordedNoise
from vc_core.models import time_embedding
from vc_core.models.conditioning import Conditioning
from vc_core.pipeline import VideoModel

V1, V2 = goldens.TURBO
#: The layer that version 1 adds to its base; no published file has its base.
GUIDANCE = "model.diffusion_model.time_cond_proj.weight"
#: Where the recorded runs say that it was drawn like the other weights, and where that it was zero.
DRAWN, ZERO = "weights.py", "zero"
#: Names of the conditions of the recorded passes: what is given beside the text and fps.
CONDITIONS = {"plain": (), "guidance": ("guidance",), "motion": ("guidance", "motion"), "motion_zero": ("guidance", "motion")}


def runs(recorded: Recording) -> list[str]:
    """The sampling runs whose tensors are recorded."""
    return sorted(recorded.read("sampling").groups()) if recorded.has("sampling") else []


def settings(recorded: Recording, run: str) -> dict[str, Any]:
    """What ``runs.json`` says of a run."""
    found: dict[str, Any] = recorded.json("runs.json")[int(run)]
    return found


def write_base(recorded: Recording, path: Path, drawn: bool = True) -> Path:
    """Writes version 1's base model, with or without its projection of guidance; returns the path."""
    save_file({name: weight for name, weight in recorded.weights.items() if drawn or name != GUIDANCE}, path)
    return path


def write_list(recorded: Recording, path: Path) -> Path:
    """Writes version 1's list, as its authors publish it, where it isn't recorded as a file; returns the path of either."""
    if (recorded.folder / "unet_lora.pt").exists():
        return recorded.path("unet_lora.pt")
    shapes = [shape for _, _, up, down in recorded.json("lora_order.json") for shape in (up, down)]
    drawn = [weight(f"unet_lora.{place}", shape, recorded.seed) for place, shape in enumerate(shapes)]
    torch.save([torch.from_numpy(each).float() for each in drawn], path)
    return path


def load(name: str, base: str = DRAWN) -> VideoModel:
    """The model of a recording; for version 1 the list over its base."""
    return _loaded(name, base)


@cache
def _loaded(name: str, base: str) -> VideoModel:
    recorded = goldens.recording(name)
    with TemporaryDirectory() as folder:
        path = write_base(recorded, Path(folder) / f"{name}.safetensors", drawn=base == DRAWN)
        if name == V2:
            return vc_core.load(path, config=recorded.configuration)
        matrices = write_list(recorded, Path(folder) / "unet_lora.pt")
        return vc_core.load(matrices, config=recorded.configuration, base=path)


@contextmanager
def recorded_embeddings(*tables: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Scales of guidance are embedded as the reference did it: ``(scales, embeddings)``, as far as they are among these.

    Its float32 tables depend on the processor by up to 1e-3, so that networks are compared with the table given.
    """
    known = {float(scale): row for scales, rows in tables for scale, row in zip(scales, rows, strict=True)}
    ours = time_embedding.scale_embedding

    def embedding(scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        rows = ours(scales, dtype)
        return torch.stack([known.get(float(scale), row).to(row) for scale, row in zip(scales, rows, strict=True)])

    with patch.object(time_embedding, "scale_embedding", embedding):
        yield


@torch.inference_mode()
def run_unet(model: VideoModel, recorded: Recording, case: str, condition: str) -> Tensor:
    """The UNet on the inputs of a case under one of :data:`CONDITIONS`, ``[B, C, T, h, w]``."""
    golden = recorded.read("unet")
    given = {name: golden[f"{case}.{name}"] for name in CONDITIONS[condition]}
    if condition == "motion_zero":
        given["motion"] = torch.zeros_like(given["motion"])
    tables = [(scales, golden[f"{case}.{condition if name == 'motion' else name}_embedding"]) for name, scales in given.items()]
    conditioning = Conditioning(golden[f"{case}.context"], fps=golden[f"{case}.fps"], **given)
    with recorded_embeddings(*tables):
        return model.unet(golden[f"{case}.x"], golden[f"{case}.timesteps"], conditioning)


def sampling_settings(run: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recorded run in the terms of :class:`vc_core.sampling.Sampling`."""
    motion = {"motion_guidance": run["motion"], "motion_share": run["percentage"]} if run.get("use_motion") else {"motion_guidance": -1.0}
    guidance = {"distilled_guidance": run["guidance"], **motion}
    return {"steps": run["steps"], "original_steps": run["origin_steps"], "fps": float(run["fps"]), **guidance}


def run_sampling(recorded: Recording, run: str) -> Run:
    """A run from its recorded noise, by the model's own sampler."""
    golden, described = recorded.read("sampling"), settings(recorded, run)
    model = load(recorded.name, described.get("base_time_cond_proj", DRAWN))
    predictions: list[Tensor] = []
    text = Conditioning(model.encode_text([described["prompt"]]))
    noise = RecordedNoise(golden[f"{run}.x_T"], list(golden[f"{run}.noise"][:, None]))
    latent = model.sample(
        text, text, noise=noise, callback=lambda step, steps, x0, x: predictions.append(x0), **sampling_settings(described)
    )
    return Run(predictions, latent, model.decode(latent))

