"""The one error that reading, telling apart and converting checkpoint files raise."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint can't be used as asked; the message says what was found and what to do."""


class _Shown(reprlib.Repr):
    """Python's own for values of any size, short of what a hostile file could make endless."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother = 3, 80

    def repr_int(self, value: int, level: int) -> str:
        # The decimals of a number of a million digits take minutes.
        return repr(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"


def shown(value: object, width: int = 80) -> str:
    """A value out of a file as an error message shows it: at most `width` characters, all of them printable.

    Takes as long as that, whatever the value: a file can nest a tuple in itself so that its text would have 2**60 parts.
    """
    text = repr(value[:width]) if isinstance(value, (str, bytes)) else _Shown().repr(value)
    return text[:width]


def shown_name(name: str, width: int = 160) -> str:
    """Text out of a file without quotation marks, likewise short and printable."""
    return repr(name[:width])[1:-1][:width]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's path in front of a CheckpointError raised inside."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
