"""Results as they come: printed, and appended to a file, so that a run that is killed keeps what it has."""

from __future__ import annotations

import gc
import json
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vc_core.memory import is_out_of_memory

#: What tells a result from others; all else in it are figures.
KEYS = ("section", "case", "model", "size", "dtype", "way")
Figures = dict[str, Any]


@dataclass
class Results:
    """The results of one run.

    Attributes:
        path: the file, one JSON object a line.
        deadline: no case starts after this time of :func:`time.monotonic`.
        rows: all results so far.
    """

    path: Path
    deadline: float = math.inf
    rows: list[Figures] = field(default_factory=list)

    def add(self, keys: Mapping[str, str], figures: Mapping[str, Any]) -> None:
        """Print a result and append it to the file."""
        row = {**keys, **figures}
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(line(row), flush=True)

    def run(self, keys: Mapping[str, str], case: Callable[[], Mapping[str, Any]]) -> Figures | None:
        """Run a case and add its figures, or its error: the next case goes on.

        Returns:
            The figures; None if there are none.
        """
        if time.monotonic() > self.deadline:
            self.add(keys, {"skipped": "no time left"})
            return None
        try:
            figures = dict(case())
        except Exception as error:  # whatever it is, it must not cost the other cases
            figures = {"error": "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"[:500]}
            if "out of memory" not in figures["error"]:
                traceback.print_exc()
        self.add(keys, figures)
        release()
        return None if "error" in figures else figures


def release() -> None:
    """Give back the memory of what is no longer used, an error's frames too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def keys(section: str, case: str, model: str = "", size: str = "", dtype: str = "", way: str = "") -> dict[str, str]:
    """What tells a result from others; empty where it has none."""
    return dict(zip(KEYS, (section, case, model, size, dtype, way), strict=True))


def line(row: Mapping[str, Any]) -> str:
    """A result in one line."""
    name = " ".join(str(row[key]) for key in KEYS if row.get(key))
    return f"{name}: " + ", ".join(f"{key} {shown(value)}" for key, value in row.items() if key not in KEYS)


def shown(value: Any) -> str:
    """A figure with four digits; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read(path: Path) -> list[Figures]:
    """The results of a file, or of the file in a folder."""
    path = path / "results.jsonl" if path.is_dir() else path
    return [json.loads(text) for text in path.read_text().splitlines() if text.strip()]
