"""Attention over space, text and time.

Relative positions are those of Shaw et al. (arXiv:1803.02155). Shapes: b videos, t frames, l positions of a frame (height times
width), n any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from ..choices import current
from ..config import UNetConfig
from .conditioning import ContextStream
from .layers import Attention, LayerFactory

#: Most sequences in one call of attention over time, each head of each position being one: a GPU's grid has at most so many rows.
MAX_SEQUENCES = 2**16 - 1

#: Changes the logits or probabilities of attention over time, ``[b, l, heads, t, t]`` -> the same shape.
Edit = Callable[[Tensor], Tensor]


def explicit_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    bias: Tensor | None = None,
    edit_logits: Edit | None = None,
    edit_probabilities: Edit | None = None,
) -> Tensor:
    """Scaled dot product attention without a fused kernel, so that logits or probabilities can be edited.

    Args:
        q: ``[n, Q, heads * d]``; k and v ``[n, K, heads * d]``.
        bias: added to the logits, broadcast to ``[n, heads, Q, K]``.
        edit_logits: applied to the scaled logits ``[n, heads, Q, K]``, after the bias.
        edit_probabilities: applied to their softmax.

    Returns:
        ``[n, Q, heads * d]``.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # 'n l (heads d) -> n heads l d'
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        logits = logits + bias
    return (_probabilities(logits, edit_logits, edit_probabilities, v.dtype) @ v).transpose(1, 2).flatten(-2)


def _probabilities(logits: Tensor, edit_logits: Edit | None, edit_probabilities: Edit | None, dtype: torch.dtype) -> Tensor:
    if edit_logits is not None:
        logits = edit_logits(logits)
    probabilities = logits.softmax(dim=-1, dtype=torch.float32).to(dtype)
    return probabilities if edit_probabilities is None else edit_probabilities(probabilities)


class RelativePosition(nn.Module):
    """A learned vector for each clamped distance between two frames."""

    def __init__(self, width: int, max_distance: int, layers: LayerFactory) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.embeddings_table = layers.parameter(2 * max_distance + 1, width)

    def forward(self, frames: int, like: Tensor) -> Tensor:
        """The vectors from each frame to each other, ``[frames, frames, width]``, in the type and on the device of ``like``."""
        position = torch.arange(frames, device=like.device)
        distance = (position[None, :] - position[:, None]).clamp(-self.max_distance, self.max_distance)
        return self.embeddings_table.to(like)[distance + self.max_distance]


