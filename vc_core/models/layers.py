"""Where the networks get their layers and their attention from.

Every network is built from one :class:`Layers`. Alone it is torch's own; under ComfyUI it makes ComfyUI's layers, and with
them come casts on the fly, offloading and fp8, and calls the attention that the user chose.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

#: ``attention(q, k, v, heads, bias=None)``: q ``[N, Q, heads * d]``, k and v ``[N, K, heads * d]`` -> ``[N, Q, heads * d]``;
#: the bias is added to the logits and broadcasts to ``[N, heads, Q, K]``.
Attention = Callable[..., Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Scaled dot product attention by torch. Shapes as in :data:`Attention`."""
    # 'n l (heads d) -> n heads l d'
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.transpose(1, 2).flatten(-2)


class Layers:
    """Makes the layers of a network.

    Args:
        operations: a namespace with ``Linear``, ``Conv1d`` to ``Conv3d``, ``GroupNorm`` and ``LayerNorm`` as in ``torch.nn``.
        attention: see :data:`Attention`.
        device: where the weights are made (``meta`` for a model that is loaded by assignment).
        dtype: the weights' type.
    """

    def __init__(
        self,
        operations: ModuleType | type = nn,
        attention: Attention = sdpa,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.operations: Any = operations
        self.attention = attention
        self.where: dict[str, Any] = {"device": device, "dtype": dtype}

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        return self.operations.Linear(inputs, outputs, bias=bias, **self.where)

    def conv1d(self, inputs: int, outputs: int, kernel: int) -> nn.Module:
        return self.operations.Conv1d(inputs, outputs, kernel, **self.where)

    def conv2d(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
        return self.operations.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, **self.where)

    def conv3d(self, inputs: int, outputs: int, kernel: tuple[int, int, int], padding: tuple[int, int, int]) -> nn.Module:
        return self.operations.Conv3d(inputs, outputs, kernel, padding=padding, **self.where)

    def group_norm(self, channels: int, eps: float = 1e-5) -> nn.Module:
        """32 groups, as everywhere in the family."""
        return self.operations.GroupNorm(32, channels, eps=eps, **self.where)

    def layer_norm(self, width: int) -> nn.Module:
        return self.operations.LayerNorm(width, **self.where)

    def table(self, *shape: int, deviation: float = 0.0) -> nn.Parameter:
        """A learned table that is not a layer of its own; normal numbers of that deviation until weights are loaded or trained."""
        # Drawn first and converted then: the 8 bit types can't be drawn.
        start = torch.randn(shape, device=self.where["device"]) * deviation
        return nn.Parameter(start.to(self.where["dtype"] or start.dtype))


def zeroed(layer: nn.Module) -> nn.Module:
    """A layer that starts as zero, so that in training the branch it closes starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
