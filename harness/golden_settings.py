"""Runs whose settings are in their folder's ``settings.json``, one beside the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from harness import goldens


def settings_of(folder: str, kind: str) -> list[dict[str, Any]]:
    """The settings of each case of a kind."""
    found: list[dict[str, Any]] = goldens.recording(folder).json("settings.json")[kind]
    return found


@dataclass(frozen=True)
class SettledRun:
    """A run: its settings, as ``settings.json`` has them, and its tensors."""

    folder: ClassVar[str]
    run: str

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self.folder, "runs")[int(self.run)]

    def tensor(self, name: str) -> Tensor:
        """``{run}.{name}``."""
        return goldens.read(self.folder, "sampling")[f"{self.run}.{name}"]
