"""A LoRA that is matched with a model's layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import printable
from .alpha import Alpha
from .layer import Layer

#: Most paths that a report lists.
MAX_LISTED = 8


@dataclass(frozen=True)
class Lora:
    """What a file changes of a model.

    Attributes:
        path: the file.
        unet: by the paths of the UNet's layers.
        text: by transformers' paths of the text tower's layers (``text_model.encoder.layers.0.mlp.fc1``).
        unmatched: the paths, as the file has them, of layers that the model doesn't have.
        unused_text: the paths of text layers, where the model has no text encoder of this kind.
        others: how many of the file's tensors are not a LoRA's.
        alphas: the alphas that were taken.
        metadata: the texts that a safetensors file can have.
    """

    path: Path
    unet: dict[str, Layer]
    text: dict[str, Layer]
    unmatched: tuple[str, ...]
    unused_text: tuple[str, ...]
    others: int
    alphas: tuple[Alpha, ...]
    metadata: Mapping[str, str]

    def report(self) -> list[str]:
        """Lines for a person: how many layers matched, which did not, and the alpha that was taken."""
        layers = [*self.unet.values(), *self.text.values()]
        total = len(layers) + len(self.unmatched) + len(self.unused_text)
        ranks = sorted({each.rank for each in layers})
        rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        text = f" ({len(self.text)} of the text encoder)" if self.text else ""
        lines = [f"{self.path.name}: {len(layers)} of {total} layers matched{text}, rank {rank}"]
        for source in dict.fromkeys(each.source for each in self.alphas):
            lines.append(f"alpha {_listed(sorted({each.shown for each in self.alphas if each.source == source}))}: {source}")
        if self.unused_text:
            lines.append(f"{_counted(len(self.unused_text), 'text layer')} not used: {_listed(self.unused_text)}")
        if self.unmatched:
            lines.append(f"{_counted(len(self.unmatched), 'layer')} not in this model, not used: {_listed(self.unmatched)}")
        if self.others:
            lines.append(f"{_counted(self.others, 'tensor')} beside the LoRA, not used")
        return lines


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(printable(path, 120) for path in paths[:MAX_LISTED])
    return shown + (f" and {len(paths) - MAX_LISTED} more" if len(paths) > MAX_LISTED else "")
