"""Tensors as a pickle describes them: where their numbers lie, and how they are to be read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch

from .errors import CheckpointError, short_repr

# A large model with its optimizer has 6,000.
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 64
# A tensor may repeat its storage (stride 0), as expanded buffers do, but not so as to fill the memory once it is copied.
MAX_REPEATED_ELEMENTS = 1 << 24


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage of torch's: ``numel`` elements of type ``dtype`` in the block of bytes that the file calls ``key``."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor as the pickle describes it, its bounds checked; ``offset`` and ``stride`` count elements, not bytes.

    Attributes:
        negative, conjugate: its numbers are those of its storage with another sign, or their conjugates.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    negative: bool = False
    conjugate: bool = False

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def span(self) -> int:
        """The number of its storage's elements from its first to its last."""
        return reach(self.shape, self.stride) + 1 if self.numel else 0


class StoredTensor(Protocol):
    """A tensor in a file, before it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def read(self) -> torch.Tensor: ...
    def intact(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A tensor that is not read, and why; ``reason`` continues "tensor NAME ...". Others in the same file can be sound."""

    reason: str


def reach(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """How many elements a tensor's last one lies behind its first."""
    return sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def check_number(tensors: int) -> None:
    """
    Raises:
        CheckpointError: so many tensors are more than any checkpoint has.
    """
    if tensors > MAX_TENSORS:
        raise CheckpointError(f"refused: it has {tensors} tensors, far more than any checkpoint; up to {MAX_TENSORS} are read")


def record(storage: object, offset: object, shape: object, stride: object) -> TensorRecord | Unreadable:
    """A tensor's record, after a check that it lies inside its storage.

    Raises:
        CheckpointError: it doesn't, or its description makes no sense.
    """
    if isinstance(storage, Unreadable):
        return storage
    if not isinstance(storage, Storage):
        raise CheckpointError("damaged: a tensor is built on something that is not a storage")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise CheckpointError("damaged: the shape or the strides of a tensor are not lists of numbers")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"damaged: a tensor has {len(shape)} dimensions and {len(stride)} strides")
    # A pickle can contain integers of a million digits, which would take forever to multiply.
    if not all(type(number) is int and 0 <= number < 2**63 for number in (offset, *shape, *stride)):
        raise CheckpointError(f"damaged: a tensor has offset {short_repr(offset)}, shape {short_repr(shape)}, strides {short_repr(stride)}")
    found = TensorRecord(storage, cast(int, offset), shape, stride)
    _check_bounds(found)
    return found


def with_properties(found: TensorRecord | Unreadable, properties: object) -> TensorRecord | Unreadable:
    """A record with what torch writes beside a tensor that is a negated or conjugated view.

    Raises:
        CheckpointError: the properties are no dictionary of names to yes or no.
    """
    if properties is None or properties == {} or isinstance(found, Unreadable):
        return found
    if not isinstance(properties, dict) or not all(type(value) is bool for value in properties.values()):
        raise CheckpointError(f"damaged: the properties of a tensor are {short_repr(properties)}")
    unknown = [name for name in properties if name not in ("neg", "conj")]
    if unknown:
        return Unreadable(f"has the property {short_repr(unknown[0], 60)}, which is not known here. Save it from torch as a plain tensor")
    return replace(found, negative=properties.get("neg", False), conjugate=properties.get("conj", False))


def _check_bounds(found: TensorRecord) -> None:
    """Refuse a tensor that reaches beyond its storage, or that repeats it without measure."""
    storage, numel = found.storage, found.numel
    if math.prod(filter(None, found.shape)) >= 2**63:
        raise CheckpointError(f"damaged: a tensor has the shape {short_repr(found.shape)}, more numbers than can be counted")
    last = found.offset + reach(found.shape, found.stride) if numel else found.offset - 1
    if last >= storage.numel:
        raise CheckpointError(
            f"damaged: a tensor of shape {short_repr(found.shape)} reaches to number {last} of storage {short_repr(storage.key)}, "
            f"which has {storage.numel}"
        )
    if numel > max(storage.numel, MAX_REPEATED_ELEMENTS):
        raise CheckpointError(
            f"refused: a tensor claims {numel} numbers, repeated out of the {storage.numel} of storage {short_repr(storage.key)}"
        )
