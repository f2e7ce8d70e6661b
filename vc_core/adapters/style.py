"""StyleCrafter's adapter: the style of images, read by a stream of its own in each spatial cross-attention (arXiv:2312.00330, section 3).

Module names are those of the published adapter. Its file is loaded beside VideoCrafter1's Text2Video-512.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checkpoint.reading import Checkpoint
from ..config import ModelConfig
from ..errors import InputError
from ..models.attention import CrossAttention
from ..models.conditioning import ContextStream
from ..models.hooks import Hooks, PassInputs, Site, SpatialHooks
from ..models.layers import LayerFactory
from ..models.openclip import transformer
from ..models.unet import UNet
from .adapter import Adapter

#: Heads of its two transformers, which can't be read off tensors.
HEADS = 8
#: Width inside the last layers of the scales.
SCALE_WIDTH = 32


class StyleTransformer(nn.Module):
    """Learned queries that read an image's features: style tokens."""

    def __init__(self, width: int, outputs: int, queries: int, depth: int, layers: LayerFactory) -> None:
        super().__init__()
        self.style_emb = layers.parameter(1, queries, width)
        self.transformer_blocks = transformer(width, HEADS, depth, layers.device, layers.dtype)
        self.ln1, self.ln2 = layers.layer_norm(width), layers.layer_norm(width)
        self.proj = layers.parameter(width, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, n, width]`` -> ``[B, queries, outputs]``. The first norm covers the learned queries, too."""
        hidden = _read(self, self.style_emb, features)
        return hidden @ self.proj.to(hidden)


class ScalePredictor(nn.Module):
    """A scale for each cross-attention, from the style and the prompt."""

    def __init__(self, width: int, count: int, depth: int, layers: LayerFactory) -> None:
        super().__init__()
        self.scale_emb = layers.parameter(1, count, width)
        self.transformer_blocks = transformer(width, HEADS, depth, layers.device, layers.dtype)
        self.ln1, self.ln2 = layers.layer_norm(width), layers.layer_norm(width)
        self.out = nn.Sequential(layers.linear(width, SCALE_WIDTH), nn.GELU(), layers.linear(SCALE_WIDTH, 1), nn.Tanh())

    def forward(self, style: Tensor, text: Tensor) -> Tensor:
        """Style tokens ``[B, m, width]`` and text tokens ``[B, n, width]`` -> scales ``[B, count]`` in [-1, 1]."""
        return self.out(_read(self, self.scale_emb, torch.cat([style, text], dim=1)))[..., 0]


def _read(network: StyleTransformer | ScalePredictor, queries: Tensor, tokens: Tensor) -> Tensor:
    """Queries and tokens through a network's blocks -> the queries, normed."""
    weight = network.transformer_blocks.resblocks[0].ln_1.weight  # type: ignore[index,union-attr]  # open_clip's own layers, which cast nothing
    hidden = torch.cat([queries.to(weight).expand(len(tokens), -1, -1), tokens.to(weight)], dim=1)
    hidden = network.ln1(hidden)
    for block in network.transformer_blocks.resblocks:  # type: ignore[union-attr]  # a ModuleList
        hidden = block(hidden)
    return network.ln2(hidden[:, : queries.shape[1]])


class StyleAttention(nn.Module):
    """The layers of one cross-attention's style stream."""

    def __init__(self, width: int, context: int, layers: LayerFactory) -> None:
        super().__init__()
        self.to_k_style = layers.linear(context, width, bias=False)
        self.to_v_style = layers.linear(context, width, bias=False)
        self.norm_style = layers.layer_norm(width)

    def stream(self, tokens: Tensor, strength: Tensor) -> ContextStream:
        """The stream over style tokens ``[b, m, context]``, with a strength for each row."""
        return ContextStream(tokens, self.to_k_style, self.to_v_style, strength=strength, gate=self.norm_style)


class StyleAdapter(Adapter):
    """The adapter. Images are given to it by :class:`Style`; without them it changes nothing.

    Args:
        width: of the image tower's features.
        queries: number of style tokens.
        depths: blocks of the style transformer and of the scale predictor.
    """

    acts_alone = False

    def __init__(self, config: ModelConfig, width: int, queries: int, depths: tuple[int, int], layers: LayerFactory) -> None:
        super().__init__()
        context = config.unet.context_dim
        attentions = attention_names(config)
        self.numbers = {name: number for number, name in enumerate(attentions)}
        self.image_context_model = StyleTransformer(width, context, queries, depths[0], layers)
        self.scale_predictor = ScalePredictor(context, len(attentions), depths[1], layers)
        self.kv_attn_layers = nn.ModuleDict({name: StyleAttention(inner, context, layers) for name, inner in attentions.items()})

    @classmethod
    def build(cls, config: ModelConfig, checkpoint: Checkpoint, layers: LayerFactory) -> StyleAdapter:
        """The adapter of a file; its sizes are read off the tensors."""
        _, queries, width = checkpoint.shape("image_context_model.style_emb")
        depths = [_depth(checkpoint, part) for part in ("image_context_model", "scale_predictor")]
        return cls(config, width, queries, (depths[0], depths[1]), layers)

    def hooks(self, inputs: PassInputs) -> Hooks | None:
        return None


