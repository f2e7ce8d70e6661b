"""The classes of the networks' layers, and their attention function.

Every network builds its layers with one :class:`LayerFactory`. By default they are torch's own. Under ComfyUI they are ComfyUI's,
which cast weights as they are used, offload them and compute in fp8, and the attention function is the one that the user chose. On
a CPU they can be those of :mod:`vc_core.kernels.operations`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..choices import current

#: ``attention(q, k, v, heads, bias=None)``: q ``[N, Q, heads * d]``, k and v ``[N, K, heads * d]`` -> ``[N, Q, heads * d]``;
#: the bias is added to the logits and broadcasts to ``[N, heads, Q, K]``.
Attention = Callable[..., Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Scaled dot product attention by torch. Shapes as in :data:`Attention`."""
    # 'n l (heads d) -> n heads l d'
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.transpose(1, 2).flatten(-2)


class TemporalConvAs2d(nn.Conv3d):
    """Base class, before a Conv3d's own class, of kernel (3, 1, 1): runs as a 2-D convolution of kernel (3, 1) over frames and positions.

    No backend is known to have a fast kernel for 3-D convolutions that are 1 wide in space. ``[b, c, t, l]`` -> ``[b, o, t, l]``, l
    being all positions of a frame. If the Conv3d's own class has a method ``conv_over_time(input, weight, bias, padding)``, that
    computes it, otherwise ``torch.nn.functional.conv2d``.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any, **kwargs: Any) -> Tensor:
        # ComfyUI's classes pass further arguments, for causal convolutions only.
        if not current().temporal_conv_as_2d:
            return nn.functional.conv3d(input.unsqueeze(-1), weight, bias, padding=self.padding).squeeze(-1)
        conv: Callable[..., Tensor] = getattr(self, "conv_over_time", nn.functional.conv2d)
        return conv(input, weight.squeeze(-1), bias, padding=self.padding[:2])


class FrameConvAs2d(nn.Conv3d):
    """Base class, before a Conv3d's own class, of kernel (1, n, n): runs as a 2-D convolution within frames, ``[n, c, h, w]``."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any, **kwargs: Any) -> Tensor:
        return nn.functional.conv2d(input, weight.squeeze(2), bias, padding=self.padding[1:])


class PointwiseLinear(nn.Conv1d):
    """Base class, before a Conv1d's own class, of kernel 1: runs as a linear layer on tokens, ``[..., c]`` -> ``[..., o]``."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.linear(input, weight.squeeze(-1), bias)


class LayoutPreservingGroupNorm(nn.GroupNorm):
    """Base class, before a GroupNorm's own class: the output has the memory layout of the input.

    Torch's kernels do so on a CPU, but on a GPU they always return channels first, which is copied back (a choice, see
    :class:`vc_core.choices.Choices`). At a level of 1x1, where a tensor has both layouts, the CPU's kernel for channels last would
    be taken, which loses a digit.
    """

    def forward(self, input: Tensor) -> Tensor:
        both = input.ndim == 4 and input.shape[2] * input.shape[3] == 1
        out = super().forward(input.flatten(2)).unflatten(2, (1, 1)) if both else super().forward(input)
        if input.device.type == "cpu" or not input.is_contiguous(memory_format=torch.channels_last):
            return out
        return out.contiguous(memory_format=torch.channels_last) if current().norm_keeps_layout else out


@cache
def _subclass(first: type, layer: type) -> type:
    """A class whose methods are those of ``first``, then those of ``layer``, with the latter's name."""
    return type(layer.__name__, (first, layer), {})


class LayerFactory:
    """Makes the layers of a network.

    Args:
        operations: a namespace with ``Linear``, ``Conv1d`` to ``Conv3d``, ``GroupNorm`` and ``LayerNorm`` as in ``torch.nn``; the
            classes derive from torch's (for ``Linear`` it is enough to behave like it).
        attention: see :data:`Attention`.
        device: where the weights are created (``meta`` for a model that is loaded by assignment).
        dtype: the weights' type.
    """

    def __init__(
        self,
        operations: Any = nn,
        attention: Attention = sdpa,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.operations = operations
        self.attention = attention
        self.device = device
        self.dtype = dtype
        self._factory_kwargs: dict[str, Any] = {"device": device, "dtype": dtype}

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        """``[..., inputs]`` -> ``[..., outputs]``"""
        return self.operations.Linear(inputs, outputs, bias=bias, **self._factory_kwargs)

    def pointwise(self, inputs: int, outputs: int) -> nn.Module:
        """A linear layer whose weight is that of a convolution of width 1, ``[outputs, inputs, 1]``, as in some published layers."""
        return _subclass(PointwiseLinear, self.operations.Conv1d)(inputs, outputs, 1, **self._factory_kwargs)

    def conv2d(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
        """``[n, inputs, h, w]`` -> ``[n, outputs, h', w']``, with a square kernel."""
        return self.operations.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, **self._factory_kwargs)

    def temporal_conv(self, channels: int, padded: bool = True) -> nn.Module:
        """A convolution over three frames, see :class:`TemporalConvAs2d`; its weight is that of a 3-D convolution.

        Args:
            padded: with zeros before the first and after the last frame; otherwise two frames fewer come out.
        """
        conv = _subclass(TemporalConvAs2d, self.operations.Conv3d)
        return conv(channels, channels, (3, 1, 1), padding=(int(padded), 0, 0), **self._factory_kwargs)

    def frame_conv(self, channels: int) -> nn.Module:
        """A 3x3 convolution within frames, see :class:`FrameConvAs2d`; its weight is that of a 3-D convolution."""
        conv = _subclass(FrameConvAs2d, self.operations.Conv3d)
        return conv(channels, channels, (1, 3, 3), padding=(0, 1, 1), **self._factory_kwargs)

    def group_norm(self, channels: int, eps: float = 1e-5) -> nn.Module:
        """With 32 groups, as all of the family's."""
        return _subclass(LayoutPreservingGroupNorm, self.operations.GroupNorm)(32, channels, eps=eps, **self._factory_kwargs)

    def layer_norm(self, width: int) -> nn.Module:
        """Over the last axis."""
        return self.operations.LayerNorm(width, **self._factory_kwargs)

    def parameter(self, *shape: int, std: float = 0.0) -> nn.Parameter:
        """A learned parameter that belongs to no layer, drawn from a normal distribution of mean 0 and this standard deviation."""
        # Drawn before it is converted, since 8-bit types can't be drawn.
        value = torch.randn(shape, device=self.device) * std
        return nn.Parameter(value.to(self.dtype or value.dtype))


def zero_module(layer: nn.Module) -> nn.Module:
    """Set a layer's parameters to zero, so that at the start of training the branch that it ends adds nothing. Returns the layer."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
