"""The transformers at each attention site of the UNet, over space and over time (VideoCrafter1, arXiv:2310.19512, section 3.1).

A site has a spatial transformer (self-attention within a frame, cross-attention to the context streams, feed-forward) and then
a temporal one, whose tokens are the frames at one position. Shapes: b videos, t frames, l positions of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import UNetConfig
from ..memory import feed_forward_chunks
from .attention import CrossAttention, SelfAttention, TemporalAttention
from .hooks import Hooks, Site, SpatialHooks, TemporalHooks
from .layers import Attention, LayerFactory, zero_module

#: Runs a layer over time on ``[b, c, t, l]`` or ``[b, c, t, h, w]``, perhaps as ``[b, c, t, l, 1]``; it returns the shape that it is given.
OverTime = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def run_here(layer: Callable[[Tensor], Tensor], video: Tensor) -> Tensor:
    """Run a layer over time on all frames, which this process has."""
    return layer(video)


@dataclass(frozen=True)
class Pass:
    """The inputs that all blocks of one UNet pass share, other than the hidden state."""

    #: The embedding of the timestep and the frame rate, ``[b, e]``, or ``[(b t), e]`` where each frame has its own.
    embedding: Tensor
    frames: int
    #: ``[b, n, context]``, or ``[(b t), n, context]`` where each frame has its own.
    text: Tensor
    #: Image tokens, likewise.
    image: Tensor | None = None
    #: Factor on the attention to the image tokens, ``[b]``.
    image_strength: Tensor | None = None
    hooks: Hooks | None = None
    #: In place of the layers' own attention function.
    attention: Attention | None = None
    #: False leaves all temporal transformers out.
    temporal_attention: bool = True
    #: Runs the layers over time; where several processes share the frames, it exchanges them for positions.
    over_time: OverTime = run_here


@dataclass(frozen=True)
class Location:
    """The location of a transformer in the UNet: the first fields of a :class:`.hooks.Site`."""

    part: str
    block: int
    transformer: int = -1

    def site(self, depth: int, x: Tensor, frames: int) -> Site:
        """The site of one of the transformer's blocks, with the transformer's input ``[(b t), c, h, w]``."""
        rows, channels, height, width = x.shape
        return Site(self.part, self.block, depth, self.transformer, rows // frames, frames, channels, height, width)


class GatedGELU(nn.Module):
    """``GELU(x W_g) * (x W)`` (Shazeer, arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int, layers: LayerFactory) -> None:
        super().__init__()
        self.proj = layers.linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` -> ``[..., hidden]``."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        gate = nn.functional.gelu(gate)
        gate *= value
        return gate


class FeedForward(nn.Module):
    """The gated feed-forward of a transformer block, four times as wide inside, computed in chunks of tokens."""

    def __init__(self, config: UNetConfig, width: int, layers: LayerFactory) -> None:
        super().__init__()
        self.config = config
        # The identity stands for the published dropout, so that the names match.
        self.net = nn.Sequential(GatedGELU(width, 4 * width, layers), nn.Identity(), layers.linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` -> the same shape."""
        # The compiler fuses the layers, so chunks would save nothing.
        chunks = 1 if torch.compiler.is_compiling() else feed_forward_chunks(x, self.config)
        if chunks == 1:
            return self.net(x)
        return torch.cat([self.net(chunk) for chunk in x.flatten(0, -2).chunk(chunks)]).view_as(x)


class SpatialBlock(nn.Module):
    """Self-attention within a frame, cross-attention to the context streams, feed-forward."""

    def __init__(self, config: UNetConfig, width: int, layers: LayerFactory) -> None:
        super().__init__()
        self.attn1 = SelfAttention(width, config.head_channels, layers)
        self.attn2 = CrossAttention(config, width, layers)
        self.ff = FeedForward(config, width, layers)
        self.norm1 = layers.layer_norm(width)
        self.norm2 = layers.layer_norm(width)
        self.norm3 = layers.layer_norm(width)

    def forward(self, x: Tensor, run: Pass, hooks: SpatialHooks | None = None) -> Tensor:
        """``[(b t), l, width]`` -> the same shape."""
        streams = self.attn2.streams(run.text, run.image, run.image_strength)
        if hooks is None:
            x = self.attn1(self.norm1(x), attention=run.attention).add_(x)
            x = self.attn2(self.norm2(x), streams, run.attention).add_(x)
        else:
            x = hooks.between(x + hooks.self_attention(self.attn1, self.norm1(x), run.attention))
            streams = hooks.context_streams(streams)
            x = x + hooks.cross_attention(self.attn2, self.norm2(x), streams, run.attention)
        return self.ff(self.norm3(x)).add_(x)


class TemporalBlock(nn.Module):
    """Self-attention over the frames twice, then feed-forward."""

    def __init__(self, config: UNetConfig, width: int, layers: LayerFactory) -> None:
        super().__init__()
        self.attn1 = TemporalAttention(config, width, layers)
        self.attn2 = TemporalAttention(config, width, layers)
        self.ff = FeedForward(config, width, layers)
        self.norm1 = layers.layer_norm(width)
        self.norm2 = layers.layer_norm(width)
        self.norm3 = layers.layer_norm(width)

    def forward(self, x: Tensor, run: Pass, hooks: TemporalHooks | None = None) -> Tensor:
        """``[b, t, l, width]`` -> the same shape."""
        if hooks is not None:
            return hooks.block(lambda x: self._hooked(x, run, hooks), hooks.block_input(x))
        x = self.attn1(self.norm1(x), run.attention).add_(x)
        x = self.attn2(self.norm2(x), run.attention).add_(x)
        return self.ff(self.norm3(x)).add_(x)

    def _hooked(self, x: Tensor, run: Pass, hooks: TemporalHooks) -> Tensor:
        x = hooks.between(x + hooks.attention(self.attn1, self.norm1(x), "attn1", run.attention))
        x = x + hooks.attention(self.attn2, self.norm2(x), "attn2", run.attention)
        return self.ff(self.norm3(x)).add_(x)


class SpatialTransformer(nn.Module):
    """The transformer over the positions of each frame.

    Args:
        channels: width of the input, the output and the tokens.
        location: for the hooks' sites.
    """

    def __init__(self, config: UNetConfig, channels: int, layers: LayerFactory, location: Location) -> None:
        super().__init__()
        self.location = location
        self.norm = layers.group_norm(channels, eps=1e-6)
        self.proj_in = layers.linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(SpatialBlock(config, channels, layers) for _ in range(config.transformer_depth))
        self.proj_out = zero_module(layers.linear(channels, channels))

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """``[(b t), c, h, w]`` -> the same shape."""
        # Contiguous tokens: linear layers would copy their weight for each frame otherwise.
        hidden = self.proj_in(rearrange(self.norm(x), "f c h w -> f (h w) c").contiguous())
        for depth, block in enumerate(self.transformer_blocks):
            hooks = None if run.hooks is None else run.hooks.spatial(self.location.site(depth, x, run.frames))
            hidden = block(hidden, run, hooks)
        return x + rearrange(self.proj_out(hidden), "f (h w) c -> f c h w", h=x.shape[-2])


class TemporalTransformer(nn.Module):
    """The transformer over the frames at each position.

    Args:
        channels: width of the input and the output.
        location: for the hooks' sites.
        initial: True for the one after the UNet's first convolution. Its tokens are as wide as 8 heads, and its projections are
            convolutions of width 1; the others' tokens have ``channels``, and their projections are linear layers.
    """

    def __init__(
        self, config: UNetConfig, channels: int, layers: LayerFactory, location: Location, initial: bool = False
    ) -> None:
        super().__init__()
        self.location = location
        projection = layers.pointwise if initial else layers.linear
        width = config.init_attention_width if initial else channels
        self.norm = layers.group_norm(channels, eps=1e-6)
        self.proj_in = projection(channels, width)
        self.transformer_blocks = nn.ModuleList(TemporalBlock(config, width, layers) for _ in range(config.transformer_depth))
        self.proj_out = zero_module(projection(width, channels))

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """``[(b t), c, h, w]`` -> the same shape. The norm is over all frames of a video."""
        if not run.temporal_attention:
            return x

        def layer(plane: Tensor) -> Tensor:
            hidden = self.proj_in(rearrange(self.norm(plane), "b c t l -> b t l c").contiguous())  # contiguous as in space
            for depth, block in enumerate(self.transformer_blocks):
                hooks = None if run.hooks is None else run.hooks.temporal(self.location.site(depth, x, run.frames))
                hidden = block(hidden, run, hooks)
            return rearrange(self.proj_out(hidden), "b t l c -> b c t l")

        added = run.over_time(layer, rearrange(x, "(b t) c h w -> b c t (h w)", t=run.frames))
        added = rearrange(added, "b c t (h w) -> (b t) c h w", h=x.shape[-2])
        if run.hooks is not None:
            added = run.hooks.over_time(self.location.part, self.location.block, run.frames, added)
        return x + added
