"""Writes a whole model that was trained as one file, in the layout of the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..checkpoint.convert import CONFIG_KEY
from ..config import ModelConfig, to_yaml
from ..diffusion.schedule import Schedule
from ..errors import InputError
from ..family.parts import PARTS
from ..files import replacing


def write_model(
    path: Path, config: ModelConfig, networks: Mapping[str, nn.Module], added: Mapping[str, Tensor] | None = None
) -> Path:
    """Write weights as float16 under the published names, the schedule as float32, and the configuration into the metadata.

    Args:
        path: the safetensors file to write.
        networks: the parts of the model, by the names of :data:`vc_core.family.parts.PARTS`.
        added: tensors of an adapter by their names in the file.

    Returns:
        ``path``.

    Raises:
        InputError: a weight is NaN, or too large for float16.
        FileWriteError: the file can't be written.
    """
    tensors = {
        PARTS[part].prefix + name: value.half()
        for part, network in networks.items()
        for name, value in network.state_dict().items()
    } | {name: value.half() for name, value in (added or {}).items()}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{name} has NaN, or values beyond float16's largest, {torch.finfo(torch.float16).max:g}.")
    schedule = Schedule.from_config(config.schedule)
    tensors["alphas_cumprod"] = schedule.alphas_cumprod
    if config.schedule.scale_end is not None:
        tensors["scale_arr"] = schedule.scale
    metadata = {"format": "pt", CONFIG_KEY: to_yaml(config)}
    with replacing(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata)
    return path
