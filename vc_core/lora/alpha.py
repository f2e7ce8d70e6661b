"""Which alpha a file's LoRA has: the scale of a layer is ``alpha / rank``, and many files don't say alpha.

In this order: the user's; the file's own for the layer; the file's metadata; ``adapter_config.json`` beside the file, as peft
writes it; that of the program that wrote the file, where the layout tells it; the rank, so that the scale is 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint

#: The file that peft writes beside its LoRAs, and the largest one that is read.
SETTINGS_FILE, LARGEST_SETTINGS = "adapter_config.json", 1 << 20
#: Keys of a safetensors file's metadata that can hold peft's settings as JSON.
_NESTED = ("lora_adapter_metadata", "adapter_config", "peft_config", "config")
_PLAIN, _KOHYA = ("lora_alpha", "r", "use_rslora", "alpha_pattern"), "ss_network_alpha"
#: All keys of a file's metadata that tell its alphas.
ALPHA_KEYS = (*_NESTED, *_PLAIN, _KOHYA)
_VADER_PREFIX, _VADER_ALPHA = "base_model.model.model.diffusion_model.", 8.0
_VIDEOTUNA_MARK, _VIDEOTUNA_ALPHA = ".lora_A.default.", 1.0
#: A key that every checkpoint of PyTorch Lightning has.
_LIGHTNING = "pytorch-lightning_version"
_ATTENTION = (".to_q", ".to_k", ".to_v")


@dataclass(frozen=True)
class Alpha:
    """An alpha, as a person is shown it, and where it is from."""

    value: float
    shown: str
    source: str

    @classmethod
    def plain(cls, value: float, source: str) -> Alpha:
        """One that is shown as it is."""
        return cls(value, f"{value:g}", source)


@dataclass(frozen=True)
class Settings:
    """What peft's settings, or a trainer's metadata, say of a file.

    Attributes:
        source: where they stand.
        alpha: of all layers that ``pattern`` has no other for.
        pattern: other alphas, by the last parts of paths.
        rank_stabilised: the scale is ``alpha / sqrt(rank)`` (arXiv:2312.03732).
        rank: that the file has, if it is told.
    """

    source: str
    alpha: float
    pattern: Mapping[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False
    rank: int | None = None

    def of_layer(self, path: str, rank: int) -> Alpha:
        """The alpha of a layer."""
        value = next((alpha for end, alpha in self.pattern.items() if path == end or path.endswith("." + end)), self.alpha)
        if self.rank_stabilised:
            return Alpha(value * math.sqrt(rank), f"{value:g} (scale alpha / sqrt(rank))", self.source)
        return Alpha.plain(value, self.source)


def stated(checkpoint: Checkpoint, ranks: Collection[int]) -> Settings | None:
    """The settings in a file's metadata, or beside it; None if there are none with an alpha.

    Args:
        ranks: those of the file's layers. Settings beside it that tell another rank are another file's.
    """
    metadata = checkpoint.metadata
    for key in _NESTED:
        if found := _settings(_parsed(metadata.get(key, "")), f"from the file's metadata ({key})"):
            return found
    plain = {name: metadata[name] for name in _PLAIN if name in metadata}
    if "lora_alpha" not in plain and _KOHYA in metadata:
        plain = {"lora_alpha": metadata[_KOHYA]}
    if found := _settings({name: _parsed(text) for name, text in plain.items()}, "from the file's metadata"):
        return found
    beside = _settings(_beside(checkpoint.path.with_name(SETTINGS_FILE)), f"from {SETTINGS_FILE} beside the file")
    return beside if beside and (beside.rank is None or beside.rank in ranks) else None


def by_layout(checkpoint: Checkpoint, names: Collection[str], changed: Collection[str], layers: Collection[str]) -> Alpha | None:
    """The alpha of a program whose files don't tell it; None if the layout is no such program's.

    Args:
        names: those of the file's tensors of the LoRA.
        changed: the UNet's layers that they change.
        layers: all layers of the UNet.
    """
    attention = {layer for layer in layers if layer.endswith(_ATTENTION)}
    if set(changed) == attention and all(name.startswith(_VADER_PREFIX) for name in names):
        return Alpha.plain(_VADER_ALPHA, "VADER's, whose files don't tell it")
    if _LIGHTNING in checkpoint.beside and any(_VIDEOTUNA_MARK in name for name in names):
        return Alpha.plain(_VIDEOTUNA_ALPHA, "VideoTuna's, whose files don't tell it")
    return None


def read_alpha(checkpoint: Checkpoint, name: str) -> float:
    """A layer's alpha in a file.

    Raises:
        CheckpointError: it isn't one finite number.
    """
    if math.prod(checkpoint.shape(name)) != 1:
        raise CheckpointError(f"{checkpoint.path}: {name!r:.200} has the shape {list(checkpoint.shape(name))}; an alpha is one number")
    return float(checkpoint.sound_tensor(name))


def _settings(content: Any, source: str) -> Settings | None:
    """Settings in peft's terms; names can have a part of a pipeline in front, as in diffusers' metadata (``unet.lora_alpha``)."""
    if not isinstance(content, dict):
        return None
    values = {str(name).removeprefix("unet."): value for name, value in content.items()}
    alpha, rank, pattern = (values.get(name) for name in ("lora_alpha", "r", "alpha_pattern"))
    if not _is_number(alpha):
        return None
    ends = pattern.items() if isinstance(pattern, dict) else ()
    others = {str(end): float(value) for end, value in ends if _is_number(value)}
    return Settings(source, float(alpha), others, values.get("use_rslora") is True, rank if isinstance(rank, int) else None)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**53


def _parsed(text: str) -> Any:
    """JSON; Python's True and False, as some trainers write their metadata; None for anything else."""
    try:
        return json.loads({"True": "true", "False": "false"}.get(text.strip(), text)) if len(text) <= LARGEST_SETTINGS else None
    except (ValueError, RecursionError):
        return None


def _beside(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_SETTINGS:
            return None
        return _parsed(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
