"""What a LoRA adds to one layer: ``alpha / rank * up @ down`` (arXiv:2106.09685, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """Two matrices for one weight ``[out, in, ...]``, which can be a convolution's.

    Attributes:
        down: ``[rank, in, ...]``.
        up: ``[out, rank]``, or ``[out, rank, 1, ...]``.
        alpha: the product is multiplied by ``alpha / rank``.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self, shape: Sequence[int]) -> Tensor:
        """What is added to a weight of this shape at strength 1, in float32."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return (self.alpha / self.rank * product).reshape(*shape)


def misfit(down: Sequence[int], up: Sequence[int], weight: Sequence[int]) -> str | None:
    """Why matrices of these shapes can't be for a weight ``[out, in, ...]``; None if they can."""
    if len(down) < 2 or len(up) < 2 or down[0] < 1 or up[1] != down[0] or math.prod(up[2:]) != 1:
        return f"its matrices {list(down)} and {list(up)} don't belong together"
    if math.prod(down[1:]) != math.prod(weight[1:]) or (len(down) > 2 and down[1] != weight[1]):
        return f"its down matrix is {list(down)}, the model's weight {list(weight)}: width {_width(down)} against {_width(weight)}"
    if up[0] != weight[0]:
        return f"its up matrix is {list(up)}, the model's weight {list(weight)}: width {up[0]} against {weight[0]}"
    return None


def _width(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[1:]))
