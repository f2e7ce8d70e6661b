"""Writing files so that a reader sees either the old file or the complete new one."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import FileWriteError

#: Longest name, in bytes, that a part's name shows; of a longer one it has a digest. Names of 255 bytes are possible on most disks.
LONGEST_SHOWN = 100
#: A part of an unknown process counts as left behind after so many seconds.
LEFT_BEHIND_AFTER = 24 * 3600
#: Tells this process from an earlier one of the same number.
_PROCESS = secrets.token_hex(4)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file atomically: write to the temporary path that this yields, and it becomes ``path`` when the block ends.

    The temporary file has the same name, in a folder of its own (the *part*) beside ``path``, so that what libraries write beside
    it is removed with it. It is flushed to the disk before it is renamed, and removed if anything fails, so that ``path`` is
    unchanged then. Parts that a killed process left are removed first.

    Args:
        path: the file to write; its folder must exist.

    Yields:
        The temporary path, an empty file with the permissions of a new one.

    Raises:
        FileWriteError: the system or safetensors can't write the file. Other errors pass through.
    """
    remove_leftovers(path)
    part = _part(path)
    try:
        part.mkdir()
        temporary = part / path.name
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
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Make a folder with files in it at once: write into the temporary folder that this yields, and it becomes ``path`` at the end.

    Args:
        path: of the folder, which must not be there, or be empty; the folder above it must exist.

    Yields:
        The temporary folder, beside ``path``. It is removed if anything fails, and ``path`` is unchanged then.

    Raises:
        FileWriteError: the system can't write the files. Other errors pass through.
    """
    remove_leftovers(path)
    part = _part(path)
    try:
        (part / "files").mkdir(parents=True)
        yield part / "files"
        if path.is_dir():
            path.rmdir()  # which fails if it has files; Windows renames over no folder
        os.rename(part / "files", path)
        _flush_folder(path.parent)
    except OSError as error:
        raise FileWriteError(
            f"{path}: can't be written ({error.strerror or error}); nothing was changed. Check the folder and its free space."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _part(path: Path) -> Path:
    """A new name beside a file or folder, by which :func:`remove_leftovers` knows the process that it belongs to."""
    return path.with_name(f".{_shown(path.name)}.{_machine()}-{os.getpid()}-{_PROCESS}-{secrets.token_hex(2)}.part")


def check_output(path: Path, folder: bool = False) -> None:
    """Check all that can be known before a file is made, so that no work is lost.

    Args:
        folder: whether it is to become a folder, with files in it.

    Raises:
        FileWriteError: no such folder, something there that is not a file (for a folder: anything but an empty folder), a protected
            file, a name too long, or a folder that can't be written to.
    """
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)  # a name that is too long, or none, which Path's questions hide
    except (OSError, ValueError) as error:
        raise FileWriteError(f"{path}: can't be written ({getattr(error, 'strerror', error)}); give another path.") from error
    try:
        if not path.parent.is_dir():
            raise FileWriteError(f"{path}: there is no folder {path.parent}; give the path of a file in a folder that exists.")
        if folder:
            _check_new_folder(path)
        elif path.is_dir():
            raise FileWriteError(f"{path}: is a folder; give the path of a file.")
        elif path.exists() and not path.is_file():
            raise FileWriteError(f"{path}: is not an ordinary file and can't be replaced; give another name.")
        elif path.exists() and not os.access(path, os.W_OK):
            raise FileWriteError(f"{path}: is there and protected against writing; give another name, or change its permissions.")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise FileWriteError(f"{path}: can't be written ({error.strerror or error}); give another path.") from error


def _check_new_folder(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileWriteError(f"{path}: is there already; give the name of a new folder.")


def remove_leftovers(path: Path) -> None:
    """Remove the parts of a file that killed processes left beside it. Those of running processes stay.

    Whether a process of another machine runs is unknown; its parts stay for a day.
    """
    name = re.escape(f".{_shown(path.name)}.")
    pattern = re.compile(name + r"(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]{1,10})-(?P<process>[0-9a-f]{8})-[0-9a-f]{4}\.part")
    with suppress(OSError):
        for entry in list(os.scandir(path.parent)):
            match = pattern.fullmatch(entry.name)
            if match and entry.is_dir(follow_symlinks=False) and _is_left_behind(entry, **match.groupdict()):
                shutil.rmtree(entry, ignore_errors=True)


def _is_left_behind(part: os.DirEntry[str], machine: str, pid: str, process: str) -> bool:
    if process == _PROCESS and int(pid) == os.getpid():
        return False
    if machine == _machine() and os.name == "posix" and (int(pid) == os.getpid() or not _runs(int(pid))):
        return True
    return time.time() - part.stat().st_mtime > LEFT_BEHIND_AFTER


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _machine() -> str:
    """Eight digits for the machine or container, within which numbers of processes are unique."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32((platform.node() + namespace).encode()):08x}"


def _shown(name: str) -> str:
    """A name for a part's own, short enough that there is room for the rest."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST_SHOWN else hashlib.sha256(encoded).hexdigest()[:32]


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power cut, on systems and disks that can flush a folder."""
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
