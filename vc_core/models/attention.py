"""Attention over space, text and time: the transformers at each attention site of the UNet.

A site has a spatial transformer (self-attention within a frame, cross-attention to the text, feed-forward) and then a
temporal one, whose tokens are the frames at one position (VideoCrafter1, arXiv:2310.19512, section 3.1). Relative positions
are those of Shaw et al. (arXiv:1803.02155).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from .hooks import AttentionHooks, Hooks, Site
from .layers import Attention, Layers, zeroed


@dataclass(frozen=True)
class ImageTokens:
    """What cross-attention sees of a picture: tokens, and how much of it, ``[b]``, all unless given.

    Tokens are ``[b, m, context]`` where all frames see the same, ``[(b t), m, context]`` where each frame has its own.
    """

    tokens: Tensor
    strength: Tensor | None = None


class RelativePosition(nn.Module):
    """A learned vector for each clamped distance between two frames."""

    def __init__(self, width: int, max_distance: int, layers: Layers) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.embeddings_table = layers.table(2 * max_distance + 1, width)

    def forward(self, frames: int, like: Tensor) -> Tensor:
        """The vectors from each frame to each other, ``[frames, frames, width]``, in the type and place of ``like``."""
        position = torch.arange(frames, device=like.device)
        distance = (position[None, :] - position[:, None]).clamp(-self.max_distance, self.max_distance)
        return self.embeddings_table.to(like)[distance + self.max_distance]


class SelfAttention(nn.Module):
    """Attention among the tokens of one sequence, with or without relative positions."""

    def __init__(self, width: int, head_channels: int, layers: Layers, max_relative_position: int = 0) -> None:
        super().__init__()
        self.heads, self.head_channels = width // head_channels, head_channels
        self.attention = layers.attention
        self.to_q = layers.linear(width, width, bias=False)
        self.to_k = layers.linear(width, width, bias=False)
        self.to_v = layers.linear(width, width, bias=False)
        self.to_out = nn.Sequential(layers.linear(width, width))
        self.relative = max_relative_position > 0
        if self.relative:
            self.relative_position_k = RelativePosition(head_channels, max_relative_position, layers)
            self.relative_position_v = RelativePosition(head_channels, max_relative_position, layers)

    def forward(
        self, x: Tensor, keys: Tensor | None = None, values: Tensor | None = None, attention: Attention | None = None
    ) -> Tensor:
        """``[n, l, width]`` -> ``[n, l, width]``.

        Args:
            keys: what keys are made of, ``[n, m, width]``, if not of ``x``.
            values: what values are made of, of the same shape, if not of what keys are made of.
            attention: in the place of the layer's own, which is always taken where there are relative positions.
        """
        keys = x if keys is None else keys
        q, k, v = self.to_q(x), self.to_k(keys), self.to_v(keys if values is None else values)
        out = self._relative_attention(q, k, v) if self.relative else (attention or self.attention)(q, k, v, self.heads)
        return self.to_out(out)

    def _relative_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # The values' positions need the probabilities themselves, which fused kernels don't give.
        q, k, v = (rearrange(x, "n l (h d) -> n h l d", h=self.heads) for x in (q, k, v))
        frames = q.shape[-2]
        q = q * q.shape[-1] ** -0.5
        logits = q @ k.transpose(-1, -2) + torch.einsum("nhid,ijd->nhij", q, self.relative_position_k(frames, q))
        weights = logits.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        out = weights @ v + torch.einsum("nhij,ijd->nhid", weights, self.relative_position_v(frames, v))
        return rearrange(out, "n h l d -> n l (h d)")


class CrossAttention(nn.Module):
    """Attention of a video's positions to its text and, where the model has it, to its image tokens.

    Text and image have keys and values of their own, and the results are added (VideoCrafter1, section 3.2); in some models the
    image's is multiplied by a learned number first (DynamiCrafter, arXiv:2310.12190, section 3.2).
    """

    def __init__(
        self, width: int, context_dim: int, head_channels: int, layers: Layers, image_attention: bool, image_gain: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.head_channels = width // head_channels, head_channels
        self.attention = layers.attention
        self.to_q = layers.linear(width, width, bias=False)
        self.to_k = layers.linear(context_dim, width, bias=False)
        self.to_v = layers.linear(context_dim, width, bias=False)
        self.to_out = nn.Sequential(layers.linear(width, width))
        self.image_attention = image_attention
        if image_attention:
            self.to_k_ip = layers.linear(context_dim, width, bias=False)
            self.to_v_ip = layers.linear(context_dim, width, bias=False)
        self.alpha = layers.table() if image_attention and image_gain else None

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        image: ImageTokens | None = None,
        values: Tensor | None = None,
        attention: Attention | None = None,
    ) -> Tensor:
        """``[(b t), l, width]``, text ``[b, n, context]``, image tokens as they say -> ``[(b t), l, width]``.

        Args:
            values: what the text's values are made of, if not of ``text``; of its shape.
            attention: to the text, in the place of the layer's own.
        """
        # All frames of a video read the same text: they are one long sequence of queries, and keys are made once.
        q = rearrange(self.to_q(x), "(b t) l c -> b (t l) c", b=text.shape[0])
        k, v = self.to_k(text), self.to_v(text if values is None else values)
        out = (attention or self.attention)(q, k, v, self.heads)
        if self.image_attention and image is not None:
            out = out + self._seen(q, image).reshape(q.shape)
        return self.to_out(rearrange(out, "b (t l) c -> (b t) l c", l=x.shape[1]))

    def _seen(self, q: Tensor, image: ImageTokens) -> Tensor:
        queries = q.reshape(len(image.tokens), -1, q.shape[-1])  # one sequence a video, or one a frame
        seen = self.attention(queries, self.to_k_ip(image.tokens), self.to_v_ip(image.tokens), self.heads)
        if self.alpha is not None:
            seen = seen * (1 + self.alpha.to(seen).tanh())
        if image.strength is None:
            return seen
        return seen.reshape(len(image.strength), -1, q.shape[-1]) * image.strength[:, None, None]


class GatedGELU(nn.Module):
    """``GELU(x W_g) * (x W)`` (Shazeer, arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int, layers: Layers) -> None:
        super().__init__()
        self.proj = layers.linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * nn.functional.gelu(gate)


