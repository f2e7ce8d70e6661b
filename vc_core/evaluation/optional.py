"""Libraries that only one measure needs, each imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import InputError


class MissingLibrary(InputError):
    """A library that a measure needs is not installed, or doesn't start."""


def library(name: str, package: str) -> Any:
    """The module of a library.

    Raises:
        MissingLibrary: it can't be imported; the message names the package.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # a library that doesn't fit the others can raise anything
        raise MissingLibrary(f"needs {package}: pip install {package} ({type(error).__name__}: {error})") from error
