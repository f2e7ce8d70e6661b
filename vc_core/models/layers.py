"""Where the networks get their layers and their attention from.

Every network is built from one :class:`Layers`. Alone it is torch's own; under ComfyUI it makes ComfyUI's layers, and with
them come casts on the fly, offloading and fp8, and calls the attention that the user chose.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import onednn, winograd

#: ``attention(q, k, v, heads, bias=None)``: q ``[N, Q, heads * d]``, k and v ``[N, K, heads * d]`` -> ``[N, Q, heads * d]``;
#: the bias is added to the logits and broadcasts to ``[N, heads, Q, K]``.
Attention = Callable[..., Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Scaled dot product attention by torch. Shapes as in :data:`Attention`."""
    # 'n l (heads d) -> n heads l d'
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.transpose(1, 2).flatten(-2)


class OverTime:
    """Mixed into a Conv3d of kernel (3, 1, 1): the same, as a (3, 1) convolution of the plane of frames and positions.

    No backend has a fast kernel for a 3D convolution that is 1 wide in space. Takes and gives ``[b, c, t, l]``. Where it is quicker,
    by another form of the same, see :mod:`.winograd`.
    """

    padding: tuple[int, ...]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any, **kwargs: Any) -> Tensor:
        weight = weight.squeeze(-1)
        if tile := winograd.tile_over_time(input, weight):
            return winograd.convolve_over_time(input, weight, bias, tile)
        return nn.functional.conv2d(input, weight, bias, padding=self.padding[:2])


class FewerProducts:
    """Mixed into a Conv2d: where it is quicker, by another form of the same, see :mod:`.winograd`."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        usual = self.kernel_size == (3, 3) and self.stride == self.padding == (1, 1)
        if usual and (tile := winograd.tile_over_space(input, weight)):
            return winograd.convolve(input, weight, bias, tile)
        return super()._conv_forward(input, weight, bias)  # type: ignore[misc]


class OverTokens:
    """Mixed into a Conv1d of kernel 1, which is a linear layer. Takes and gives tokens, ``[..., c]``."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return onednn.linear(input, weight.squeeze(-1), bias)


class KeepingLayout:
    """Mixed into a GroupNorm: what it gives lies in memory as what it gets does. On a GPU torch's comes back channels first."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).contiguous(memory_format=layout(input))  # type: ignore[misc]


@cache
def _mixed(how: type, layer: type) -> type:
    return type(layer.__name__, (how, layer), {})


def layout(x: Tensor) -> torch.memory_format:
    """How ``[n, c, h, w]`` lies in memory: channels last, or channels first."""
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


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
        return _mixed(onednn.Linear, self.operations.Linear)(inputs, outputs, bias=bias, **self.where)

    def pointwise(self, inputs: int, outputs: int) -> nn.Module:
        """A linear layer with the weight of a convolution of width 1, as some published layers have it."""
        return _mixed(OverTokens, self.operations.Conv1d)(inputs, outputs, 1, **self.where)

    def conv2d(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
        return _mixed(FewerProducts, self.operations.Conv2d)(inputs, outputs, kernel, stride=stride, padding=padding, **self.where)

    def temporal_conv(self, channels: int) -> nn.Module:
        """A convolution over three frames, see :class:`OverTime`; its weight is that of a 3D convolution."""
        return _mixed(OverTime, self.operations.Conv3d)(channels, channels, (3, 1, 1), padding=(1, 0, 0), **self.where)

    def group_norm(self, channels: int, eps: float = 1e-5) -> nn.Module:
        """32 groups, as everywhere in the family."""
        return _mixed(KeepingLayout, self.operations.GroupNorm)(32, channels, eps=eps, **self.where)

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
