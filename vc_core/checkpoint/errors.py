"""The one error that reading, telling apart and converting checkpoint files raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint can't be used as asked; the message says what was found and what to do."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's path in front of a CheckpointError raised inside."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
