"""Writing files so that a reader sees either the old file or the complete new one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import FileWriteError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file atomically: write to the temporary path that this yields, and it becomes ``path`` when the block ends.

    The temporary file is in the same folder. It is flushed to the disk before it is renamed, and removed if anything fails, so that
    ``path`` is unchanged then.

    Args:
        path: the file to write; its folder must exist.

    Yields:
        The temporary path, an empty file with the permissions of a new one.

    Raises:
        FileWriteError: the system or safetensors can't write the file. Other errors pass through.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors and huggingface_hub replace it by a file that only its owner can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FileWriteError(f"{path}: can't be written ({reason}); nothing was changed. Check the folder and its free space.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power cut, on systems and disks that can flush a folder."""
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
