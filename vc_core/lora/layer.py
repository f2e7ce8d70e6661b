"""What a LoRA does to one layer: it adds ``alpha / rank * up @ down`` (arXiv:2106.09685, section 4.1); a DoRA also scales the sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """Two matrices for one weight ``[out, in, ...]``, which can be a convolution's.

    Attributes:
        down: ``[rank, in, ...]``.
        up: ``[out, rank]``, or ``[out, rank, 1, ...]``.
        alpha: the product is multiplied by ``alpha / rank``.
        dora_scale: of a DoRA (arXiv:2402.09353), ``[out, 1, ...]`` or ``[1, in, 1, ...]``, as ComfyUI reads it, see :meth:`add_to`.
    """

    down: Tensor
    up: Tensor
    alpha: float
    dora_scale: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def add_to(self, weight: Tensor, strength: float) -> None:
        """Apply it to a float32 weight, in place.

        With W the weight and C :meth:`delta`, a DoRA's weight at strength 1 is ``s (W + C) / n``: n is the norm of each of W's rows for
        a scale of rows, and of each column of W + C for a scale of columns. ComfyUI computes it so, and files are written for that.
        """
        if self.dora_scale is None:
            weight += strength * self.delta(weight.shape)
            return
        changed = weight + self.delta(weight.shape)
        of_rows = self.dora_scale.shape[0] == len(weight)
        other_axes = list(range(1, weight.ndim)) if of_rows else [0, *range(2, weight.ndim)]
        norm = torch.linalg.vector_norm(weight if of_rows else changed, dim=other_axes, keepdim=True)
        changed *= self.dora_scale.float() / (norm + torch.finfo(weight.dtype).eps)
        weight += strength * (changed - weight)

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


def scale_misfit(scale: Sequence[int], weight: Sequence[int]) -> str | None:
    """Why a DoRA's scale of this shape can't be for a weight ``[out, in, ...]``; None if it can."""
    rows, columns = (weight[0], *[1] * (len(weight) - 1)), (1, weight[1], *[1] * (len(weight) - 2))
    if tuple(scale) in (rows, columns):
        return None
    return f"its dora_scale is {list(scale)}; for the model's weight {list(weight)} it must be {list(rows)} or {list(columns)}"


def _width(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[1:]))
