"""Files of a training run: written completely or not at all, and checked when they are read."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FileWriteError, InputError
from ..files import check_output, replacing


class StateError(InputError):
    """A file of a run that can't be read or isn't of this run; the file is left as it is."""


def save_atomically(value: object, path: Path) -> None:
    """``torch.save`` that leaves either the old file or the complete new one, flushed to the disk; missing folders are made.

    Raises:
        FileWriteError: the file can't be written.
    """
    make_folder(path.parent)
    try:
        with replacing(path) as temporary:
            torch.save(value, temporary)
    except RuntimeError as error:  # torch's, for a disk that is full
        raise FileWriteError(f"{path}: can't be written ({str(error).splitlines()[0]}); nothing was changed. Check the disk.") from error


def make_folder(folder: Path) -> None:
    """Make the folder of a run, and those above it, where it is missing, and check that files can be made in it.

    Raises:
        FileWriteError: it can't be made or written to, or there is a file of that name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file of that name" if isinstance(error, FileExistsError) else error.strerror
        raise FileWriteError(f"{folder}: can't be made a folder ({reason}); give another.") from error
    check_output(folder / "state")


def read_state(path: Path) -> dict[str, Any]:
    """A file that :func:`save_atomically` wrote, on the CPU.

    Raises:
        StateError: it can't be read, holds no dictionary, or has numbers that are NaN or infinite.
    """
    remedy = "Move it away to start anew, or put an older copy in its place."
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        raise StateError(f"{path}: can't be read as the state of a training run: it is empty, cut or something else. {remedy}") from error
    if not isinstance(state, dict):
        raise StateError(f"{path}: holds no state of a training run, but {type(state).__name__}. {remedy}")
    for name, tensor in _tensors(state):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise StateError(f"{path}: {name[:120]!r} has numbers that are NaN or infinite. {remedy}")
    return state


def _tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))
