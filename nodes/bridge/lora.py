"""LoRAs as patches of ComfyUI's, so that offloading, fp8 weights and hooks work with them as with those of core's own nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.lora
import torch
from torch import Tensor

from ...vc_core.family.parts import part_shapes
from ...vc_core.lora.files import open_lora
from ...vc_core.lora.layer import Layer
from ...vc_core.lora.lora import Lora
from .encoders import MissingPart
from .model import VideoCrafterModel

#: What core's table of text layers has before transformers' paths.
_TEXT = "text_encoder."


def with_lora(
    model: Any, clip: Any, path: Path, strength: float, text_strength: float, alpha: float | None = None
) -> tuple[Any, Any, Lora]:
    """Clones of a MODEL and a CLIP with a LoRA, and what of it matched. At strength 0 the inputs themselves are returned.

    Args:
        clip: None, or a CLIP, which can be missing from the model's file.
        alpha: in place of the file's.

    Raises:
        ValueError: the model is not of the family.
        CheckpointError: the file can't be read or is for another model. Nothing is applied then.
    """
    if not isinstance(model.model, VideoCrafterModel):
        raise ValueError(
            f"This node needs a model of the VideoCrafter family; it got {type(model.model).__name__}. Use Load VideoCrafter Model, or "
            "core's Load LoRA for other models."
        )
    text = None if clip is None or isinstance(clip, MissingPart) else _text_keys(clip)
    weights = clip.cond_stage_model.state_dict() if text else {}
    shapes = None if text is None else {layer: tuple(weights[key].shape) for layer, key in text.items()}
    lora = open_lora(path).match(part_shapes(model.model.config, "unet"), shapes, alpha)
    unet = {layer: f"diffusion_model.{layer}.weight" for layer in lora.unet}
    return _patched(model, lora.unet, unet, strength), _patched(clip, lora.text, text or {}, text_strength), lora


def _text_keys(clip: Any) -> dict[str, str]:
    """The names of a CLIP's weights by transformers' paths of its text tower's layers."""
    known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    return {name[len(_TEXT) :]: key for name, key in known.items() if isinstance(key, str) and name.startswith(_TEXT + "text_model.")}


def _patched(target: Any, layers: Mapping[str, Layer], keys: Mapping[str, str], strength: float) -> Any:
    if not layers or not strength:
        return target
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors |= {f"{name}.lora_up.weight": layer.up, f"{name}.lora_down.weight": layer.down}
        tensors[f"{name}.alpha"] = torch.tensor(layer.alpha, dtype=torch.float64)
        if layer.dora_scale is not None:
            tensors[f"{name}.dora_scale"] = layer.dora_scale
    patches = comfy.lora.load_lora(tensors, {name: keys[name] for name in layers})
    clone = target.clone()
    applied = clone.add_patches(patches, strength)
    assert len(applied) == len(layers), set(keys.values()) - set(applied)
    return clone
