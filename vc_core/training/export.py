"""Writes a trained model as one file of the published form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ..checkpoint.convert import CONFIG_KEY
from ..config import ModelConfig, to_yaml
from ..diffusion.schedule import Schedule
from ..family.parts import PARTS


def write_model(path: Path, config: ModelConfig, networks: Mapping[str, nn.Module]) -> Path:
    """The weights in float16 under the published names, the schedule in float32, the configuration in the metadata.

    Args:
        networks: by the names of `vc_core.family.parts.PARTS`.

    Raises:
        ValueError: a weight is too large for float16.
    """
    tensors = {
        PARTS[part].prefix + name: value.half()
        for part, network in networks.items()
        for name, value in network.state_dict().items()
    }
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} has values that float16 can't hold.")
    schedule = Schedule.from_config(config.schedule)
    tensors["alphas_cumprod"] = schedule.alphas_cumprod
    if config.schedule.scale_end is not None:
        tensors["scale_arr"] = schedule.scale
    beside = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in tensors.items()}, beside, {"format": "pt", CONFIG_KEY: to_yaml(config)})
    os.replace(beside, path)
    return path
