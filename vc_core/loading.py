"""From a file to a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from .adapters.table import adapter_of, identify_adapter, open_adapter
from .config import ConfigLike
from .errors import InputError
from .family.image_tower import load_image_encoder
from .family.model_file import ModelFile
from .lora.merging import LoraSetting, with_loras
from .pipeline import VideoModel


def load(
    path: str | os.PathLike[str] | ModelFile,
    config: ConfigLike | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    adapters: Iterable[str | os.PathLike[str]] = (),
    base: str | os.PathLike[str] | None = None,
    loras: Iterable[LoraSetting | str | os.PathLike[str]] = (),
    report: Callable[[str], None] | None = None,
    image_encoder: str | os.PathLike[str] | None = None,
) -> VideoModel:
    """Load a model from a file.

    Args:
        path: a ``.safetensors`` or ``.ckpt`` file, or the name of a bundled model; or a file that was opened before.
        config: a path or mapping in the format of ``configs/``, for values that can't be read off a file's tensors; not for an opened
            file, which has its configuration.
        device: where the weights go.
        dtype: what they are stored in, and computed in where the device can, see :func:`vc_core.kernels.casting.computing_type`.
        adapters: files of adapters to load beside the model.
        base: a file with the parts that ``path`` lacks, such as VideoCrafter2's for T2V-Turbo's; not for an opened file.
        loras: files of LoRAs to merge into the weights, with their strengths; a path alone has the strength 1.
        image_encoder: a file with the image tower, for styles of images where the model's file has none.
        report: called with each line on what of the LoRAs matched, such as ``print``.

    Raises:
        CheckpointError: as :meth:`vc_core.family.model_file.ModelFile.open`, or a LoRA can't be read or is for another model.
        InputError: two adapter files of one name.
    """
    file = path if isinstance(path, ModelFile) else ModelFile.open(path, config, base)
    paths = [Path(each) for each in adapters]
    if len({each.stem for each in paths}) < len(paths):
        raise InputError(f"Two adapter files have the same name: {', '.join(map(str, paths))}. Rename one of them.")
    file = with_loras(file, [each if isinstance(each, LoraSetting) else LoraSetting(each) for each in loras], report)
    networks = {part: file.load(part, device, dtype) for part in file.parts}
    if image_encoder is not None:
        networks["image_encoder"] = load_image_encoder(image_encoder, device, dtype)
    checkpoints = {each.stem: open_adapter(each) for each in paths}
    if file.added is not None:
        checkpoints = {identify_adapter(file.added).title: file.added, **checkpoints}
    loaded = {name: adapter_of(each, file.config, device, dtype) for name, each in checkpoints.items()}
    return VideoModel(file.config, networks, loaded)
