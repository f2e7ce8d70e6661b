"""The safetensors format: its header, checked and in order, with the tensors left to the safetensors library.

Eight bytes, little-endian, give the length of a JSON header that maps a name to `dtype`, `shape` and `data_offsets`
(begin and end, from the header's end on); `__metadata__` maps text to text. The numbers follow, without gaps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from .errors import CheckpointError

MAX_HEADER = 100_000_000  # the library's own bound
METADATA = "__metadata__"
_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
DTYPES: dict[str, torch.dtype] = {tag: getattr(torch, name) for tag, name in _NAMES.items() if hasattr(torch, name)}
TAGS: dict[torch.dtype, str] = {dtype: tag for tag, dtype in DTYPES.items()}


@dataclass(frozen=True)
class FileTensor:
    """One tensor of an open safetensors file."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    _file: Any  # the library's handle

    def read(self) -> torch.Tensor:
        """The tensor, on the library's mapping of the file."""
        try:
            tensor: torch.Tensor = self._file.get_tensor(self.name)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        return tensor

    def intact(self) -> bool:
        """True: the format has no checksums."""
        return True


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file's first bytes are a header length and the brace of the JSON after it."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER


def open_safetensors(path: Path, file: BinaryIO) -> tuple[dict[str, FileTensor], dict[str, str]]:
    """The tensors in the file's order, and its metadata.

    Raises CheckpointError for a damaged or truncated file, and for one with a name twice.
    """
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    if 8 + length > size:
        raise CheckpointError(f"cut short: its header has {length} bytes, but the file ends after {size}. Download it again")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"damaged: its header is not JSON ({error!s:.120}). Download it again") from error
    metadata = header.pop(METADATA, {})
    end = 8 + length
    for name, entry in header.items():
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise CheckpointError(f"damaged: its header describes {name!r:.120} as {entry!r:.120}. Download it again")
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
            raise CheckpointError(f"tensor {name!r:.120} has the type {entry['dtype']!r:.40}; possible are {', '.join(DTYPES)}")
        offsets = entry["data_offsets"]
        if not isinstance(offsets, list) or len(offsets) != 2 or any(type(number) is not int for number in offsets):
            raise CheckpointError(f"damaged: tensor {name!r:.120} lies at {offsets!r:.80}. Download it again")
        end = max(end, 8 + length + offsets[1])
    if end > size:
        raise CheckpointError(f"cut short: {end} bytes are declared, but the file ends after {size}. Download it again")
    try:
        handle = safe_open(str(path), framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"damaged: {error!s:.200}. Download it again") from error
    ordered = sorted(header, key=lambda name: header[name]["data_offsets"])
    tensors = {
        name: FileTensor(name, tuple(header[name]["shape"]), DTYPES[header[name]["dtype"]], handle) for name in ordered
    }
    return tensors, dict(metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are all different."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise CheckpointError(f"damaged: its header names {name!r:.120} twice. Download it again")
        result[name] = value
    return result
