"""LoRAs merged into the weights of a model's file, tensor by tensor as they are read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..checkpoint.records import StoredTensor
from ..errors import InputError
from ..family.model_file import ModelFile
from ..family.parts import part_shapes
from .files import open_lora
from .layer import Layer
from .lora import Lora
from .places import text_layers, text_tensor


@dataclass(frozen=True)
class LoraSetting:
    """A LoRA file and how it is applied.

    Attributes:
        path: the file.
        strength: what it adds is multiplied by this; 0: nothing.
        text_strength: the same for the text encoder; ``strength`` if None.
        alpha: in place of the file's, see :mod:`.alpha`.
    """

    path: str | os.PathLike[str]
    strength: float = 1.0
    text_strength: float | None = None
    alpha: float | None = None

    @classmethod
    def parse(cls, text: str) -> LoraSetting:
        """A setting in the command line's form, ``FILE``, ``FILE:STRENGTH`` or ``FILE:STRENGTH:ALPHA``.

        Raises:
            InputError: a strength or an alpha that is not finite.
        """
        path, numbers = text, list[float]()
        while not os.path.exists(path) and len(numbers) < 2:
            start, colon, end = path.rpartition(":")
            try:
                numbers.insert(0, float(end))
            except ValueError:  # part of the path, such as a drive's letter
                break
            if not colon:
                break
            path = start
        strength, alpha = (*numbers, None, None)[:2]
        return cls(path, 1.0 if strength is None else strength, alpha=alpha)

    def __post_init__(self) -> None:
        for name in ("strength", "text_strength", "alpha"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"The {name.replace('_', ' ')} of the LoRA {os.fspath(self.path)} is {value}; it must be a finite number.")


@dataclass(frozen=True)
class _Addition:
    """What one LoRA does to one tensor: to all its rows, or to a third of them."""

    layer: Layer
    strength: float
    third: int | None = None

    def add_to(self, weight: Tensor) -> None:
        """Apply it in place, in float32."""
        rows = weight if self.third is None else weight.chunk(3)[self.third]
        self.layer.add_to(rows, self.strength)


@dataclass(frozen=True)
class _MergedTensor:
    """A weight of a file with what LoRAs add to it, in float32."""

    weight: StoredTensor
    additions: tuple[_Addition, ...]
    dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    def read(self) -> Tensor:
        """The sum."""
        merged = self.weight.read().float()
        for each in self.additions:
            each.add_to(merged)
        return merged

    def intact(self) -> bool:
        """Whether the weight has the checksum it was saved with."""
        return self.weight.intact()


def with_loras(file: ModelFile, loras: Iterable[LoraSetting], report: Callable[[str], None] | None = None) -> ModelFile:
    """The same model file with LoRAs merged into its weights.

    All LoRA files are read and checked first. Weights that no LoRA changes, and all at strength 0, are the file's own.

    Args:
        report: called with each line on what matched, see :meth:`.lora.Lora.report`.

    Raises:
        CheckpointError: a file can't be read or is for another model.
        InputError: an alpha that is not a finite number.
    """
    additions: dict[str, list[_Addition]] = {}
    for each in loras:
        lora = matched(file, each)
        if report is not None:
            for line in lora.report():
                report(line)
        for name, addition in _additions(file, lora, each):
            if addition.strength:
                additions.setdefault(name, []).append(addition)
    return _merged(file, additions)


def matched(file: ModelFile, setting: LoraSetting) -> Lora:
    """A LoRA file matched with a model's.

    Raises:
        CheckpointError, InputError: as :func:`with_loras`.
    """
    text = text_layers(part_shapes(file.config, "text_encoder")) if "text_encoder" in file.parts else None
    return open_lora(setting.path).match(part_shapes(file.config, "unet"), text, setting.alpha)


def _additions(file: ModelFile, lora: Lora, setting: LoraSetting) -> Iterable[tuple[str, _Addition]]:
    """What a LoRA adds, with the names of the tensors in the model's file."""
    for path, layer in lora.unet.items():
        yield f"{file.parts['unet']}{path}.weight", _Addition(layer, setting.strength)
    strength = setting.strength if setting.text_strength is None else setting.text_strength
    for path, layer in lora.text.items():
        name, third = text_tensor(path)
        yield file.parts["text_encoder"] + name, _Addition(layer, strength, third)


def _merged(file: ModelFile, additions: Mapping[str, list[_Addition]]) -> ModelFile:
    checkpoint = file.checkpoint
    changed = {
        name: _MergedTensor(checkpoint.stored(name), tuple(each)) for name, each in additions.items() if name in checkpoint
    }
    return replace(file, checkpoint=checkpoint.replaced(changed))
