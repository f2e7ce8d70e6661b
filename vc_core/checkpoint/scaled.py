"""Scaled fp8 files: matrices in 8 bits, each with the number by which it must be multiplied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .records import StoredTensor

EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
#: What a layer's scale is called, in ComfyUI's earlier files and in its later ones.
SCALES = ("scale_weight", "weight_scale")
#: What else a layer can have beside its scale: the scale of its input, for products in 8 bits, and its form as JSON.
BESIDE = ("scale_input", "input_scale", "comfy_quant")
#: Marks a file in the earlier form.
MARK = "scaled_fp8"
FORMATS, LONGEST_FORMAT = ("float8_e4m3fn", "float8_e5m2"), 1024


@dataclass(frozen=True)
class ScaledTensor:
    """A weight times its scale, in float32."""

    weight: StoredTensor
    scale: StoredTensor
    dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    def read(self) -> Tensor:
        """The product."""
        return self.weight.read().float() * self.scale.read().float().reshape(())

    def intact(self) -> bool:
        """Whether both have the checksums they were saved with."""
        return self.weight.intact() and self.scale.intact()


def with_scales(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors with each scaled weight as the product, and without what belongs to the scaling.

    Forms that are not known here (scales of blocks or rows, 4 bits, integers) stay as they are, with their scales.
    """
    layers = {name.rpartition(".")[0]: name for name in tensors if name.rpartition(".")[2] in SCALES}
    known = {layer: name for layer, name in layers.items() if _known(tensors, layer, name)}
    scaled = {layer: ScaledTensor(tensors[f"{layer}.weight"], tensors[name]) for layer, name in known.items()}
    if not scaled:
        return dict(tensors)
    dropped = {f"{layer}.{name}" for layer in scaled for name in (*SCALES, *BESIDE)}
    kept: dict[str, StoredTensor] = {name: each for name, each in tensors.items() if name not in dropped}
    if len(scaled) == len(layers):
        kept = {name: each for name, each in kept.items() if name.rpartition(".")[2] != MARK}
    return kept | {f"{layer}.weight": each for layer, each in scaled.items()}


def _known(tensors: Mapping[str, StoredTensor], layer: str, name: str) -> bool:
    """Whether a layer has 8-bit numbers and one scale for all of them."""
    weight, scale = tensors.get(f"{layer}.weight"), tensors[name]
    if weight is None or weight.dtype not in EIGHT_BITS or scale.shape not in ((), (1,)) or not scale.dtype.is_floating_point:
        return False
    if sum(f"{layer}.{each}" in tensors for each in SCALES) > 1:
        return False
    described = tensors.get(f"{layer}.comfy_quant")
    return described is None or _format(described) in FORMATS


def _format(described: StoredTensor) -> object:
    """The format that a layer's JSON names; None if it says more than this, or is no such text."""
    if described.dtype != torch.uint8 or len(described.shape) != 1 or described.shape[0] > LONGEST_FORMAT:
        return None
    try:
        found = json.loads(bytes(described.read().tolist()))
    except (ValueError, RecursionError):
        return None
    plain = isinstance(found, dict) and not found.keys() - {"format", "full_precision_matrix_mult"}
    return found.get("format") if plain else None
