"""T2V-Turbo v1's file: a list of LoRA matrices without names, ``[up, down, up, down, ...]`` (arXiv:2405.18750).

There is a pair for each linear layer, 2-D convolution and 3-D convolution of VideoCrafter2's UNet with its projection of the scale of
guidance (``time_cond_proj``), in the order in which the authors' code registers them. 1-D convolutions have none. The change of a weight
is ``up @ down``, without alpha.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from ..checkpoint.errors import CheckpointError

#: The order of modules beside each other in the authors' code, where it isn't that of numbers.
ORDER = (
    "time_embed", "fps_embedding", "time_cond_proj", "input_blocks", "init_attn", "middle_block", "output_blocks", "out",
    "in_layers", "emb_layers", "out_layers", "skip_connection", "temopral_conv", "conv1", "conv2", "conv3", "conv4",
    "proj_in", "transformer_blocks", "proj_out", "attn1", "ff", "attn2", "to_q", "to_k", "to_v", "to_out",
)  # fmt: skip
#: Axes of a weight that has a pair.
WITH_PAIR = (2, 4, 5)
#: Most wrong pairs that an error lists.
MAX_LISTED = 5


class Shaped(Protocol):
    """A tensor, read or not."""

    @property
    def shape(self) -> Sequence[int]: ...


Matrix = TypeVar("Matrix", bound=Shaped)


def layers_of(unet: Mapping[str, Sequence[int]]) -> list[str]:
    """The layers that have a pair, by the start of their weights' names, in the order of the list.

    Args:
        unet: the shapes of a UNet's tensors by their names, in any order.
    """
    stems = [name.removesuffix(".weight") for name, shape in unet.items() if name.endswith(".weight") and len(shape) in WITH_PAIR]
    return sorted(stems, key=_place)


def pairs_by_layer(
    matrices: Sequence[Matrix], unet: Mapping[str, Sequence[int]], source: str = "The file"
) -> dict[str, tuple[Matrix, Matrix]]:
    """The pairs of a list by their layers, in the order of the list: ``(down, up)``.

    ``down`` has the shape ``[r, *weight.shape[1:]]``, ``up`` ``[weight.shape[0], r]`` with axes of 1 after these for convolutions.

    Args:
        matrices: the list.
        unet: the shapes of the UNet's tensors by their names; it has ``time_cond_proj.weight``.
        source: the file, for errors.

    Raises:
        CheckpointError: another number of matrices, or another shape, than this UNet's layers need.
    """
    layers = layers_of(unet)
    if len(matrices) != 2 * len(layers):
        raise CheckpointError(
            f"{source} is a list of {len(matrices)} tensors; T2V-Turbo v1's has two for each of the {len(layers)} layers of this UNet, "
            f"{2 * len(layers)}. Take the file and the VideoCrafter2 checkpoint that belong together."
        )
    pairs = {layer: (matrices[2 * place + 1], matrices[2 * place]) for place, layer in enumerate(layers)}
    problems = [problem for layer, pair in pairs.items() if (problem := _mismatch(layer, *pair, unet[f"{layer}.weight"]))]
    if problems:
        more = [f"... and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
        raise CheckpointError(f"{source} is a list of tensors that does not fit this UNet:", problems[:MAX_LISTED] + more)
    return pairs


def _mismatch(layer: str, down: Shaped, up: Shaped, weight: Sequence[int]) -> str:
    rank, ones = down.shape[0] if len(down.shape) else 0, [1] * (len(weight) - 2)
    if list(down.shape) == [rank, *weight[1:]] and list(up.shape) == [weight[0], rank, *ones] and rank:
        return ""
    return f"{layer} is {list(weight)}, its pair is up {list(up.shape)} and down {list(down.shape)}"


def _place(stem: str) -> list[tuple[int, int]]:
    """A layer's place among the others."""
    parts = stem.split(".")
    return [(0, int(part)) if part.isdecimal() else (1, ORDER.index(part) if part in ORDER else len(ORDER)) for part in parts]
