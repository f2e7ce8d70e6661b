"""StyleCrafter's adapter in ComfyUI: loaded beside a MODEL, and its images read by a CLIP_VISION."""

from __future__ import annotations

import os
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import folder_paths
import torch
from torch import Tensor

from ...vc_core.adapters.style import Style, StyleAdapter
from ...vc_core.adapters.table import load_adapter
from ...vc_core.config import ModelConfig
from ...vc_core.models.image_encoder import prepare_images
from ...vc_core.models.layers import LayerFactory
from ...vc_core.style import style_square, with_normed_class
from .hooks import HOOKS_KEY
from .images import rgb_images

#: The folder of adapters' files in ``models``.
FOLDER = "videocrafter_adapters"
#: The endings of their names.
SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
#: Key of the adapter's patcher among a MODEL's additional models.
MODEL_KEY = "videocrafter style"


def register() -> None:
    """Let ComfyUI know of the folder."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def files() -> list[str]:
    """The files in the folder."""
    found = folder_paths.get_filename_list(FOLDER) if FOLDER in folder_paths.folder_names_and_paths else []
    return [name for name in found if name.lower().endswith(SUFFIXES)]


def load_patcher(path: str, config: ModelConfig) -> comfy.model_patcher.ModelPatcher:
    """The adapter of a file as a model that ComfyUI moves and offloads.

    Raises:
        CheckpointError: it can't be read, is no such adapter, or doesn't fit the model.
    """
    adapter = load_adapter(path, config, layers=_layers())
    if not isinstance(adapter, StyleAdapter):
        raise ValueError(f"{path} is no style adapter of StyleCrafter's.")
    load_device, offload_device = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    plain = comfy.model_patcher.ModelPatcher
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", plain)(adapter, load_device=load_device, offload_device=offload_device)
    patcher.cached_patcher_init = (load_patcher, (path, config))
    return patcher


def _layers() -> LayerFactory:
    """Layers that cast their weights to their inputs when they are used."""
    return LayerFactory(comfy.ops.manual_cast, device="meta")


def style_features(encoder: Any, images: Tensor) -> Tensor:
    """Features of style images, see :func:`vc_core.style.style_features`.

    Args:
        encoder: a CLIP_VISION.
        images: an IMAGE ``[n, H, W, C]``.
    """
    comfy.model_management.load_model_gpu(encoder.patcher)
    squares = torch.stack([style_square(image) for image in rgb_images(images) * 2 - 1])
    pixels = prepare_images(squares.to(encoder.load_device), encoder.image_size)
    tokens = encoder.model(pixel_values=pixels, intermediate_output=-2)[0]
    normed = encoder.model.vision_model.post_layernorm(tokens[:, :1])
    return with_normed_class(tokens, normed).to(comfy.model_management.intermediate_device())


def with_style(model: Any, patcher: Any, features: Tensor, strength: float, per_frame: bool, still: bool) -> Any:
    """A clone of a MODEL with the style of images."""
    clone = model.clone()
    clone.set_additional_models(MODEL_KEY, [patcher])
    options = clone.model_options["transformer_options"]
    options[HOOKS_KEY] = [*options.get(HOOKS_KEY, ()), Style(patcher.model, features, strength, per_frame, still)]
    return clone
