"""The error of reading, identifying and converting checkpoint files, and how it shows values out of a file."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import VideoCrafterError


class CheckpointError(VideoCrafterError):
    """A checkpoint that can't be used as asked; the message says what was found and what to do."""


class _BoundedRepr(reprlib.Repr):
    """reprlib's, with stricter limits: a hostile file can contain values whose text has no end."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother = 3, 80

    def repr_int(self, value: int, level: int) -> str:
        # Printing an integer of a million digits takes minutes.
        return repr(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"


def short_repr(value: object, width: int = 80) -> str:
    """``repr`` of a value out of a file, for an error message: at most ``width`` characters, all of them printable.

    The time it takes is bounded as well: a file can nest a tuple in itself so that its text would have 2**60 parts.
    """
    text = repr(value[:width]) if isinstance(value, (str, bytes)) else _BoundedRepr().repr(value)
    return text[:width]


@contextmanager
def error_prefix(path: Path) -> Iterator[None]:
    """Put the file's path in front of the message of a CheckpointError raised inside."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", error.lines) from error.__cause__
