"""Where files are saved: names from a graph checked, and a number of its own for each file."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import folder_paths

from ...vc_core.files import replacing, replacing_folder

#: Most bytes of a part of the path: file systems allow 255, and a number and a suffix are added.
LONGEST_NAME = 200
#: Most bytes of a prefix, and most folders in it.
LONGEST_PREFIX, MOST_PARTS = 1000, 32
#: Name of a file whose prefix has none.
DEFAULT_NAME = "VideoCrafter"


def check_name(prefix: str, output: Path) -> str:
    """Check a file name prefix from a graph, which may come from a stranger.

    Args:
        output: the folder that files go into.

    Returns:
        The prefix with a name at its end: ``video/`` becomes ``video``, and an empty one :data:`DEFAULT_NAME`.

    Raises:
        ValueError: the file would be outside of the folder, or the name is not valid.
    """
    shown = f"{prefix!r:.100}"
    if not isinstance(prefix, str):
        raise ValueError(f"filename_prefix is {shown}; it must be a text, such as video/VideoCrafter.")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in prefix):
        raise ValueError(
            f"filename_prefix is {shown}; it has characters that file names cannot have. Use letters, digits and - _ . %"
        )
    parts = Path(prefix).parts
    if any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise ValueError(
            f"filename_prefix {shown}... has a part longer than {LONGEST_NAME} bytes. Use a shorter name."
        )
    if len(prefix.encode()) > LONGEST_PREFIX or len(parts) > MOST_PARTS:
        raise ValueError(
            f"filename_prefix {shown}... has {len(prefix.encode())} bytes and {len(parts)} parts; at most {LONGEST_PREFIX} bytes and "
            f"{MOST_PARTS} parts are possible. Use a shorter one."
        )
    try:
        inside = (output / prefix).resolve().is_relative_to(output.resolve())
    except (OSError, RuntimeError):  # links that lead to each other
        inside = False
    if not inside:
        raise ValueError(
            f"filename_prefix is {shown}, which leads out of the output folder {output}. Use a name inside this "
            "folder."
        )
    normal = os.path.normpath(prefix)
    return DEFAULT_NAME if normal == os.curdir else normal


@contextmanager
def numbered(prefix: str, output: str, width: int, height: int, suffix: str) -> Iterator[tuple[Path, Path]]:
    """A new file under the next free number, which belongs to it from the first moment on, whatever other programs save.

    Args:
        prefix: see :func:`check_name`; core's variables in it, such as ``%width%``, are filled in.
        output: the folder that files go into.
        suffix: of the file; empty for a folder.

    Yields:
        The path to write to, and the path of the file, to which the former is renamed when the block ends. If it fails, nothing is
        left of the file.

    Raises:
        ValueError: the file can't be written.
    """
    try:
        folder, name, number, _, _ = folder_paths.get_save_image_path(prefix, output, width, height)
        path = _claimed(Path(folder), name, number, suffix)
    except OSError as error:
        where = error.filename or prefix
        raise ValueError(
            f"filename_prefix is {prefix!r:.100}, but the file can't be made: {error.strerror or error} ({where!r:.200}). Use another "
            "prefix, or check the output folder."
        ) from error
    try:
        with (replacing if suffix else replacing_folder)(path) as part:
            yield part, path
    except BaseException:
        with suppress(FileNotFoundError):
            path.unlink() if suffix else path.rmdir()
        raise


def _claimed(folder: Path, name: str, number: int, suffix: str) -> Path:
    """Create an empty file, or folder, with the first free number from ``number`` on. No two programs get the same one."""
    for each in count(number):
        path = folder / f"{name}_{each:05}_{suffix}"
        try:
            if suffix:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            else:
                path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("count() has no end")
