"""Reading safetensors files.

The format: eight bytes, little-endian, with the length of a JSON header that maps each name to its type, shape and offsets;
then the tensors without gaps. The header is read here rather than by the safetensors library, which maps the file into memory
(see :mod:`.filebytes`), takes a name twice, and refuses a file for one tensor of a rare type.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError, short_repr
from .filebytes import FileBytes, as_type
from .records import MAX_DIMENSIONS, Unreadable, check_number

#: Types that can be computed with or converted, by the format's names.
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    **{short: getattr(torch, name) for short, name in {"U64": "uint64", "U32": "uint32", "U16": "uint16"}.items() if hasattr(torch, name)},
}  # fmt: skip
#: Bits of the format's other types.
OTHER_TYPES = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "U16": 16, "U32": 32, "U64": 64,
}  # fmt: skip
#: The header of a model with its optimizer has less than a megabyte. A few workflows or captions in the metadata add some more.
MAX_HEADER, LARGEST_HEADER_OF_FORMAT = 5_000_000, 100_000_000
#: Lists and mappings in a header, three for each tensor. Text in the metadata may contain such brackets, too.
MAX_BRACKETS = 200_000


@dataclass(frozen=True)
class FileTensor:
    """A tensor in an open safetensors file."""

    source: FileBytes
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self) -> Tensor:
        """A copy of the tensor."""
        return as_type(self.source.tensor(self.start, math.prod(self.shape) * self.dtype.itemsize), self.dtype).reshape(self.shape)

    def intact(self) -> bool:
        """Always True: the format has no checksums."""
        return True


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file's first bytes are a header length followed by the opening brace of JSON."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LARGEST_HEADER_OF_FORMAT


def open_safetensors(source: FileBytes) -> tuple[dict[str, FileTensor | Unreadable], dict[str, str]]:
    """The tensors of a file, not read yet.

    Returns:
        The tensors by name, sorted, and the metadata.

    Raises:
        CheckpointError: the file is damaged or cut short, has a name twice, or more tensors than any checkpoint.
    """
    length = int.from_bytes(source.read(0, 8), "little")
    if length > min(MAX_HEADER, source.size - 8):
        raise CheckpointError(
            f"damaged or cut short: its header is said to have {length} bytes, of {source.size} in the file; up to {MAX_HEADER} are "
            "possible. Download it again"
        )
    header = _parse(source.read(8, length))
    metadata = _metadata(header.pop("__metadata__", None))
    check_number(len(header))
    base, end, tensors = 8 + length, 0, dict[str, FileTensor | Unreadable]()
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    for name, (kind, shape, (first, last)) in sorted(entries.items(), key=lambda item: item[1][2]):
        bits = TYPES[kind].itemsize * 8 if kind in TYPES else OTHER_TYPES[kind]
        if first != end or (last - first) * 8 != bits * math.prod(shape):
            raise _damaged(f"tensor {name!r:.120} of type {kind} and shape {short_repr(shape)} lies at {first} to {last}")
        end = last
        if kind in TYPES:
            tensors[name] = FileTensor(source, base + first, shape, TYPES[kind])
        else:
            tensors[name] = Unreadable(f"has the type {kind}; possible are {', '.join(TYPES)}")
    if base + end != source.size:
        raise _damaged(f"its tensors have {end} bytes, but the file has {source.size - base} for them")
    return dict(sorted(tensors.items())), metadata


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(f"damaged or cut short: {what}. Download it again")


def _parse(raw: bytes) -> dict[str, Any]:
    """The header as a mapping. A name twice, of which the safetensors library takes the last without a word, is refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise CheckpointError(f"damaged: its header has the name {twice!r:.120} twice. Download it again")
        return found

    if raw.count(b"[") + raw.count(b"{") > MAX_BRACKETS:
        raise CheckpointError(f"refused: its header has more than {MAX_BRACKETS} lists and mappings, far more than any checkpoint's")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise _damaged(f"its header is no JSON ({error!s:.120})") from None
    if not isinstance(header, dict):
        raise _damaged("its header is no mapping of names")
    return header


def _metadata(found: object) -> dict[str, str]:
    """The texts beside the tensors; null is none, as the safetensors library reads it."""
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise _damaged("its metadata are no mapping of names to texts")
    return found


def _entry(name: str, entry: object) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Type, shape and offsets of a tensor."""
    if not isinstance(entry, dict):
        raise _damaged(f"the header says no type, shape and place of tensor {name!r:.120}")
    kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(kind, str) or kind not in TYPES and kind not in OTHER_TYPES:
        raise _damaged(f"tensor {name!r:.120} has the type {short_repr(kind)}; possible are {', '.join(TYPES)}")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(shape) > MAX_DIMENSIONS or len(offsets) != 2:
        raise _damaged(f"tensor {name!r:.120} has the shape {short_repr(shape)} and the place {short_repr(offsets)}")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, *offsets)) or math.prod(filter(None, shape)) >= 2**63:
        raise _damaged(f"tensor {name!r:.120} has the shape {short_repr(shape)} and the place {short_repr(offsets)}")
    return kind, tuple(shape), (offsets[0], offsets[1])
