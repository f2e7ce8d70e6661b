"""The kinds of adapters, identified by their files' tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint, open_checkpoint
from ..config import ModelConfig
from ..family.added import MOTIONCTRL, is_added
from ..family.checking import check_tensors
from ..family.parts import PARTS
from ..kernels.casting import cast_when_used, computing_type
from ..kernels.operations import operations_for
from ..models.layers import LayerFactory
from . import cameractrl, cami2v, motionctrl
from .adapter import Adapter
from .style import StyleAdapter


@dataclass(frozen=True)
class AdapterKind:
    """A kind of adapter.

    Attributes:
        title: for messages and ``info``.
        marker: a tensor that every file of this kind has, and no file of a kind below it in the table.
        prefix: start of its tensors' names.
        build: makes the adapter for a model, with layers on ``meta``; sizes are read off the checkpoint.
        own: the file's tensors of this kind, with the names that they have here; all, as they are, unless given.
    """

    title: str
    marker: str
    prefix: str
    build: Callable[[ModelConfig, Checkpoint, LayerFactory], Adapter]
    own: Callable[[Checkpoint, ModelConfig], Checkpoint] = lambda checkpoint, _config: checkpoint


_MIDDLE = "model.diffusion_model.middle_block.2.transformer_blocks.0."
#: By name. A new adapter is a row.
ADAPTERS: dict[str, AdapterKind] = {
    "cami2v": AdapterKind("CamI2V", f"{_MIDDLE}pluker_projection.weight", "camera.", cami2v.build, cami2v.own),
    "motionctrl": AdapterKind("MotionCtrl", MOTIONCTRL, "motionctrl.", motionctrl.build, motionctrl.own),
    "motionctrl_objects": AdapterKind("MotionCtrl's objects", "omcm.conv_in.weight", "motionctrl.", motionctrl.build, motionctrl.own),
    "motionctrl_omcm": AdapterKind("MotionCtrl's objects", "body.0.block1.weight", "motionctrl.", motionctrl.build, motionctrl.own),
    "cameractrl": AdapterKind("CameraCtrl", f"{_MIDDLE}cc_projection.weight", "camera.", cameractrl.build, cameractrl.own),
    "style": AdapterKind("StyleCrafter's style of images", "image_context_model.style_emb", "", StyleAdapter.build),
}


def identify_adapter(checkpoint: Checkpoint) -> AdapterKind:
    """
    Raises:
        CheckpointError: no known kind of adapter.
    """
    for kind in ADAPTERS.values():
        if kind.marker in checkpoint:
            return kind
    known = ", ".join(dict.fromkeys(kind.title for kind in ADAPTERS.values()))
    raise CheckpointError(f"{checkpoint.path} is no adapter for this family. Known kinds: {known}. Is it a model or a LoRA?")


def load_adapter(
    path: str | os.PathLike[str],
    config: ModelConfig,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    layers: LayerFactory | None = None,
) -> Adapter:
    """Load an adapter for a model.

    Args:
        layers: makes its layers on ``meta``; those for the device if not given.

    Raises:
        CheckpointError: the file can't be read, is no adapter, or its tensors don't fit the model; those that don't are listed.
    """
    return adapter_of(open_adapter(path), config, device, dtype, layers)


def open_adapter(path: str | os.PathLike[str]) -> Checkpoint:
    """Open an adapter's file.

    Raises:
        CheckpointError: it can't be read, holds no adapter, or a model with one.
    """
    checkpoint = open_checkpoint(Path(path))
    kind = identify_adapter(checkpoint)
    others = [name for name in checkpoint.names() if name.startswith(PARTS["unet"].prefix) and not is_added(name)]
    if others and kind.own is not AdapterKind.own:
        raise CheckpointError(
            f"{checkpoint.path} has {kind.title} together with {len(others)} weights of the model that it was trained with: load it as "
            "the model, with the model that it was made from as the base if it is not complete."
        )
    return checkpoint


def adapter_of(
    checkpoint: Checkpoint, config: ModelConfig, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32,
    layers: LayerFactory | None = None,
) -> Adapter:
    """The adapter in an opened file, for inference. Arguments and errors are those of :func:`load_adapter`."""
    kind, adapter = meta_adapter(checkpoint, config, layers or LayerFactory(operations_for(device), device="meta"))
    weights = {name: tensor.to(device, dtype) for name, tensor in weights_of(checkpoint, kind, adapter, config).items()}
    adapter.load_state_dict(weights, assign=True)
    adapter.requires_grad_(False).eval()
    return cast_when_used(adapter, computing_type(device, dtype))


def meta_adapter(checkpoint: Checkpoint, config: ModelConfig, layers: LayerFactory) -> tuple[AdapterKind, Adapter]:
    """The kind of an opened file, and an adapter of that kind without its weights."""
    kind = identify_adapter(checkpoint)
    return kind, kind.build(config, kind.own(checkpoint, config), layers)


def weights_of(checkpoint: Checkpoint, kind: AdapterKind, adapter: Adapter, config: ModelConfig) -> dict[str, Tensor]:
    """The adapter's weights in a file, checked, by their names in the adapter.

    Raises:
        CheckpointError: they don't fit the adapter; those that don't are listed.
    """
    own = kind.own(checkpoint, config)
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter.state_dict().items()}
    check_tensors(own, [(kind.prefix, shapes)])
    return {name: own.sound_tensor(kind.prefix + name) for name in shapes}
