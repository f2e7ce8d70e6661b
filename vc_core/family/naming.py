"""What a model can be called by: the path of its file, or the name of a bundled one."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import SUFFIXES
from ..config import published
from .bundled import bundled_models

#: What all names of bundled models begin with.
PREFIX = "videocrafter_"


def model_path(name: str | os.PathLike[str]) -> Path:
    """The file of a model.

    Args:
        name: a path, or the name of a bundled model.

    Raises:
        CheckpointError: a name, without a suffix or a folder, of which there is neither a bundled model nor a file.
    """
    bundled, text = bundled_models(), os.fspath(name)
    path = bundled.get(text, Path(text))
    if path.suffix.lower() in SUFFIXES or path.name != text or os.path.lexists(path):
        return path
    if text in published():
        raise CheckpointError(
            f"{text}: no such file. It is the name of a published model: `python -m vc_core fetch {text}` downloads its file; then give "
            "the file's path."
        )
    known = {key: each for each in bundled for key in (each.removeprefix(PREFIX), each)}
    known |= {each.stem.lower(): each.name for each in Path().iterdir() if each.suffix in SUFFIXES}
    near = list(dict.fromkeys(known[each] for each in difflib.get_close_matches(text.lower(), known, n=5)))
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise CheckpointError(f"{text}: no such file, nor a bundled model of that name. {hint}Bundled are {', '.join(bundled)}.")
