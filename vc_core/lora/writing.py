"""Writes LoRA files in the plain layout, which core's LoRA loaders and this package read.

Names are ``diffusion_model.PATH.lora_A.weight`` (down), ``.lora_B.weight`` (up) and ``.alpha`` for the UNet, and
``text_encoder.text_model.encoder.layers...`` for the text tower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoint.convert import check_target
from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import finite
from ..errors import InputError
from ..family.model_file import ModelFile
from ..files import replacing
from .alpha import ALPHA_KEYS
from .merging import LoraSetting, matched

#: Start of the names of a LoRA's tensors in its file, before those of the UNet's layers.
UNET_PREFIX = "diffusion_model."
_TEXT, _TEXT_PATHS = "text_encoder.", "text_model."


def save_lora(
    path: Path,
    layers: Mapping[str, tuple[Tensor, Tensor, float]],
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
    dora_scales: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a LoRA in the plain layout, with its alphas.

    Args:
        path: the ``.safetensors`` file to write.
        layers: ``(down, up, alpha)`` by the paths of layers: of the UNet as :func:`.places.unet_layers` has them, of the text tower
            as :func:`.places.text_layers` has them.
        metadata: texts to store with it.
        dtype: of the matrices; alphas and scales are float32.
        dora_scales: of a DoRA, by the same paths, see :class:`.layer.Layer`.

    Returns:
        ``path``.

    Raises:
        InputError: there are no layers, matrices don't belong together, or a number is NaN, infinite or too large for ``dtype``.
        CheckpointError: the path can't be written, or doesn't end in ``.safetensors``.
        FileWriteError: writing failed.
    """
    check_target(path)
    if not layers:
        raise InputError(f"{path}: there are no layers to write.")
    tensors: dict[str, Tensor] = {}
    for place, (down, up, alpha) in layers.items():
        if down.ndim < 2 or up.ndim < 2 or up.shape[1] != down.shape[0]:
            raise InputError(f"{place} has a down matrix {list(down.shape)} and an up matrix {list(up.shape)}, which have no common rank.")
        stem = (_TEXT if place.startswith(_TEXT_PATHS) else UNET_PREFIX) + place
        written = {f"{stem}.lora_A.weight": down.to(dtype), f"{stem}.lora_B.weight": up.to(dtype)}
        written[f"{stem}.alpha"] = torch.tensor(float(alpha))
        if dora_scales and place in dora_scales:
            written[f"{stem}.dora_scale"] = dora_scales[place].float()
        for name, value in written.items():
            if not finite(value):
                raise InputError(f"{name} has NaN, infinite numbers, or numbers too large for {str(dtype).removeprefix('torch.')}.")
            tensors[name] = value.detach().cpu().contiguous()
    with replacing(path) as temporary:
        save_file(tensors, temporary, {**(metadata or {}), "format": "pt"})
    return path


def convert_lora(file: ModelFile, loras: Sequence[LoraSetting], target: Path, dtype: torch.dtype = torch.float16) -> list[str]:
    """Write a LoRA file of any layout in the plain one. A strength other than 1 becomes part of the alphas.

    Args:
        file: a model that the LoRA is for, which tells its layers' names.
        loras: one setting.

    Returns:
        Lines for a person on what was written and what was left out.

    Raises:
        InputError: not one LoRA, a DoRA with another strength than 1, or as :func:`save_lora`.
        CheckpointError: the LoRA can't be read, is for another model, or is the target.
        FileWriteError: writing failed.
    """
    if len(loras) != 1:
        raise InputError(f"There are {len(loras)} LoRAs; one is written into a file of its own: give --lora once with --lora-only.")
    (setting,) = loras
    if target.exists() and target.samefile(setting.path):
        raise CheckpointError(f"{target}: is the LoRA to convert itself; give the new file another name")
    lora = matched(file, setting)
    text_strength = setting.strength if setting.text_strength is None else setting.text_strength
    scales = {place: each.dora_scale for place, each in (*lora.unet.items(), *lora.text.items()) if each.dora_scale is not None}
    if scales and (setting.strength, text_strength) != (1, 1):
        raise InputError(f"{setting.path} is a DoRA, whose strength can't be a part of its alpha: write it with strength 1.")
    layers = {place: (each.down, each.up, each.alpha * setting.strength) for place, each in lora.unet.items()}
    layers |= {place: (each.down, each.up, each.alpha * text_strength) for place, each in lora.text.items()}
    kept = {name: text for name, text in lora.metadata.items() if name not in ALPHA_KEYS}
    save_lora(target, layers, kept, dtype, scales)
    return [*lora.report(), f"{target}: {target.stat().st_size / 1e6:.1f} MB, {len(layers)} layers"]