class SelfAttention(nn.Module):
    """Attention among the tokens of one sequence."""

    def __init__(self, width: int, head_channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.heads, self.head_channels = width // head_channels, head_channels
        self.attention = layers.attention
        self.to_q = layers.linear(width, width, bias=False)
        self.to_k = layers.linear(width, width, bias=False)
        self.to_v = layers.linear(width, width, bias=False)
        self.to_out = nn.Sequential(layers.linear(width, width))

    def forward(
        self, x: Tensor, keys: Tensor | None = None, values: Tensor | None = None, attention: Attention | None = None
    ) -> Tensor:
        """``[n, l, width]`` -> ``[n, l, width]``.

        Args:
            keys: input of the keys' projection, ``[n, m, width]``; ``x`` if not given.
            values: input of the values' projection, of the same shape; ``keys`` if not given.
            attention: in place of the layer's own attention function.
        """
        keys = x if keys is None else keys
        values = keys if values is None else values
        attention = self.attention if attention is None else attention
        return self.to_out(attention(self.to_q(x), self.to_k(keys), self.to_v(values), self.heads))


class TemporalAttention(nn.Module):
    """Attention among the frames, at each position on its own, with or without relative positions.

    In some models it is causal: a frame sees itself and the few frames before it (Make-Your-Video, arXiv:2306.00943, section 3.3).

    Positions are independent, like heads, so by default they are folded into the head axis; this saves a transpose and a copy.
    :meth:`project`, :meth:`attend` and :meth:`to_out` can be called apart, for methods that attend in windows, say.
    """

    def __init__(self, config: UNetConfig, width: int, layers: LayerFactory) -> None:
        super().__init__()
        head_channels, reach = config.head_channels, config.max_relative_position
        self.heads, self.head_channels = width // head_channels, head_channels
        self.attention = layers.attention
        self.to_q = layers.linear(width, width, bias=False)
        self.to_k = layers.linear(width, width, bias=False)
        self.to_v = layers.linear(width, width, bias=False)
        self.to_out = nn.Sequential(layers.linear(width, width))
        self.causal_frames = config.causal_frames
        self.relative = reach > 0
        if self.relative:
            self.relative_position_k = RelativePosition(head_channels, reach, layers)
            self.relative_position_v = RelativePosition(head_channels, reach, layers)

    def forward(self, x: Tensor, attention: Attention | None = None) -> Tensor:
        """``[b, t, l, width]`` -> the same shape. ``attention`` is in place of the layer's own attention function."""
        return self.to_out(self.attend(*self.project(x), attention))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of ``[b, t, l, width]``, each of the same shape."""
        return self.to_q(x), self.to_k(x), self.to_v(x)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attention: Attention | None = None,
        edit_logits: Edit | None = None,
        edit_probabilities: Edit | None = None,
    ) -> Tensor:
        """Attention over any number of frames, before the output projection.

        Args:
            q: ``[b, t, l, width]``, as k and v. For relative positions, frames are numbered from the first one in ``q``.
            attention: in place of the layer's own; not used with relative positions, causal attention or edits, which need the
                logits or the probabilities.
            edit_logits: applied to the scaled logits ``[b, l, heads, t, t]``, relative positions included.
            edit_probabilities: applied to their softmax.

        Returns:
            ``[b, t, l, width]``.
        """
        if self.relative or self.causal_frames or edit_logits is not None or edit_probabilities is not None:
            return self._attend_explicitly(q, k, v, edit_logits, edit_probabilities)
        attention = self.attention if attention is None else attention
        attend = _positions_as_heads if current().positions_as_heads else _positions_as_batch
        sequences_of_position = q.shape[0] * self.heads
        if q.shape[2] * sequences_of_position <= MAX_SEQUENCES:
            return attend(q, k, v, self.heads, attention)
        positions = max(1, MAX_SEQUENCES // sequences_of_position)
        chunks = zip(q.split(positions, 2), k.split(positions, 2), v.split(positions, 2), strict=True)
        return torch.cat([attend(*chunk, self.heads, attention) for chunk in chunks], dim=2)

    def _attend_explicitly(
        self, q: Tensor, k: Tensor, v: Tensor, edit_logits: Edit | None, edit_probabilities: Edit | None
    ) -> Tensor:
        # With relative positions the values' part needs the probabilities, which fused kernels don't give.
        frames = q.shape[1]
        q, k, v = (rearrange(x, "b t l (h d) -> b l h t d", h=self.heads) for x in (q, k, v))
        q = q * q.shape[-1] ** -0.5
        logits = q @ k.transpose(-1, -2)
        if self.relative:
            logits += torch.einsum("blhid,ijd->blhij", q, self.relative_position_k(frames, q))
        if self.causal_frames:
            logits.masked_fill_(_unseen(frames, self.causal_frames, q.device), torch.finfo(logits.dtype).min)
        probabilities = _probabilities(logits, edit_logits, edit_probabilities, v.dtype)
        out = probabilities @ v
        if self.relative:
            out += torch.einsum("blhij,ijd->blhid", probabilities, self.relative_position_v(frames, v))
        return rearrange(out, "b l h t d -> b t l (h d)")


def _unseen(frames: int, seen: int, device: torch.device) -> Tensor:
    """Which frames each one doesn't see, ``[frames, frames]``: those after it, and those before the last ``seen``."""
    position = torch.arange(frames, device=device)
    back = position[:, None] - position[None, :]
    return (back < 0) | (back >= seen)


def _positions_as_heads(q: Tensor, k: Tensor, v: Tensor, heads: int, attention: Attention) -> Tensor:
    """Attention over time, ``[b, t, l, width]``: each position is a group of heads."""
    out = attention(*(each.flatten(2) for each in (q, k, v)), q.shape[2] * heads)
    return out.unflatten(2, q.shape[2:])


def _positions_as_batch(q: Tensor, k: Tensor, v: Tensor, heads: int, attention: Attention) -> Tensor:
    """The same, each position being a row of the batch."""
    out = attention(*(rearrange(each, "b t l c -> (b l) t c") for each in (q, k, v)), heads)
    return rearrange(out, "(b l) t c -> b t l c", b=q.shape[0])


class CrossAttention(nn.Module):
    """Attention of a video's positions to context streams, whose results are added.

    Text is the first stream and, where the model has it, image tokens the second, each with keys and values of its own
    (VideoCrafter1, arXiv:2310.19512, section 3.2). In some models the image stream has a learned gate, ``1 + tanh(alpha)``
    (DynamiCrafter, arXiv:2310.12190, section 3.2).
    """

    def __init__(self, config: UNetConfig, width: int, layers: LayerFactory) -> None:
        super().__init__()
        self.heads, self.head_channels = width // config.head_channels, config.head_channels
        self.attention = layers.attention
        self.to_q = layers.linear(width, width, bias=False)
        self.to_k = layers.linear(config.context_dim, width, bias=False)
        self.to_v = layers.linear(config.context_dim, width, bias=False)
        self.to_out = nn.Sequential(layers.linear(width, width))
        self.image_attention = config.image_attention
        if config.image_attention:
            self.to_k_ip = layers.linear(config.context_dim, width, bias=False)
            self.to_v_ip = layers.linear(config.context_dim, width, bias=False)
        self.alpha = layers.parameter() if config.image_attention and config.image_gate else None

    def streams(self, text: Tensor, image: Tensor | None = None, strength: Tensor | None = None) -> list[ContextStream]:
        """The model's own streams.

        Args:
            text: ``[b, n, context]``, or ``[(b t), n, context]`` where each frame has a text of its own.
            image: image tokens, likewise; ignored by models without attention to them.
            strength: factor on the attention to the image tokens, ``[b]``.
        """
        streams = [ContextStream(text, self.to_k, self.to_v)]
        if self.image_attention and image is not None:
            gate = None if self.alpha is None else self._gate
            streams.append(ContextStream(image, self.to_k_ip, self.to_v_ip, strength=strength, gate=gate))
        return streams

    def forward(self, x: Tensor, streams: Sequence[ContextStream], attention: Attention | None = None) -> Tensor:
        """``[(b t), l, width]`` -> the same shape.

        Args:
            streams: the streams to attend to, usually those of :meth:`streams` and of hooks.
            attention: in place of the layer's own attention function, for streams without one.
        """
        q = self.to_q(x)
        attention = self.attention if attention is None else attention
        results = [self.read(q, stream, attention if stream.attention is None else stream.attention) for stream in streams]
        return self.to_out(sum(results[1:], results[0]))

    def read(self, q: Tensor, stream: ContextStream, attention: Attention) -> Tensor:
        """What queries ``[(b t), l, width]`` read of one stream, of the same shape, before the output projection."""
        # Frames that read the same tokens are one long sequence of queries, so that keys and values are computed once per video.
        queries = q.reshape(len(stream.tokens), -1, q.shape[-1])
        values = stream.tokens if stream.value_tokens is None else stream.value_tokens
        out = attention(queries, stream.to_k(stream.tokens), stream.to_v(values), self.heads)
        if stream.gate is not None:
            out = stream.gate(out)
        if stream.strength is not None:
            out = out.reshape(len(stream.strength), -1, q.shape[-1]) * stream.strength[:, None, None].to(out)
        return out.reshape(q.shape)

    def _gate(self, x: Tensor) -> Tensor:
        assert self.alpha is not None
        return x * (1 + self.alpha.to(x).tanh())
