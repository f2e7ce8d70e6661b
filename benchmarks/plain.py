"""The yardstick: the same maths in the plainest form, as published code writes it.

Attention is ``softmax(Q K^T) V`` written out, every frame has a copy of the text and of the embedding of time, videos are copied
whenever their layout changes, and the passes of guidance run one after the other. These functions take the weights of a
:class:`UNet`'s layers and compute with torch's own functions, so nothing here is chunked, in place or done by a faster kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from vc_core.diffusion.guidance import Guidance, guide
from vc_core.models.attention import CrossAttention, SelfAttention, TemporalAttention
from vc_core.models.autoencoder import Autoencoder
from vc_core.models.conditioning import Conditioning
from vc_core.models.layers import LayerFactory
from vc_core.models.transformers import FeedForward, SpatialBlock, SpatialTransformer, TemporalBlock, TemporalTransformer
from vc_core.models.unet import Downsample, ResidualBlock, UNet, Upsample


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer by torch's own function, not the layer's; its weight may be that of a convolution of width 1."""
    return nn.functional.linear(x, layer.weight.flatten(1), layer.bias)  # type: ignore[union-attr,operator,arg-type]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """``[n, l, heads * d]``, ``[n, m, heads * d]`` twice -> ``[n, l, heads * d]``."""
    q, k, v = (rearrange(x, "n l (h d) -> (n h) l d", h=heads).contiguous() for x in (q, k, v))
    logits = torch.einsum("nid,njd->nij", q, k) * q.shape[-1] ** -0.5
    out = torch.einsum("nij,njd->nid", logits.softmax(dim=-1), v)
    return rearrange(out, "(n h) l d -> n l (h d)", h=heads)


def self_attention(layer: SelfAttention | TemporalAttention, x: Tensor) -> Tensor:
    """``[n, l, c]``, with the layer's relative positions where it has them."""
    q, k, v = linear(layer.to_q, x), linear(layer.to_k, x), linear(layer.to_v, x)
    if not isinstance(layer, TemporalAttention) or not layer.relative:
        return linear(layer.to_out[0], attention(q, k, v, layer.heads))
    q, k, v = (rearrange(x, "n l (h d) -> (n h) l d", h=layer.heads).contiguous() for x in (q, k, v))
    to_keys, to_values = (table(q.shape[1], q) for table in (layer.relative_position_k, layer.relative_position_v))
    logits = torch.einsum("nid,njd->nij", q, k) * q.shape[-1] ** -0.5
    logits = logits + torch.einsum("nid,ijd->nij", q, to_keys) * q.shape[-1] ** -0.5
    weights = logits.softmax(dim=-1)
    out = torch.einsum("nij,njd->nid", weights, v) + torch.einsum("nij,ijd->nid", weights, to_values)
    return linear(layer.to_out[0], rearrange(out, "(n h) l d -> n l (h d)", h=layer.heads))


def cross_attention(layer: CrossAttention, x: Tensor, text: Tensor, image: Tensor | None) -> Tensor:
    """``[(b t), l, c]``, text and image tokens ``[(b t), n, context]``, a copy a frame."""
    q = linear(layer.to_q, x)
    out = attention(q, linear(layer.to_k, text), linear(layer.to_v, text), layer.heads)
    if layer.image_attention and image is not None:
        seen = attention(q, linear(layer.to_k_ip, image), linear(layer.to_v_ip, image), layer.heads)
        out = out + (seen if layer.alpha is None else seen * (1 + layer.alpha.to(seen).tanh()))
    return linear(layer.to_out[0], out)


def feed_forward(layer: FeedForward, x: Tensor) -> Tensor:
    value, gate = linear(layer.net[0].proj, x).chunk(2, dim=-1)
    return linear(layer.net[2], value * nn.functional.gelu(gate))


def spatial_block(block: SpatialBlock, x: Tensor, text: Tensor, image: Tensor | None) -> Tensor:
    x = self_attention(block.attn1, block.norm1(x)) + x
    x = cross_attention(block.attn2, block.norm2(x), text, image) + x
    return feed_forward(block.ff, block.norm3(x)) + x


def temporal_block(block: TemporalBlock, x: Tensor) -> Tensor:
    x = self_attention(block.attn1, block.norm1(x)) + x
    x = self_attention(block.attn2, block.norm2(x)) + x
    return feed_forward(block.ff, block.norm3(x)) + x


def spatial_transformer(layer: SpatialTransformer, x: Tensor, text: Tensor, image: Tensor | None) -> Tensor:
    hidden = linear(layer.proj_in, rearrange(layer.norm(x), "f c h w -> f (h w) c").contiguous())
    for block in layer.transformer_blocks:
        hidden = spatial_block(block, hidden, text, image)
    return rearrange(linear(layer.proj_out, hidden), "f (h w) c -> f c h w", h=x.shape[-2]).contiguous() + x


