"""Models in two files: a part of a model, and the model that it was made from.

StyleCrafter's temporal file has other temporal transformers for VideoCrafter1's Text2Video-512.
T2V-Turbo v2's file has the UNet only. T2V-Turbo v1's is a list of LoRA matrices over VideoCrafter2's UNet, see
:mod:`vc_core.lora.turbo_list`. The rest is in VideoCrafter2's file. An adapter's file can have some weights of the model that it was
trained with, and the rest is in that model's file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint, open_checkpoint, open_tensor_list
from ..checkpoint.records import StoredTensor
from ..errors import printable
from ..lora.turbo_list import pairs_by_layer
from .added import is_overlay
from .bundled import with_shared_parts
from .contents import unused_kind
from .identify import identify, part_prefixes, with_our_names
from .parts import PARTS, part_shapes

#: Names of the tensors of temporal transformers.
TEMPORAL = re.compile(r"(init_attn\.0|(input|output)_blocks\.\d+\.2|middle_block\.2)\.")
#: The layer of T2V-Turbo v1 that VideoCrafter2 doesn't have.
GUIDANCE_LAYER = "time_cond_proj"
NO_GUIDANCE_BASE = (
    f"T2V-Turbo v1: no published file has the weight of {GUIDANCE_LAYER} that its LoRA is added to; the authors' programs draw it at "
    "random at each start. Here it is 0, so videos differ from theirs."
)


@dataclass(frozen=True)
class MergedTensor:
    """A weight with the change by a pair of matrices: ``weight + up @ down``, flattened from the second axis on.

    Attributes:
        weight: None stands for zeros.
    """

    weight: StoredTensor | None
    down: StoredTensor
    up: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.up.shape[0], *self.down.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        if self.weight is None or self.weight.dtype.itemsize == 1:
            return self.up.dtype
        return torch.promote_types(self.weight.dtype, self.up.dtype)

    def read(self) -> Tensor:
        """The sum, computed in float32."""
        change = (self.up.read().flatten(1).float() @ self.down.read().flatten(1).float()).reshape(self.shape)
        return (change if self.weight is None else change.add_(self.weight.read().float())).to(self.dtype)

    def intact(self) -> bool:
        """Whether all of it has the checksums it was saved with."""
        return all(each is None or each.intact() for each in (self.weight, self.down, self.up))


def open_model(path: Path, base: Path | None = None) -> tuple[Checkpoint, tuple[str, ...]]:
    """The tensors of a model under our names, and what is to be said to the user of them.

    Args:
        base: the file with the parts that the first lacks.

    Raises:
        CheckpointError: a file can't be read, or the two don't fit.
    """
    if base is None:
        checkpoint = _open(path)
        if is_temporal(checkpoint):
            raise CheckpointError(
                f"{path} has temporal layers only, such as StyleCrafter's: give the model that they are for, VideoCrafter1's "
                "Text2Video-512, with it (base= in Python, --base on the command line, the loader's base in ComfyUI)."
            )
        return checkpoint, ()
    below = _open(base)
    prefixes = part_prefixes(below)
    matrices = open_tensor_list(path)
    if matrices is not None:
        merged, notes = _merged(path, matrices, below, prefixes)
        return Checkpoint(path, {**_parts(below, prefixes), **merged}, unreadable=below.unreadable), notes
    checkpoint = _open(path)
    if is_overlay(checkpoint):
        return below.replaced({name: checkpoint.stored(name) for name in checkpoint}), ()
    if is_temporal(checkpoint):
        return _overlaid(checkpoint, below, prefixes), ()
    own = part_prefixes(checkpoint)
    lacking = {part: prefix for part, prefix in prefixes.items() if part not in own}
    if not lacking:
        raise CheckpointError(f"{path} has all parts of a model that {base} has ({', '.join(own)}): leave the base out.")
    tensors = {name: checkpoint.stored(name) for name in checkpoint}
    return Checkpoint(path, {**_parts(below, lacking), **tensors}, checkpoint.metadata, checkpoint.unreadable), ()


def is_temporal(checkpoint: Checkpoint) -> bool:
    """Whether a file has temporal transformers of a UNet and nothing else."""
    names = checkpoint.names()
    return bool(names) and all(TEMPORAL.match(name) for name in names)


def _overlaid(temporal: Checkpoint, base: Checkpoint, prefixes: Mapping[str, str]) -> Checkpoint:
    """A model with other temporal transformers.

    Raises:
        CheckpointError: layers that the model doesn't have, or of another shape.
    """
    tensors = _parts(base, prefixes)
    for name in temporal:
        published = PARTS["unet"].prefix + name
        if published not in tensors or tuple(tensors[published].shape) != tuple(temporal.shape(name)):
            raise CheckpointError(
                f"{temporal.path} has {printable(name, 120)} {list(temporal.shape(name))}, which {base.path} doesn't have in this shape: "
                "its temporal layers are for another model, VideoCrafter1's Text2Video-512."
            )
        tensors[published] = temporal.stored(name)
    return Checkpoint(temporal.path, tensors, unreadable=base.unreadable)


def _open(path: Path) -> Checkpoint:
    return with_our_names(with_shared_parts(open_checkpoint(path)))


def _parts(checkpoint: Checkpoint, prefixes: Mapping[str, str]) -> dict[str, StoredTensor]:
    """The tensors of some parts, under the published prefixes."""
    ordered = sorted(prefixes.items(), key=lambda each: -len(each[1]))  # a UNet without a prefix comes last
    found: dict[str, StoredTensor] = {}
    for name in checkpoint:
        part, prefix = next((each for each in ordered if name.startswith(each[1])), ("", ""))
        if part and unused_kind(name) is None:
            found[PARTS[part].prefix + name[len(prefix) :]] = checkpoint.stored(name)
    return found


def _merged(
    path: Path, matrices: list[StoredTensor], base: Checkpoint, prefixes: Mapping[str, str]
) -> tuple[dict[str, StoredTensor], tuple[str, ...]]:
    """The weights that a list changes, and what is to be said of them."""
    config = identify(base)
    shapes = part_shapes(replace(config, unet=replace(config.unet, guidance_embedding=True)), "unet")
    pairs = pairs_by_layer(matrices, shapes, str(path))
    merged: dict[str, StoredTensor] = {}
    for layer, (down, up) in pairs.items():
        name = f"{layer}.weight"
        weight = base.stored(prefixes["unet"] + name) if layer != GUIDANCE_LAYER or prefixes["unet"] + name in base else None
        merged[PARTS["unet"].prefix + name] = MergedTensor(weight, down, up)
    given = merged[f"{PARTS['unet'].prefix}{GUIDANCE_LAYER}.weight"]
    return merged, (NO_GUIDANCE_BASE,) if isinstance(given, MergedTensor) and given.weight is None else ()
