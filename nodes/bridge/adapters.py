"""Adapters that control motion, beside a MODEL: their networks, and what they are given."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import folder_paths

from ...vc_core.adapters.control import Control, ControlAdapter, Controlled
from ...vc_core.adapters.table import ADAPTERS, meta_adapter, weights_of
from ...vc_core.checkpoint.reading import Checkpoint
from ...vc_core.config import ModelConfig
from ...vc_core.models.layers import LayerFactory
from .attention import chosen_attention
from .hooks import HOOKS_KEY, with_hooks

#: The folder in ComfyUI's ``models`` for files of adapters, and the endings of their names.
FOLDER, SUFFIXES = "videocrafter_adapters", (".safetensors", ".ckpt", ".pt", ".pth")
#: Key of a MODEL's additional models.
ADAPTER_KEY = "videocrafter_motion_adapter"


def register() -> None:
    """Let ComfyUI know of the folder."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def files() -> list[str]:
    """The files in the folder."""
    found = folder_paths.get_filename_list(FOLDER) if FOLDER in folder_paths.folder_names_and_paths else []
    return [name for name in found if name.lower().endswith(SUFFIXES)]


def path_of(name: str) -> Path:
    """The file of an entry of the list.

    Raises:
        FileNotFoundError: there is none.
    """
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))


def attach_adapter(model: Any, checkpoint: Checkpoint, config: ModelConfig) -> str:
    """Load an adapter beside a MODEL, which is changed; returns the adapter's title.

    Its weights are moved, stored and cast by ComfyUI as the MODEL's own.

    Raises:
        CheckpointError: the file's tensors don't fit the model.
    """
    base = model.model
    dtype = base.manual_cast_dtype or base.get_dtype()
    layers = LayerFactory(comfy.ops.manual_cast, chosen_attention, model.offload_device, dtype)
    kind, adapter = meta_adapter(checkpoint, config, layers)
    weights = weights_of(checkpoint, kind, adapter, config)
    adapter.load_state_dict(weights)
    adapter.requires_grad_(False).eval()
    patcher = comfy.model_patcher.ModelPatcher(adapter, load_device=model.load_device, offload_device=model.offload_device)
    model.set_additional_models(ADAPTER_KEY, [patcher])
    return kind.title


def adapter_of(model: Any) -> ControlAdapter:
    """The adapter of a MODEL.

    Raises:
        ValueError: it has none.
    """
    found = model.get_additional_models_with_key(ADAPTER_KEY)
    if not found:
        known = ", ".join(sorted({kind.title for name, kind in ADAPTERS.items() if "_" not in name}))
        raise ValueError(
            f"This model has no layers for a camera or for paths of objects, so it would ignore them. Load an adapter for it ({known}) "
            "with VideoCrafter Load Motion Adapter, or a checkpoint that has one, such as MotionCtrl's. FreeTraj needs no adapter."
        )
    adapter = found[0].model
    assert isinstance(adapter, ControlAdapter)
    return adapter


def with_control(model: Any, **values: Any) -> Any:
    """A clone of a MODEL whose adapter is given values of :class:`Control`, beside those that it was given before."""
    adapter = adapter_of(model)
    factories = model.model_options.get("transformer_options", {}).get(HOOKS_KEY, ())
    before = [each for each in factories if isinstance(each, Controlled)]
    control = replace(before[-1].control if before else Control(), **values)
    clone = model.clone()
    clone.model_options["transformer_options"][HOOKS_KEY] = tuple(each for each in factories if not isinstance(each, Controlled))
    return with_hooks(clone, adapter.controlled(control))