def attention_names(config: ModelConfig) -> dict[str, int]:
    """The adapter's name for each spatial cross-attention of a UNet, in the order in which they run, and its width."""
    unet = UNet(config.unet, LayerFactory(device="meta"))
    found = ((name, module) for name, module in unet.named_modules() if isinstance(module, CrossAttention))
    return {name.replace(".", "_") + "_processor": module.heads * module.head_channels for name, module in found}


def _depth(checkpoint: Checkpoint, part: str) -> int:
    start = f"{part}.transformer_blocks.resblocks."
    return len({name[len(start) :].partition(".")[0] for name in checkpoint.names() if name.startswith(start)})


@dataclass(frozen=True)
class Style:
    """The style of images in a run: a factory of hooks, for the ``hooks`` of a run's settings.

    Only passes of the role ``positive`` have the style; ``unstyled`` is the same pass without it, for guidance by the style.

    Attributes:
        features: of the images, ``[n, 1 + patches, width]``, see :func:`vc_core.style.style_features`.
        strength: factor on the style; 0 leaves the model as it is.
        per_frame: each image is the style of one frame, in order; otherwise all of them together are one style.
        still: for a single image in place of a video: the temporal transformers are left out, as in its authors' picture mode.
    """

    adapter: StyleAdapter
    features: Tensor
    strength: float = 1.0
    per_frame: bool = False
    still: bool = False

    def __call__(self, inputs: PassInputs) -> Hooks | None:
        styled = [role == "positive" for role in inputs.roles]
        if not (any(styled) and self.strength):
            return StillHooks() if self.still else None
        (videos, _, frames), text = inputs.x.shape[:3], inputs.conditioning.text
        features = self._of_frames(inputs, frames) if self.per_frame else self.features.flatten(0, 1)[None]
        tokens = self.adapter.image_context_model(features.to(inputs.x.device))  # [1, m, context], or [frames, m, context]
        if self.per_frame or text.ndim == 4:
            text = text.flatten(0, 1) if text.ndim == 4 else text.repeat_interleave(frames, dim=0)
        tokens = tokens.repeat(len(text) // len(tokens), 1, 1)  # as many rows as text has: videos, or their frames
        scales = self.adapter.scale_predictor(tokens, text)
        on = torch.tensor(styled, device=scales.device).repeat_interleave(len(text) // videos)
        strengths = self.strength * (1 + scales) * on[:, None]
        return StyleHooks(self.adapter, tokens.to(inputs.x), strengths.to(inputs.x), self.still)

    def _of_frames(self, inputs: PassInputs, frames: int) -> Tensor:
        """The features of a window's frames."""
        window = range(frames) if inputs.window is None else [index % len(self.features) for index in inputs.window]
        if inputs.window is None and len(self.features) != frames:
            raise InputError(f"There are {len(self.features)} style images, but the video has {frames} frames: give one for each frame.")
        return self.features[list(window)]


class StillHooks(Hooks):
    """Leaves out the temporal transformers. VideoCrafter1's Text2Video-512, which the adapter is for, has no other layers over time."""

    def over_time(self, part: str, block: int, frames: int, added: Tensor) -> Tensor:
        return torch.zeros_like(added)


class StyleHooks(Hooks):
    """The style streams of one pass.

    Args:
        tokens: ``[rows, m, context]``, rows being videos or their frames.
        strengths: ``[rows, attentions]``.
        still: whether temporal transformers are left out.
    """

    def __init__(self, adapter: StyleAdapter, tokens: Tensor, strengths: Tensor, still: bool) -> None:
        self.adapter, self.tokens, self.strengths, self.still = adapter, tokens, strengths, still

    def spatial(self, site: Site) -> SpatialHooks | None:
        part = "middle_block" if site.part == "middle" else f"{site.part}_blocks_{site.block}"
        name = f"{part}_1_transformer_blocks_{site.depth}_attn2_processor"
        layer = self.adapter.kv_attn_layers[name]
        assert isinstance(layer, StyleAttention)
        return StyleStream(layer.stream(self.tokens, self.strengths[:, self.adapter.numbers[name]]))

    def over_time(self, part: str, block: int, frames: int, added: Tensor) -> Tensor:
        return torch.zeros_like(added) if self.still else added


class StyleStream(SpatialHooks):
    """Adds the style stream of one cross-attention."""

    def __init__(self, stream: ContextStream) -> None:
        self.stream = stream

    def context_streams(self, streams: list[ContextStream]) -> list[ContextStream]:
        return [*streams, self.stream]
