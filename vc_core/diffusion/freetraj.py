"""FreeTraj: attention that keeps a subject in a moving box, without training (Qiu et al., arXiv:2406.16863, section 3.3).

In the first steps, positions inside and outside of the box hardly look at each other, in space and over time, and the subject's words
are read inside the box only. The grid of each level is the site's own, so that videos of any shape work.

The authors multiply logits by 0.01 between the two sides. Here each query and key is made twice as wide, its own numbers in the half
of its side: ``[q, 0.01 q]`` and ``[k, 0]`` inside, ``[0.01 q, q]`` and ``[0, k]`` outside. The product is the same, and any attention
function computes it without the logits in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..models.attention import CrossAttention, SelfAttention, TemporalAttention
from ..models.conditioning import ContextStream
from ..models.hooks import Hooks, PassInputs, Site, SpatialHooks, TemporalHooks
from ..models.layers import Attention
from .boxes import BoxPath, check_length

logger = logging.getLogger(__name__)

#: The factor on logits between inside and outside.
ACROSS = 0.01
#: The share of the whole picture's attention to the subject that is put into the box.
STRENGTH = 0.25


@dataclass(frozen=True)
class FreeTraj:
    """The hooks of a run; an object is a :data:`vc_core.models.hooks.HookFactory`.

    Attributes:
        tokens: the places of the subject's word pieces among the text's tokens; 0 is the start token.
        steps: how many steps are edited, from the first on.
    """

    path: BoxPath
    tokens: tuple[int, ...]
    steps: int = 6

    def __post_init__(self) -> None:
        """
        Raises:
            InputError: there is no subject, or a negative number.
        """
        if not self.tokens or any(token < 0 for token in self.tokens):
            raise InputError("FreeTraj moves the subject that some words of the prompt name: say which words.")

    def __call__(self, inputs: PassInputs) -> Hooks | None:
        """The hooks of one pass; None after the edited steps, and without guidance, where the authors edit nothing."""
        if inputs.step >= self.steps:
            return None
        if not inputs.guided:
            if inputs.step == 0:
                logger.warning("FreeTraj edits attention with guidance only (cfg above 1): without it, the noise alone follows the path.")
            return None
        frames = inputs.window or tuple(range(inputs.x.shape[2]))
        check_length(self.path, max(frames) + 1)
        length = inputs.conditioning.text.shape[-2]
        if max(self.tokens) >= length:
            raise InputError(f"The subject's word is token {max(self.tokens)}, but the text has {length} tokens.")
        return FreeTrajHooks(self.path, self.tokens, frames)


def places_of(words: Sequence[int], tokens: Sequence[int], subject: str) -> tuple[int, ...]:
    """The places of a subject's word pieces among a text's tokens, wherever they stand one after the other.

    Args:
        words, tokens: numbers of word pieces; the tokens with the start token.
        subject: for the message.

    Raises:
        InputError: they are not there, or there is no word.
    """
    length = len(words)
    starts = [start for start in range(len(tokens) - length + 1) if list(tokens[start : start + length]) == list(words)] if words else []
    if not starts:
        raise InputError(f"The subject {subject!r:.80} is not in the prompt: give words that stand in it as they do there.")
    return tuple(start + number for start in starts for number in range(length))


class FreeTrajHooks(Hooks):
    """FreeTraj in one pass. A level at which the box has no row or no column is left as it is, in space and over time.

    Args:
        frames: the numbers of the pass's frames in the path.
    """

    def __init__(self, path: BoxPath, tokens: Sequence[int], frames: Sequence[int]) -> None:
        self.path, self.tokens, self.frames = path, tokens, frames

    def spatial(self, site: Site) -> SpatialHooks | None:
        return FreeTrajSpatial(self, site) if all(self.path.grid(site.height, site.width)) else None

    def temporal(self, site: Site) -> TemporalHooks | None:
        if not all(self.path.grid(site.height, site.width)):
            return None
        return FreeTrajTemporal(self.path.masks(site.height, site.width, self.frames).flatten(1))

    def subject_weights(self, site: Site) -> Tensor:
        """What is added to the probability of each of the subject's tokens, ``[frames, height width]`` in float16."""
        rows, columns = self.path.grid(site.height, site.width)
        strength = STRENGTH / (self.path.height * self.path.width) / len(self.tokens)
        weights = torch.zeros(len(self.frames), site.height, site.width, dtype=torch.float16)
        bump = (strength * gaussian(rows, columns)).half()
        for number, frame in enumerate(self.frames):
            self.path.box(frame, site.height, site.width).paste(weights[number], bump)
        return weights.flatten(1)


