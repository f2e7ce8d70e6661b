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

# Some systems read no more than 2 GB at once.
_AT_ONCE = 1 << 30


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
        data = bytearray(max(0, min(count, self.size - start)))
        return bytes(data[: self._read_into(memoryview(data), start)])

    def tensor(self, start: int, count: int) -> Tensor:
        """A copy of ``count`` bytes, ``[count]`` in uint8.

        Raises:
            CheckpointError: the file was changed since it was opened.
        """
        flat = torch.empty(count, dtype=torch.uint8)
        done = self._read_into(flat.numpy().data, start)
        status = os.fstat(self._file.fileno())
        if done < count or (status.st_size, status.st_mtime_ns) != self._stamp:
            raise CheckpointError("was cut short or replaced while it was open. Load it again, from a file that is complete")
        return flat

    def _read_into(self, view: memoryview, start: int) -> int:
        """Fill a buffer as far as the file goes; returns the number of bytes."""
        done = 0
        while done < len(view):
            piece = view[done : done + _AT_ONCE]
            if hasattr(os, "preadv"):  # it leaves the position alone, which processes that were forked share
                got = os.preadv(self._file.fileno(), [piece], start + done)
            else:
                with self._lock:
                    self._file.seek(start + done)
                    got = self._file.readinto(piece) or 0
            if not got:
                break
            done += got
        return done


def as_type(flat: Tensor, dtype: torch.dtype) -> Tensor:
    """The elements in some bytes."""
    return flat != 0 if dtype is torch.bool else flat.view(dtype)
