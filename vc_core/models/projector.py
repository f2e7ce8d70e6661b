"""The perceiver resampler that turns an image's features into image tokens (Flamingo, arXiv:2204.14198, section 3.1.1).

In each layer, a fixed number of learned queries attend to the features and to each other. Module names are those under
``image_proj_model.`` in the published files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import ProjectorConfig
from .layers import LayerFactory


class PerceiverAttention(nn.Module):
    """Attention of the queries to the features and the queries together."""

    def __init__(self, width: int, heads: int, head_channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.heads = heads
        self.attention = layers.attention
        inner = heads * head_channels
        self.norm1 = layers.layer_norm(width)
        self.norm2 = layers.layer_norm(width)
        self.to_q = layers.linear(width, inner, bias=False)
        self.to_kv = layers.linear(width, 2 * inner, bias=False)
        self.to_out = layers.linear(inner, width, bias=False)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """``[B, n, width]``, ``[B, q, width]`` -> ``[B, q, width]``."""
        queries = self.norm2(queries)
        k, v = self.to_kv(torch.cat([self.norm1(features), queries], dim=1)).chunk(2, dim=-1)
        return self.to_out(self.attention(self.to_q(queries), k, v, self.heads))


class Projector(nn.Module):
    """Features of an image to image tokens."""

    def __init__(self, config: ProjectorConfig, layers: LayerFactory | None = None) -> None:
        super().__init__()
        layers = layers or LayerFactory()
        width, hidden = config.width, config.width * config.ff_mult
        # Equal queries would stay equal in training.
        self.latents = layers.parameter(1, config.queries, width, std=width**-0.5)
        self.proj_in = layers.linear(config.feature_dim, width)
        self.proj_out = layers.linear(width, config.context_dim)
        self.norm_out = layers.layer_norm(config.context_dim)
        self.layers = nn.ModuleList()
        for _ in range(config.depth):
            attention = PerceiverAttention(width, config.heads, config.head_channels, layers)
            expand, contract = layers.linear(width, hidden, bias=False), layers.linear(hidden, width, bias=False)
            feed_forward = nn.Sequential(layers.layer_norm(width), expand, nn.GELU(), contract)
            self.layers.append(nn.ModuleList([attention, feed_forward]))

    def forward(self, features: Tensor) -> Tensor:
        """``[B, n, feature_dim]`` -> ``[B, queries, context_dim]``."""
        features = self.proj_in(features)
        queries = self.latents.to(features).expand(len(features), -1, -1)
        attention: nn.Module
        feed_forward: nn.Module
        for attention, feed_forward in self.layers:  # type: ignore[misc]
            queries = queries + attention(features, queries)
            queries = queries + feed_forward(queries)
        return self.norm_out(self.proj_out(queries))
