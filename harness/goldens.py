"""Reading the reference data in ``tests/data``, and the measure that everything is held to."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vc_core.config import load_config
from vc_core.diffusion.schedule import Schedule

DATA = Path(__file__).parents[1] / "tests" / "data"
TEXT_TO_VIDEO = ("t2v_512_v1", "t2v_1024_v1", "t2v_512_v2")
DYNAMICRAFTER = ("dynamicrafter_256_v1", "dynamicrafter_512_v1", "dynamicrafter_1024_v1")
VIDEOCRAFTER = (*TEXT_TO_VIDEO, "i2v_512_v1")
MODELS = (*VIDEOCRAFTER, *DYNAMICRAFTER)
#: The prompts of VideoCrafter's recorded encoders; the runs use the first, with the last as negative.
PROMPTS = ("a black swan swims on the pond", "Two galleons moving in the wind at sunset, 4k!", "")
VOCABULARY = 49408
#: Largest error allowed, relative to a tensor's largest magnitude.
TOLERANCE = 1e-4
#: Largest error of a decoded pixel, of 255 between -1 and 1.
PIXEL_TOLERANCE = 2 / 255 * 2


@cache
def read(model: str, kind: str) -> dict[str, Tensor]:
    """One file of one model."""
    return load_file(DATA / "golden" / model / f"{kind}.safetensors")


def manifest(model: str) -> dict[str, list[int]]:
    """Name to shape of every tensor of a published checkpoint."""
    return json.loads((DATA / "manifests" / f"{model}.json").read_text())


@cache
def weights(model: str) -> dict[str, Tensor]:
    """The whole checkpoint of a model, as its authors would publish it."""
    if model == "dynamicrafter_1024_v1":  # recorded with the weights of the 512 model, and a schedule of its own
        return weights("dynamicrafter_512_v1") | {"scale_arr": Schedule.from_config(load_config(model).schedule).scale}
    tensors = dict(read(model, "checkpoint"))
    for name in [name for name in tensors if name.endswith(".rows")]:
        stem = name.removesuffix(".rows")
        rows, values = tensors.pop(name), tensors.pop(stem + ".values")
        table = torch.zeros(VOCABULARY, values.shape[1], dtype=values.dtype)
        table[rows.long()] = values
        tensors[stem] = table
    if not any(name.startswith("first_stage_model.") for name in tensors):
        shared = weights("t2v_512_v1").items()
        tensors |= {name: value for name, value in shared if name.startswith(("first_stage_model.", "cond_stage_model."))}
    return tensors


def write_checkpoint(model: str, path: Path) -> Path:
    """The checkpoint of a model as a file."""
    save_file(weights(model), path)
    return path


def prompts(model: str) -> tuple[str, ...]:
    """The prompts of a model's recorded encoders."""
    return ("a boat sails, fireworks above", "") if model in DYNAMICRAFTER else PROMPTS


def rate(golden: dict[str, Tensor], case: str) -> Tensor:
    """What a recorded case of the UNet was given for fps: frames a second, or the frame stride."""
    return golden[f"{case}.fs"] if f"{case}.fs" in golden else golden[f"{case}.fps"]


def error(ours: Tensor, golden: Tensor) -> float:
    """Largest difference, relative to the golden tensor's largest magnitude."""
    assert ours.shape == golden.shape, (ours.shape, golden.shape)
    return ((ours.float() - golden.float()).abs().max() / golden.float().abs().max()).item()
