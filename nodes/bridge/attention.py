"""The attention that the user's ComfyUI is set to, for the networks of the core."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from comfy.cli_args import args
from comfy.ldm.modules.attention import (
    attention_pytorch,
    attention_split,
    attention_sub_quad,
    optimized_attention,
    optimized_attention_for_device,
)
from torch import Tensor

from ...vc_core.memory import is_out_of_memory

#: Sequences up to this length (temporal attention, image tokens) use ComfyUI's attention for small inputs.
SMALL_SEQUENCE = 64
#: Attention functions that store the probabilities, and for how many queries at once.
EXPLICIT_ATTENTION, QUERIES_AT_ONCE = (attention_split, attention_sub_quad), 4096
#: ComfyUI's options that choose an attention function.
OPTIONS = ("use_split_cross_attention", "use_quad_cross_attention", "use_sage_attention", "use_flash_attention")
#: What kernels raise for head widths and lengths that they don't have.
REFUSALS = (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError)


def attention_on(device: torch.device) -> Callable[..., Tensor]:
    """The attention that the user chose. The default on a CPU is torch's, which is three times as fast there as ComfyUI's default."""
    chosen = any(getattr(args, option, False) for option in OPTIONS)
    return attention_pytorch if device.type == "cpu" and not chosen else optimized_attention


def chosen_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None, transformer_options: dict[str, Any] = {}
) -> Tensor:
    """The attention that the user's ComfyUI is set to, in the shapes of :data:`vc_core.models.layers.Attention`.

    Args:
        transformer_options: may hold a node's override of the attention, which is then called with the default function. If it
            refuses a head width or a length, as kernels do, the default function computes this call.
    """
    attention = attention_on(q.device)
    if k.shape[1] <= SMALL_SEQUENCE and attention is not attention_pytorch:
        attention = optimized_attention_for_device(q.device, mask=bias is not None, small_input=True)
    try:
        return attention(q, k, v, heads, mask=bias, transformer_options=transformer_options)
    except REFUSALS as error:
        if "optimized_attention_override" not in transformer_options or is_out_of_memory(error):
            raise
        _say_once(f"{type(error).__name__}: {error}")
    return attention(q, k, v, heads, mask=bias)


@cache
def _say_once(refusal: str) -> None:
    logging.warning("A node's attention refused a call (%s); ComfyUI's own computes such calls.", refusal)
