"""The bytes of an open file, copied into memory when they are asked for.

Nothing is memory-mapped: a mapping of a file that another program cuts short ends the process at the next look at it, and one of
a file that is written anew changes the weights of a model that is in use.
"""

from __future__ import annotations

import os
import stat
import threading
import weakref
from pathlib import Path

import torch
from torch import Tensor

from .errors import CheckpointError


class FileBytes:
    """A file that stays open for reading.

    Raises:
        CheckpointError: it is no plain file, but a pipe or a device.
        OSError: it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        weakref.finalize(self, os.close, descriptor)
        self._file = open(descriptor, "rb", buffering=0, closefd=False)  # noqa: SIM115 (closed with this object)
        self._lock = threading.Lock()
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("is no plain file, but a pipe or a device; give the checkpoint file")
        self.size: int = status.st_size
        self._stamp = status.st_size, status.st_mtime_ns

    def read(self, start: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``start`` on; fewer at the file's end."""
        with self._lock:
            self._file.seek(start)
            return self._file.read(max(0, min(count, self.size - start))) or b""

    def tensor(self, start: int, count: int) -> Tensor:
        """A copy of ``count`` bytes, ``[count]`` in uint8.

        Raises:
            CheckpointError: the file was changed since it was opened.
        """
        flat = torch.empty(count, dtype=torch.uint8)
        view, done = flat.numpy().data, 0
        with self._lock:
            self._file.seek(start)
            while done < count and (got := self._file.readinto(view[done:])):
                done += got
            status = os.fstat(self._file.fileno())
        if done < count or (status.st_size, status.st_mtime_ns) != self._stamp:
            raise CheckpointError("was cut short or replaced while it was open. Load it again, from a file that is complete")
        return flat


def as_type(flat: Tensor, dtype: torch.dtype) -> Tensor:
    """The elements in some bytes."""
    return flat != 0 if dtype is torch.bool else flat.view(dtype)
