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

#: Heads that kernels take at once: a GPU's grid has at most 65535 of them.
MOST_HEADS = 2**15
#: Numbers inside of a feed-forward that a processor handles at once: few enough not to ask its system for fresh memory each time.
INNER_AT_ONCE = 2**22


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
    """Attention among the tokens of one sequence."""

    def __init__(self, width: int, head_channels: int, layers: Layers) -> None:
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
            keys: what keys are made of, ``[n, m, width]``, if not of ``x``.
            values: what values are made of, of the same shape, if not of what keys are made of.
            attention: in the place of the layer's own.
        """
        keys = x if keys is None else keys
        values = keys if values is None else values
        return self.to_out((attention or self.attention)(self.to_q(x), self.to_k(keys), self.to_v(values), self.heads))


class TemporalAttention(SelfAttention):
    """Attention among the frames, at each position on its own, with or without relative positions.

    Positions do not see one another, and no more do heads: a video's positions are taken for so many times the heads. Then
    queries, keys and values are read where they lie, without bringing the frames of a position together first.
    """

    def __init__(self, width: int, head_channels: int, layers: Layers, max_relative_position: int = 0) -> None:
        super().__init__(width, head_channels, layers)
        self.relative = max_relative_position > 0
        if self.relative:
            self.relative_position_k = RelativePosition(head_channels, max_relative_position, layers)
            self.relative_position_v = RelativePosition(head_channels, max_relative_position, layers)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """``[b, t, l, width]``, l being the positions -> the same shape."""
        return self.to_out(self._attend(self.to_q(x), self.to_k(x), self.to_v(x)))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.relative:
            return self._relative_attention(q, k, v)
        size = max(1, MOST_HEADS // self.heads)
        pieces = [
            self.attention(*(each.flatten(2) for each in piece), piece[0].shape[2] * self.heads).unflatten(2, (-1, q.shape[-1]))
            for piece in zip(q.split(size, 2), k.split(size, 2), v.split(size, 2), strict=True)
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)

    def _relative_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # The values' positions need the probabilities themselves, which fused kernels don't give.
        frames = q.shape[1]
        q, k, v = (rearrange(x, "b t l (h d) -> b (l h) t d", h=self.heads) for x in (q, k, v))
        q = q * q.shape[-1] ** -0.5
        logits = q @ k.transpose(-1, -2)
        logits += torch.einsum("bnid,ijd->bnij", q, self.relative_position_k(frames, q))
        weights = logits.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        out = weights @ v
        out += torch.einsum("bnij,ijd->bnid", weights, self.relative_position_v(frames, v))
        return rearrange(out, "b (l h) t d -> b t l (h d)", h=self.heads)


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
        gate = nn.functional.gelu(gate)
        gate *= value
        return gate


class FeedForward(nn.Module):
    """The gated feed-forward of a transformer block, four times as wide inside.

    Args:
        pieces: it is taken in so many, one after the other, since inside it takes more memory than all else around it. That is for
            where there are most tokens, and the layers narrow: where weights are moved to a GPU as they are used, each piece does so.
    """

    def __init__(self, width: int, layers: Layers, pieces: int = 1) -> None:
        super().__init__()
        self.pieces = pieces
        # The empty place is the dropout's of the published files, which is off outside training.
        self.net = nn.Sequential(GatedGELU(width, 4 * width, layers), nn.Identity(), layers.linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` -> the same shape."""
        pieces = self.pieces
        if x.device.type == "cpu":
            pieces = max(pieces, 8 * x.numel() // INNER_AT_ONCE)
        if pieces == 1 or torch.compiler.is_compiling():  # which fuses what is inside
            return self.net(x)
        return torch.cat([self.net(piece) for piece in x.flatten(0, -2).chunk(pieces)]).view_as(x)


class SpatialBlock(nn.Module):
    """Self-attention within a frame, cross-attention to the conditioning, feed-forward."""

    def __init__(
        self, width: int, context_dim: int, head_channels: int, layers: Layers, image_attention: bool, image_gain: bool, pieces: int
    ) -> None:
        super().__init__()
        self.attn1 = SelfAttention(width, head_channels, layers)
        self.attn2 = CrossAttention(width, context_dim, head_channels, layers, image_attention, image_gain)
        self.ff = FeedForward(width, layers, pieces)
        self.norm1 = layers.layer_norm(width)
        self.norm2 = layers.layer_norm(width)
        self.norm3 = layers.layer_norm(width)

    def forward(self, x: Tensor, text: Tensor, image: ImageTokens | None, hooks: AttentionHooks | None = None) -> Tensor:
        if hooks is None:
            x = self.attn1(self.norm1(x)).add_(x)
            x = self.attn2(self.norm2(x), text, image).add_(x)
        else:
            x = hooks.between(x + hooks.self_attention(self.attn1, self.norm1(x)))
            x = x + hooks.cross_attention(self.attn2, self.norm2(x), text, image)
        return self.ff(self.norm3(x)).add_(x)


class TemporalBlock(nn.Module):
    """Twice self-attention over the frames, then feed-forward."""

    def __init__(self, width: int, head_channels: int, layers: Layers, max_relative_position: int, pieces: int) -> None:
        super().__init__()
        self.attn1 = TemporalAttention(width, head_channels, layers, max_relative_position)
        self.attn2 = TemporalAttention(width, head_channels, layers, max_relative_position)
        self.ff = FeedForward(width, layers, pieces)
        self.norm1 = layers.layer_norm(width)
        self.norm2 = layers.layer_norm(width)
        self.norm3 = layers.layer_norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, t, l, width]`` -> the same shape."""
        x = self.attn1(self.norm1(x)).add_(x)
        x = self.attn2(self.norm2(x)).add_(x)
        return self.ff(self.norm3(x)).add_(x)


class SpatialTransformer(nn.Module):
    """The transformer over the positions of each frame. ``pieces`` as in :class:`FeedForward`."""

    def __init__(
        self,
        channels: int,
        context_dim: int,
        head_channels: int,
        depth: int,
        layers: Layers,
        image_attention: bool,
        image_gain: bool,
        pieces: int = 1,
    ) -> None:
        super().__init__()
        self.norm = layers.group_norm(channels, eps=1e-6)
        self.proj_in = layers.linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            SpatialBlock(channels, context_dim, head_channels, layers, image_attention, image_gain, pieces) for _ in range(depth)
        )
        self.proj_out = zeroed(layers.linear(channels, channels))

    def forward(
        self, x: Tensor, text: Tensor, image: ImageTokens | None, hooks: Hooks | None = None, place: tuple[str, int, int] = ("", 0, 0)
    ) -> Tensor:
        """``[(b t), c, h, w]``, text ``[b, n, context]``, image tokens as they say -> ``[(b t), c, h, w]``.

        Args:
            place: the first three of a :class:`.hooks.Site`, where there are hooks.
        """
        hidden = rearrange(self.norm(x), "f c h w -> f (h w) c").contiguous()  # else linear layers copy their weight for each frame
        hidden = self.proj_in(hidden)
        for depth, block in enumerate(self.transformer_blocks):
            hidden = block(hidden, text, image, None if hooks is None else hooks.attention(Site(*place, depth, tuple(x.shape))))
        return x + rearrange(self.proj_out(hidden), "f (h w) c -> f c h w", h=x.shape[-2])


class TemporalTransformer(nn.Module):
    """The transformer over the frames at each position.

    Args:
        pointwise_conv: whether the projections are convolutions of width one, as in the first of a network, or linear layers.
        pieces: as in :class:`FeedForward`.
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
        pieces: int = 1,
    ) -> None:
        super().__init__()
        projection = layers.pointwise if pointwise_conv else layers.linear
        self.norm = layers.group_norm(channels, eps=1e-6)
        self.proj_in = projection(channels, inner)
        self.transformer_blocks = nn.ModuleList(
            TemporalBlock(inner, head_channels, layers, max_relative_position, pieces) for _ in range(depth)
        )
        self.proj_out = zeroed(projection(inner, channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """``[(b t), c, h, w]`` with t = ``frames`` -> the same shape. The norm is over the whole video."""
        hidden = self.norm(rearrange(x, "(b t) c h w -> b c t (h w)", t=frames))
        hidden = self.proj_in(rearrange(hidden, "b c t l -> b t l c").contiguous())  # as in space
        for block in self.transformer_blocks:
            hidden = block(hidden)
        return x + rearrange(self.proj_out(hidden), "b t (h w) c -> (b t) c h w", h=x.shape[-2])