def gaussian(height: int, width: int) -> Tensor:
    """A bump in the middle of a box, at most 1, ``[height, width]`` in float16 as the authors'."""
    y, x = (torch.linspace(0, side, side, dtype=torch.float64) for side in (height, width))
    down = (y - int(height / 2)) ** 2 / (2 * (height / 3) ** 2)
    across = (x - int(width / 2)) ** 2 / (2 * (width / 3) ** 2)
    bump = (-(down[:, None] + across)).exp()
    return (bump / bump.max()).half()


def two_sided(q: Tensor, k: Tensor, v: Tensor, inside: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of twice the width per head, see the module's description; the values' second halves are 0.

    Args:
        q, k, v: ``[..., heads * d]``.
        inside: booleans that broadcast to ``[...]``.
    """
    q, k, v = (each.unflatten(-1, (heads, -1)) for each in (q, k, v))
    side = inside[..., None, None]
    nothing = torch.zeros((), dtype=q.dtype, device=q.device)
    near, far = q * 2**0.5, q * (2**0.5 * ACROSS)  # attention divides by the root of the doubled width
    q = torch.cat([torch.where(side, near, far), torch.where(side, far, near)], dim=-1)
    k = torch.cat([torch.where(side, k, nothing), torch.where(side, nothing, k)], dim=-1)
    v = torch.cat([v, torch.zeros_like(v)], dim=-1)
    return q.flatten(-2), k.flatten(-2), v.flatten(-2)


def one_sided(out: Tensor, heads: int) -> Tensor:
    """The first half of each head, ``[..., heads * 2 d]`` -> ``[..., heads * d]``."""
    return out.unflatten(-1, (heads, 2, -1))[..., 0, :].flatten(-2)


class FreeTrajSpatial(SpatialHooks):
    """FreeTraj in one block of a spatial transformer."""

    def __init__(self, hooks: FreeTrajHooks, site: Site) -> None:
        self.hooks, self.site = hooks, site

    def self_attention(self, layer: SelfAttention, x: Tensor, attention: Attention | None) -> Tensor:
        inside = self._inside(x.device)
        attend = layer.attention if attention is None else attention
        out = attend(*two_sided(layer.to_q(x), layer.to_k(x), layer.to_v(x), inside, layer.heads), layer.heads)
        return layer.to_out(one_sided(out, layer.heads))

    def cross_attention(
        self, layer: CrossAttention, x: Tensor, streams: list[ContextStream], attention: Attention | None
    ) -> Tensor:
        q, attend = layer.to_q(x), layer.attention if attention is None else attention
        text, *others = streams
        result = self._text(layer, q, text, attend)
        for stream in others:
            result = result + layer.read(q, stream, attend if stream.attention is None else stream.attention)
        return layer.to_out(result)

    def _inside(self, device: torch.device) -> Tensor:
        masks = self.hooks.path.masks(self.site.height, self.site.width, self.hooks.frames)
        return masks.flatten(1).repeat(self.site.batch, 1).to(device)

    def _text(self, layer: CrossAttention, q: Tensor, text: ContextStream, attend: Attention) -> Tensor:
        """Outside: the text without the subject's words. Inside: all tokens alike, and more of the subject's."""
        k = text.to_k(text.tokens)
        v = text.to_v(text.tokens if text.value_tokens is None else text.value_tokens)
        bias = torch.zeros(1, 1, 1, k.shape[1], dtype=q.dtype, device=q.device)
        bias[..., list(self.hooks.tokens)] = torch.finfo(q.dtype).min
        out = attend(q.reshape(len(k), -1, q.shape[-1]), k, v, layer.heads, bias).reshape(q.shape)
        rows = len(q) // len(v)
        alike, subject = v.mean(dim=1, keepdim=True), v[:, list(self.hooks.tokens)].sum(dim=1, keepdim=True)
        alike, subject = (each.repeat_interleave(rows, dim=0) for each in (alike, subject))
        out = torch.where(self._inside(q.device)[..., None], alike, out)
        weights = self.hooks.subject_weights(self.site).repeat(self.site.batch, 1)
        return out + weights[..., None].to(out) * subject


class FreeTrajTemporal(TemporalHooks):
    """FreeTraj in one block of a temporal transformer.

    Args:
        inside: ``[t, l]``, where the box is.
    """

    def __init__(self, inside: Tensor) -> None:
        self.inside = inside

    def attention(self, layer: TemporalAttention, x: Tensor, name: str, attention: Attention | None) -> Tensor:
        inside = self.inside.to(x.device)
        q, k, v = layer.project(x)
        if layer.relative:
            same = (inside.T[:, :, None] == inside.T[:, None, :])[None, :, None]  # [1, l, 1, t, t]
            factor = torch.where(same, 1.0, ACROSS).to(x)
            return layer.to_out(layer.attend(q, k, v, edit_logits=lambda logits: logits * factor))
        out = layer.attend(*two_sided(q, k, v, inside, layer.heads), attention)
        return layer.to_out(one_sided(out, layer.heads))
