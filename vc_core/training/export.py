"""Writes what was trained: a model as one file, in the layout of the published ones, or a LoRA as loaders of ComfyUI take it."""

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

#: Start of the names of a LoRA's tensors in its file, before those of the UNet's layers.
PREFIX = "diffusion_model."


def save_lora(
    path: Path,
    weights: Mapping[str, tuple[Tensor, Tensor, float]],
    metadata: Mapping[str, str],
    scales: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a LoRA: ``diffusion_model.LAYER.lora_A.weight`` (down), ``lora_B.weight`` (up), ``alpha`` and, for DoRA, ``dora_scale``.

    Args:
        path: the safetensors file to write.
        weights: up ``[out, rank]``, down ``[rank, in]`` and alpha of each layer, by its name in the UNet.
        metadata: texts by name, such as the base model and the trigger words.
        scales: of a DoRA, ``[out, 1]`` of each layer, as ComfyUI reads them, see :func:`.lora.dora_scales`.

    Returns:
        ``path``.

    Raises:
        InputError: a weight is NaN or infinite.
        FileWriteError: the file can't be written.
    """
    tensors: dict[str, Tensor] = {}
    for layer, (up, down, alpha) in weights.items():
        tensors |= {f"{PREFIX}{layer}.lora_A.weight": down, f"{PREFIX}{layer}.lora_B.weight": up}
        tensors[f"{PREFIX}{layer}.alpha"] = torch.tensor(float(alpha))
    tensors |= {f"{PREFIX}{layer}.dora_scale": scale for layer, scale in (scales or {}).items()}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{name} has NaN or infinite numbers; no file was written.")
    with replacing(path) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary, {"format": "pt", **metadata})
    return path


def write_model(path: Path, config: ModelConfig, networks: Mapping[str, nn.Module]) -> Path:
    """Write weights as float16 under the published names, the schedule as float32, and the configuration into the metadata.

    Args:
        path: the safetensors file to write.
        networks: the parts of the model, by the names of :data:`vc_core.family.parts.PARTS`.

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
    }
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
