"""Writes a checkpoint's tensors as one `.safetensors` file, tensor by tensor, so that a reader never sees half of it.

The safetensors library's writer takes all tensors at once, which after a change of type are all in memory at once. The
format (see `tensorfile.py`) is written here instead: the header first, from shapes and types alone, then tensor by tensor.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from .errors import CheckpointError
from .reading import Checkpoint, finite, open_checkpoint
from .tensorfile import METADATA, TAGS

CONFIG_KEY = "vc_core.config"
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class ConvertReport:
    """What `convert` wrote: `names` in the file's order, `dropped` those of the source left out, `size` in bytes."""

    target: Path
    names: tuple[str, ...]
    dropped: tuple[str, ...]
    size: int


def convert(
    source: str | Path | Checkpoint,
    target: str | Path,
    dtype: torch.dtype = torch.float16,
    *,
    config_text: str | None = None,
    names: Callable[[str], bool] | Iterable[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """Writes `source` to the `.safetensors` file `target`, its floating point numbers as `dtype`.

    `names` says which tensors are kept: a test, a list, or None for all. The file's metadata are the source's, `format`, and
    `config_text` under `vc_core.config`. `progress` is called with the bytes written so far and in total, after each tensor.
    At most one tensor is in memory beside the source's mapping. The target appears, or is replaced, only when it is complete.

    Raises CheckpointError if the source can't be read or is damaged, has infinite numbers or NaN, or numbers too large for
    `dtype`; if a name asked for is not in it or none is left; and if the target can't be written or is the source itself.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"can't convert to {_short(dtype)}; possible are {', '.join(map(_short, DTYPES))}")
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    target = Path(target)
    _check_target(checkpoint, target)
    kept = _kept(checkpoint, names)
    # The widest numbers first, as the library does, so that each tensor begins at a multiple of its numbers' size.
    kept.sort(key=lambda name: -_stored_type(checkpoint, name, dtype).itemsize)
    metadata = {**checkpoint.metadata, "format": "pt"}
    if config_text is not None:
        metadata[CONFIG_KEY] = config_text
    header, data_size = _header(checkpoint, kept, dtype, metadata)
    free = shutil.disk_usage(target.parent).free
    if len(header) + data_size > free:
        raise CheckpointError(f"{target}: needs {len(header) + data_size} bytes, but the disk has {free} left. Make room first")
    _replace(target, lambda file: _write(file, checkpoint, kept, dtype, header, data_size, progress))
    chosen = set(kept)
    dropped = tuple(name for name in checkpoint if name not in chosen)
    return ConvertReport(target, tuple(kept), dropped, len(header) + data_size)


def _check_target(checkpoint: Checkpoint, target: Path) -> None:
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target}: the new file's name must end in .safetensors")
    if target.is_dir() or not target.parent.is_dir():
        found = "is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise CheckpointError(f"{target}: {found}; give the path of a new file in a folder that exists")
    if target.exists() and target.samefile(checkpoint.path):
        raise CheckpointError(f"{target}: is the file to convert itself; give the new file another name")


def _kept(checkpoint: Checkpoint, names: Callable[[str], bool] | Iterable[str] | None) -> list[str]:
    if names is None:
        kept = checkpoint.names()
    elif callable(names):
        kept = [name for name in checkpoint if names(name)]
    else:
        asked = set(names)
        missing = sorted(asked - set(checkpoint))
        if missing:
            raise CheckpointError(
                f"{checkpoint.path}: {len(missing)} of the {len(asked)} tensors asked for are not in it: {', '.join(missing[:5])}"
            )
        kept = [name for name in checkpoint if name in asked]
    if not kept:
        raise CheckpointError(f"{checkpoint.path}: none of its {len(checkpoint)} tensors is to be kept; nothing was written")
    return kept


def _stored_type(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> torch.dtype:
    """The type that a tensor will have in the new file: `dtype` for floating point numbers, else its own."""
    own = checkpoint.dtype(name)
    return dtype if own.is_floating_point else own


def _header(checkpoint: Checkpoint, kept: list[str], dtype: torch.dtype, metadata: dict[str, str]) -> tuple[bytes, int]:
    """The length and JSON that the file begins with, and the number of bytes to follow."""
    entries: dict[str, object] = {METADATA: metadata}
    position = 0
    for name in kept:
        stored = _stored_type(checkpoint, name, dtype)
        if stored not in TAGS or name == METADATA or not _encodable(name):
            raise CheckpointError(
                f"{checkpoint.path}: tensor {name!r} of type {_short(stored)} can't be in a .safetensors file; leave it out"
            )
        shape = checkpoint.shape(name)
        end = position + torch.Size(shape).numel() * stored.itemsize
        entries[name] = {"dtype": TAGS[stored], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text, position


def _encodable(name: str) -> bool:
    """Whether the name can be written; a pickle can have halves of characters in one."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write(
    file: BinaryIO,
    checkpoint: Checkpoint,
    kept: list[str],
    dtype: torch.dtype,
    header: bytes,
    data_size: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    file.write(header)
    total = len(header) + data_size
    for name in kept:
        # flat, since a tensor without dimensions has no view as bytes
        numbers = _numbers(checkpoint, name, _stored_type(checkpoint, name, dtype)).reshape(-1)
        file.write(numbers.view(torch.uint8).numpy().data)
        del numbers
        if progress is not None:
            progress(file.tell(), total)


def _numbers(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> torch.Tensor:
    """The tensor as `dtype`, contiguous and found sound."""
    tensor = checkpoint.sound_tensor(name)
    # Nothing is copied where type and layout are right already: the file is then written straight from the mapping.
    result = tensor.to(dtype).contiguous()
    if not finite(result):
        largest = float(tensor.abs().max())
        raise CheckpointError(
            f"{checkpoint.path}: tensor {name!r} has the number {largest:.6g}, too large for {_short(dtype)}, which ends at "
            f"{torch.finfo(dtype).max:.6g}. Convert with --dtype {'bfloat16 or ' if dtype is torch.float16 else ''}float32"
        )
    return result


def _replace(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Has `write` fill a new file beside the target, and puts it in the target's place once it is safe on the disk."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(f"{target}: can't be written ({error.strerror or error}); nothing was changed") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Has the new name survive a power cut, on systems where a folder can be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