class FeedForward(nn.Module):
    """The gated feed-forward of a transformer block, four times as wide inside."""

    def __init__(self, width: int, layers: Layers) -> None:
        super().__init__()
        # The empty place is the dropout's of the published files, which is off outside training.
        self.net = nn.Sequential(GatedGELU(width, 4 * width, layers), nn.Identity(), layers.linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class SpatialBlock(nn.Module):
    """Self-attention within a frame, cross-attention to the conditioning, feed-forward."""

    def __init__(
        self, width: int, context_dim: int, head_channels: int, layers: Layers, image_attention: bool, image_gain: bool
    ) -> None:
        super().__init__()
        self.attn1 = SelfAttention(width, head_channels, layers)
        self.attn2 = CrossAttention(width, context_dim, head_channels, layers, image_attention, image_gain)
        self.ff = FeedForward(width, layers)
        self.norm1 = layers.layer_norm(width)
        self.norm2 = layers.layer_norm(width)
        self.norm3 = layers.layer_norm(width)

    def forward(self, x: Tensor, text: Tensor, image: ImageTokens | None, hooks: AttentionHooks | None = None) -> Tensor:
        if hooks is None:
            x = x + self.attn1(self.norm1(x))
            x = x + self.attn2(self.norm2(x), text, image)
        else:
            x = hooks.between(x + hooks.self_attention(self.attn1, self.norm1(x)))
            x = x + hooks.cross_attention(self.attn2, self.norm2(x), text, image)
        return x + self.ff(self.norm3(x))


class TemporalBlock(nn.Module):
    """Twice self-attention over the frames, then feed-forward."""

    def __init__(self, width: int, head_channels: int, layers: Layers, max_relative_position: int) -> None:
        super().__init__()
        self.attn1 = SelfAttention(width, head_channels, layers, max_relative_position)
        self.attn2 = SelfAttention(width, head_channels, layers, max_relative_position)
        self.ff = FeedForward(width, layers)
        self.norm1 = layers.layer_norm(width)
        self.norm2 = layers.layer_norm(width)
        self.norm3 = layers.layer_norm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x))
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """The transformer over the positions of each frame."""

    def __init__(
        self, channels: int, context_dim: int, head_channels: int, depth: int, layers: Layers, image_attention: bool, image_gain: bool
    ) -> None:
        super().__init__()
        self.norm = layers.group_norm(channels, eps=1e-6)
        self.proj_in = layers.linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            SpatialBlock(channels, context_dim, head_channels, layers, image_attention, image_gain) for _ in range(depth)
        )
        self.proj_out = zeroed(layers.linear(channels, channels))

    def forward(
        self, x: Tensor, text: Tensor, image: ImageTokens | None, hooks: Hooks | None = None, place: tuple[str, int, int] = ("", 0, 0)
    ) -> Tensor:
        """``[(b t), c, h, w]``, text ``[b, n, context]``, image tokens as they say -> ``[(b t), c, h, w]``.

        Args:
            place: the first three of a :class:`.hooks.Site`, where there are hooks.
        """
        hidden = self.proj_in(rearrange(self.norm(x), "f c h w -> f (h w) c"))
        for depth, block in enumerate(self.transformer_blocks):
            hidden = block(hidden, text, image, None if hooks is None else hooks.attention(Site(*place, depth, tuple(x.shape))))
        return x + rearrange(self.proj_out(hidden), "f (h w) c -> f c h w", h=x.shape[-2])


class TemporalTransformer(nn.Module):
    """The transformer over the frames at each position.

    Args:
        pointwise_conv: whether the projections are convolutions of width one, as in the first of a network, or linear layers.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        head_channels: int,
        depth: int,
        layers: Layers,
        max_relative_position: int,
        pointwise_conv: bool = False,
    ) -> None:
        super().__init__()
        self.pointwise_conv = pointwise_conv
        self.norm = layers.group_norm(channels, eps=1e-6)
        self.proj_in = layers.conv1d(channels, inner, 1) if pointwise_conv else layers.linear(channels, inner)
        self.transformer_blocks = nn.ModuleList(
            TemporalBlock(inner, head_channels, layers, max_relative_position) for _ in range(depth)
        )
        self.proj_out = zeroed(layers.conv1d(inner, channels, 1) if pointwise_conv else layers.linear(inner, channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """``[(b t), c, h, w]`` with t = ``frames`` -> the same shape. The norm is over the whole video."""
        height, width = x.shape[-2:]
        video = rearrange(x, "(b t) c h w -> b c (t h w)", t=frames)
        hidden = self.norm(video)
        if self.pointwise_conv:
            hidden = self.proj_in(hidden)
        hidden = rearrange(hidden, "b c (t l) -> (b l) t c", t=frames)
        if not self.pointwise_conv:
            hidden = self.proj_in(hidden)
        for block in self.transformer_blocks:
            hidden = block(hidden)
        if not self.pointwise_conv:
            hidden = self.proj_out(hidden)
        hidden = rearrange(hidden, "(b l) t c -> b c (t l)", l=height * width)
        if self.pointwise_conv:
            hidden = self.proj_out(hidden)
        return x + rearrange(hidden, "b c (t h w) -> (b t) c h w", h=height, w=width)