def temporal_transformer(layer: TemporalTransformer, x: Tensor, frames: int) -> Tensor:
    height, width = x.shape[-2:]
    video = rearrange(x, "(b t) c h w -> b c t h w", t=frames).contiguous()
    hidden = rearrange(layer.norm(video), "b c t h w -> (b h w) c t").contiguous()
    hidden = linear(layer.proj_in, rearrange(hidden, "n c t -> n t c").contiguous())
    for block in layer.transformer_blocks:
        hidden = temporal_block(block, hidden)
    hidden = rearrange(linear(layer.proj_out, hidden), "n t c -> n c t").contiguous()
    video = rearrange(hidden, "(b h w) c t -> b c t h w", h=height, w=width).contiguous() + video
    return rearrange(video, "b c t h w -> (b t) c h w").contiguous()


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """A convolution in two or three dimensions by torch's own function, not the layer's."""
    weight = layer.weight
    function = nn.functional.conv3d if weight.ndim == 5 else nn.functional.conv2d  # type: ignore[union-attr,operator]
    return function(x, weight, layer.bias, stride=layer.stride, padding=layer.padding)  # type: ignore[arg-type]


def residual_block(block: ResidualBlock, x: Tensor, embedding: Tensor, frames: int) -> Tensor:
    """``[(b t), c, h, w]``, embedding ``[(b t), e]``."""
    norm, _, convolution = block.in_layers
    activation, projection = block.emb_layers
    hidden = convolve(convolution, nn.functional.silu(norm(x))) + linear(projection, activation(embedding))[:, :, None, None]
    norm, *_, convolution = block.out_layers
    skip = x if isinstance(block.skip_connection, nn.Identity) else convolve(block.skip_connection, x)
    hidden = skip + convolve(convolution, nn.functional.silu(norm(hidden)))
    if block.temopral_conv is not None:
        video = rearrange(hidden, "(b t) c h w -> b c t h w", t=frames).contiguous()
        changed = video
        for norm, *_, convolution in block.temopral_conv.children():
            changed = convolve(convolution, nn.functional.silu(norm(changed)))
        hidden = rearrange(video + changed, "b c t h w -> (b t) c h w").contiguous()
    return hidden


def unet_pass(unet: UNet, x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
    """One pass. Shapes as in :meth:`UNet.forward`."""
    frames, rows = x.shape[2], x.shape[0] * x.shape[2]
    seen = unet.prepare(x, timesteps, conditioning)
    embedding, text = each_frame(seen.embedding, rows), each_frame(seen.text, rows)
    image = None if seen.image is None else each_frame(seen.image, rows)

    def run(block: nn.Module, hidden: Tensor) -> Tensor:
        for layer in block:  # type: ignore[attr-defined]
            if isinstance(layer, ResidualBlock):
                hidden = residual_block(layer, hidden, embedding, frames)
            elif isinstance(layer, SpatialTransformer):
                hidden = spatial_transformer(layer, hidden, text, image)
            elif isinstance(layer, TemporalTransformer):
                hidden = temporal_transformer(layer, hidden, frames)
            elif isinstance(layer, Upsample):
                hidden = convolve(layer.conv, nn.functional.interpolate(hidden, size=skips[-1].shape[-2:], mode="nearest"))
            elif isinstance(layer, Downsample):
                hidden = convolve(layer.op, hidden)
            else:
                hidden = convolve(layer, hidden)
        return hidden

    skips: list[Tensor] = []
    if conditioning.concat is not None:
        x = torch.cat([x, conditioning.concat], dim=1)
    hidden = rearrange(x, "b c t h w -> (b t) c h w").contiguous()
    for number, block in enumerate(unet.input_blocks):
        hidden = run(block, hidden)
        if number == 0 and unet.config.init_attention:
            hidden = run(unet.init_attn, hidden)
        skips.append(hidden)
    hidden = run(unet.middle_block, hidden)
    for block in unet.output_blocks:
        hidden = run(block, torch.cat([hidden, skips.pop()], dim=1))
    norm, _, convolution = unet.out
    out = convolve(convolution, nn.functional.silu(norm(hidden)))
    return rearrange(out, "(b t) c h w -> b c t h w", t=frames)


def each_frame(values: Tensor, rows: int) -> Tensor:
    """``[b, ...]``, or ``[(b t), ...]`` where each frame has its own -> ``[(b t), ...]``, ``rows`` of them."""
    return values.repeat_interleave(rows // len(values), dim=0)


def guided_step(
    unet: UNet, positive: Conditioning, negative: Conditioning, guidance: Guidance
) -> Callable[[Tensor, Tensor], Tensor]:
    """As :class:`vc_core.diffusion.denoiser.GuidedDenoiser`: a pass for each conditioning, under guidance by both together."""

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        predicted = [unet_pass(unet, x, timesteps, each) for each in (positive, negative)]
        return guide(predicted[0], predicted[1], guidance)

    return denoise


def decode(autoencoder: Autoencoder) -> Callable[[Tensor], Tensor]:
    """As :meth:`Autoencoder.decode`, with the same weights and torch's own layers."""
    same = Autoencoder(autoencoder.config, LayerFactory(attention=attention, device="meta"))
    same.load_state_dict(autoencoder.state_dict(), assign=True)
    return same.eval().requires_grad_(False).decode
