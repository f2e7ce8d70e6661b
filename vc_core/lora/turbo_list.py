"""T2V-Turbo v1's file: a list of tensors without names, two for each layer, in the order of the UNet's modules.

The order is that in which the authors' UNet registers its modules. It differs from ours in a transformer's block, whose
feed-forward layers come before its cross-attention. Layers that are 1-D convolutions have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..checkpoint.errors import CheckpointError
from .layer import misfit

#: The layer that T2V-Turbo adds to VideoCrafter2, and the one after which it is registered.
GUIDANCE_LAYER, _BEFORE_GUIDANCE = "time_cond_proj", "fps_embedding.2"
_BLOCK = re.compile(r"(?P<block>.+\.transformer_blocks\.\d+)\.(?P<layer>attn1|attn2|ff)\.")
_ORDER = {"attn1": 0, "ff": 1, "attn2": 2}


class HasShape(Protocol):
    """A tensor, or what stands for one before it is read."""

    @property
    def shape(self) -> Sequence[int]: ...


T = TypeVar("T", bound=HasShape)


@dataclass(frozen=True)
class NamelessTensor:
    """A tensor of a list in a file: its place as a name, and its shape."""

    name: str
    shape: tuple[int, ...]


def is_nameless(names: Sequence[str]) -> bool:
    """Whether these are the names that :func:`vc_core.checkpoint.open_checkpoint` gives the tensors of a list: 0, 1, 2, ..."""
    return bool(names) and all(name == str(index) for index, name in enumerate(names))


def turbo_layers(tensors: Sequence[T], layers: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[T, T]]:
    """Name the tensors of a T2V-Turbo list.

    Args:
        tensors: ``up, down`` of the first layer, then of the second, and so on.
        layers: the shapes of the UNet's weights by their layers' paths, in the order of its modules.
            ``time_cond_proj`` may be missing, as in VideoCrafter2's own UNet.

    Returns:
        ``(down, up)`` of each layer, in the list's order.

    Raises:
        CheckpointError: the list isn't T2V-Turbo's for a UNet of these layers.
    """
    if len(tensors) % 2:
        raise CheckpointError(f"is a list of {len(tensors)} tensors; T2V-Turbo's lists have two for each layer")
    pairs = list(zip(tensors[1::2], tensors[::2], strict=True))
    found: dict[str, tuple[T, T]] = {}
    expected = list(_in_list_order(layers))
    if GUIDANCE_LAYER not in layers and _BEFORE_GUIDANCE in expected:
        place = expected.index(_BEFORE_GUIDANCE) + 1
        if place < len(pairs) and len(pairs) == len(expected) + 1:
            expected.insert(place, GUIDANCE_LAYER)
    if len(pairs) != len(expected):
        raise CheckpointError(
            f"is a list of tensors without names, for {len(pairs)} layers; this model has {len(expected)} that T2V-Turbo's lists change. "
            "Load VideoCrafter2, or a LoRA for this model"
        )
    for name, (down, up) in zip(expected, pairs, strict=True):
        problem = misfit(down.shape, up.shape, layers[name]) if name in layers else None
        if problem is not None:
            raise CheckpointError(f"is a list of tensors without names that is not T2V-Turbo's for this model: at {name}, {problem}")
        found[name] = down, up
    return found


def _in_list_order(layers: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The layers that a list has, in its order: feed-forward before cross-attention, no 1-D convolutions."""
    names = [name for name, shape in layers.items() if len(shape) != 3]
    firsts: dict[str, int] = {}
    keys = {}
    for index, name in enumerate(names):
        match = _BLOCK.match(name)
        if match is None:
            keys[name] = (index, 0, index)
        else:
            keys[name] = (firsts.setdefault(match["block"], index), _ORDER[match["layer"]], index)
    yield from sorted(names, key=keys.__getitem__)
