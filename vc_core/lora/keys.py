"""The names of tensors in LoRA files: which layer each is for, and which side of it.

===========================  ====================================================================================
written by                   names of a layer's tensors
===========================  ====================================================================================
peft                         ``PATH.lora_A.weight``, ``.lora_B.weight``, or ``.lora_A.NAME.weight``
kohya, VideoCrafter 0.9      ``PATH.lora_down.weight``, ``.lora_up.weight``, ``.lora_mid.weight``, ``.alpha``, ``.dora_scale``
older releases of diffusers  ``PATH_lora.down.weight``, ``PATH.lora_linear_layer.down.weight``, ``PATH.lora.down.weight``
===========================  ====================================================================================

:mod:`.places` finds the model's layer by PATH.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..checkpoint.errors import CheckpointError
from ..errors import printable

#: Real names have up to 150 characters; longer ones are not looked at.
LONGEST_KEY = 300
_SIDES = {"A": "down", "B": "up", "down": "down", "up": "up", "mid": "mid"}
_KEY = re.compile(
    r"(?P<path>.+?)(?:"
    r"\.lora_(?P<peft>A|B)(?:\.(?P<adapter>[^.]+))?\.weight|\.lora_(?P<bare>A|B)|\.lora_(?P<kohya>down|up|mid)\.weight"
    r"|(?:_lora|\.lora|\.lora_linear_layer)\.(?P<diffusers>down|up)\.weight|\.(?P<other>alpha|dora_scale))"
)
#: Ends of names that belong to changes of other kinds than a LoRA's two matrices.
_OTHER_KINDS = re.compile(
    r"\.(hada_w\d_[ab]|hada_t\d|lokr_\w+|lora_magnitude_vector(\.\w+)?(\.weight)?|oft_\w+|boft_\w+|oft_r(\.\w+)?(\.weight)?"
    r"|lora_embedding_[AB](\.\w+)?|lora_B(\.\w+)?\.bias|diff|diff_b|set_weight|reshape_weight|w_norm|b_norm|glora_\w+|[ab][12]\.weight"
    r"|vera_\w+(\.\w+)?)"
)


@dataclass(frozen=True)
class Parts:
    """The names of one layer's tensors in a file; ``mid`` is that of a decomposed convolution, ``dora_scale`` that of a DoRA."""

    down: str
    up: str
    mid: str | None = None
    alpha: str | None = None
    dora_scale: str | None = None


@dataclass(frozen=True)
class Keys:
    """The tensors of a LoRA file.

    Attributes:
        layers: by the paths of layers, as the file has them.
        others: the names of tensors that are not a LoRA's, such as the weights of a base model.
    """

    layers: dict[str, Parts]
    others: tuple[str, ...]


def sort_keys(names: Iterable[str]) -> Keys:
    """Sort the names of a file's tensors by layers.

    Raises:
        CheckpointError: a layer has only one of its two matrices, or those of two adapters; or the file has changes of other kinds
            (LoHa, LoKr, peft's DoRA, differences of weights), without which the rest would be another model.
    """
    found: dict[str, dict[str, str]] = {}
    others = []
    for name in names:
        match = _KEY.fullmatch(name) if len(name) <= LONGEST_KEY else None
        if match is None:
            _check_kind(name)
            others.append(name)
            continue
        side = match["other"] or _SIDES[next(filter(None, match.group("peft", "bare", "kohya", "diffusers")))]
        sides = found.setdefault(match["path"], {})
        if side in sides:
            raise CheckpointError(
                f"layer {match['path']!r:.160} has two {side} matrices, {sides[side]!r:.200} and {name!r:.200}: the file holds two LoRAs. "
                "Save each as a file of its own"
            )
        sides[side] = name
    layers = {}
    for path, sides in found.items():
        if sides.keys() <= {"alpha", "dora_scale"}:
            others += sides.values()
        elif {"down", "up"} <= sides.keys():
            layers[path] = Parts(**sides)
        else:
            missing = "up" if "down" in sides else "down"
            raise CheckpointError(f"layer {path!r:.160} has no {missing} matrix; the file is incomplete. Get another copy")
    return Keys(layers, tuple(others))


def _check_kind(name: str) -> None:
    path, dot, _ = name.partition(".")
    if dot and len(name) <= LONGEST_KEY and (match := _OTHER_KINDS.search(name)) and match.end() == len(name):
        raise CheckpointError(
            f"has the tensor {printable(name, 160)!r}, of a kind of change that is not read here (LoHa, LoKr, peft's DoRA, differences "
            "of weights); without it the file would only half apply. Core's Load LoRA node reads such files, under names that it knows"
        )
