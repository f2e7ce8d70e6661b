"""The kinds of adapters, identified by their files' tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint, open_checkpoint
from ..config import ModelConfig
from ..family.checking import check_tensors
from ..kernels.casting import cast_when_used, computing_type
from ..kernels.operations import operations_for
from ..models.layers import LayerFactory
from .adapter import Adapter
from .style import StyleAdapter


@dataclass(frozen=True)
class AdapterKind:
    """A kind of adapter.

    Attributes:
        title: for messages and ``info``.
        marker: a tensor that every file of this kind has, and no other.
        prefix: start of its tensors' names.
        build: makes the adapter for a model, with layers on ``meta``; sizes are read off the checkpoint.
    """

    title: str
    marker: str
    prefix: str
    build: Callable[[ModelConfig, Checkpoint, LayerFactory], Adapter]


#: By name. A new adapter is a row.
ADAPTERS: dict[str, AdapterKind] = {
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
    known = ", ".join(kind.title for kind in ADAPTERS.values())
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
    checkpoint = open_checkpoint(Path(path))
    kind = identify_adapter(checkpoint)
    adapter = kind.build(config, checkpoint, layers or LayerFactory(operations_for(device), device="meta"))
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter.state_dict().items()}
    check_tensors(checkpoint, [(kind.prefix, shapes)])
    weights = {name: checkpoint.sound_tensor(kind.prefix + name).to(device, dtype) for name in shapes}
    adapter.load_state_dict(weights, assign=True)
    adapter.requires_grad_(False).eval()
    return cast_when_used(adapter, computing_type(device, dtype))
