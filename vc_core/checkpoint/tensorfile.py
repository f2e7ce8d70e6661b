"""Reading safetensors files, by the safetensors library, which checks sizes and offsets.

The format: eight bytes, little-endian, with the length of a JSON header that maps each name to its type, shape and offsets;
then the tensors without gaps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import CheckpointError

#: Types that can be computed with or converted; not the packed 4-bit types, for example.
DTYPE_NAMES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "bool"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
)
DTYPES = {getattr(torch, name) for name in DTYPE_NAMES if hasattr(torch, name)}
MAX_HEADER = 100_000_000  # bytes; the library's own limit


@dataclass(frozen=True)
class FileTensor:
    """A tensor in a memory-mapped safetensors file."""

    mapped: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.mapped.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.mapped.dtype

    def read(self) -> Tensor:
        """The tensor, in the file's memory mapping."""
        return self.mapped

    def intact(self) -> bool:
        """Always True: the format has no checksums."""
        return True


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file's first bytes are a header length followed by the opening brace of JSON."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER


def open_safetensors(path: Path) -> tuple[dict[str, FileTensor], dict[str, str]]:
    """Map a file's tensors into memory, without reading them.

    Returns:
        The tensors by name, sorted, and the metadata.

    Raises:
        CheckpointError: the file is damaged or cut short, has a name twice, or a tensor of a type that can't be used.
    """
    try:
        file = safe_open(str(path), framework="pt")
        tensors = {name: FileTensor(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    except SafetensorError as error:
        raise CheckpointError(f"damaged or cut short: {error!s:.200}. Download it again") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise CheckpointError(f"tensor {name!r:.120} has the type {tensor.dtype}; possible are {', '.join(DTYPE_NAMES)}")
    _check_unique_names(path)
    return tensors, dict(file.metadata() or {})


def _check_unique_names(path: Path) -> None:
    """Refuse a header that has a name twice, of which the library takes the last without a word."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"damaged: its header has the name {twice!r:.120} twice. Download it again")
        return dict(pairs)

    with path.open("rb") as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=unique)
