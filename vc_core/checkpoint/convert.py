"""Writing a checkpoint's tensors to one safetensors file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import FileWriteError
from ..files import check_output, remove_leftovers, replacing
from .errors import CheckpointError
from .reading import Checkpoint, finite, open_checkpoint

CONFIG_KEY = "vc_core.config"
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


@dataclass(frozen=True)
class ConvertReport:
    """The file that :func:`convert` wrote: its tensors' names, those of the source that were left out, and its size in bytes."""

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
    """Write a checkpoint as a safetensors file with its floating point tensors as ``dtype``.

    All tensors of the new file are in memory before it is written: about the new file's size, or twice that with older
    releases of safetensors. The target appears, or is replaced, only when it is complete.

    Args:
        source: a file, or an open checkpoint.
        target: the new file, whose name ends in ``.safetensors``.
        dtype: float16, bfloat16 or float32.
        config_text: written into the metadata under ``vc_core.config``, beside the source's own metadata.
        names: the tensors to write: a test, a list in any order, or None for all.
        progress: called after each tensor with the bytes converted so far and in total.

    Raises:
        CheckpointError: the source can't be read, is damaged, or has NaN, infinite values or values too large for ``dtype``; it lacks
            one of the names, or none is left; a tensor can't be stored; the target is the source or can't be written, or its disk
            is too full.
        FileWriteError: writing failed.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"can't convert to {_short(dtype)}; possible are {', '.join(DTYPE_NAMES)}")
    target = Path(target)
    check_target(target)
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    if target.exists() and target.samefile(checkpoint.path):
        raise CheckpointError(f"{target}: is the file to convert itself; give the new file another name")
    dtypes = {name: dtype if checkpoint.dtype(name).is_floating_point else checkpoint.dtype(name) for name in _selected(checkpoint, names)}
    sizes = {name: torch.Size(checkpoint.shape(name)).numel() * stored.itemsize for name, stored in dtypes.items()}
    total, free = sum(sizes.values()), shutil.disk_usage(target.parent).free
    if total > free:
        raise CheckpointError(f"{target}: needs {total} bytes, but the disk has {free} left. Make room first")
    tensors: dict[str, Tensor] = {}
    done = 0
    for name, stored in dtypes.items():
        tensors[name] = _converted(checkpoint, name, stored)
        done += sizes[name]
        if progress is not None:
            progress(done, total)
    metadata = {**checkpoint.metadata, "format": "pt"}
    if config_text is not None:
        metadata[CONFIG_KEY] = config_text
    with replacing(target) as temporary:
        save_file(tensors, temporary, metadata)
    dropped = tuple(name for name in checkpoint if name not in tensors)
    return ConvertReport(target, tuple(tensors), dropped, target.stat().st_size)


def check_target(target: Path) -> None:
    """Check where a new file is to be, and remove what killed processes left of it, which takes room.

    Raises:
        CheckpointError: its name doesn't end in ``.safetensors``, or it can't be written.
    """
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target}: the new file's name must end in .safetensors")
    try:
        check_output(target)
    except FileWriteError as error:
        raise CheckpointError(str(error)) from error
    remove_leftovers(target)


def _selected(checkpoint: Checkpoint, names: Callable[[str], bool] | Iterable[str] | None) -> list[str]:
    """The names to write, sorted, so that the new file doesn't depend on their order in the source or in the list."""
    selected = set(checkpoint)
    if callable(names):
        selected = {name for name in checkpoint if names(name)}
    elif names is not None:
        selected = set(names)
        missing = sorted(selected - set(checkpoint))
        if missing:
            raise CheckpointError(
                f"{checkpoint.path}: {len(missing)} of the {len(selected)} requested tensors are not in it: {', '.join(missing[:5])}"
            )
    if not selected:
        raise CheckpointError(f"{checkpoint.path}: none of its {len(checkpoint)} tensors is selected; nothing was written")
    return sorted(selected)


def _converted(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> Tensor:
    """A contiguous copy of a tensor as ``dtype``, after a check of its values."""
    tensor = checkpoint.sound_tensor(name)
    if name == "__metadata__" or not name.isprintable() or dtype == torch.complex128:
        raise CheckpointError(
            f"{checkpoint.path}: tensor {name!r:.160} of type {_short(dtype)} can't be stored in a .safetensors file; leave it out"
        )
    result = torch.empty(tensor.shape, dtype=dtype).copy_(tensor)
    if not finite(result):
        largest = float(tensor.abs().max())
        raise CheckpointError(
            f"{checkpoint.path}: tensor {name!r} has the number {largest:.6g}, too large for {_short(dtype)}, whose largest is "
            f"{torch.finfo(dtype).max:.6g}. Convert with --dtype {'bfloat16 or ' if dtype is torch.float16 else ''}float32"
        )
    return result


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
