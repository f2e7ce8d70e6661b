"""The 3D UNet that predicts the noise in a video's latent (VideoCrafter1, arXiv:2310.19512, section 3.1).

Stable Diffusion's UNet sees every frame as an image; time is added by a temporal transformer after each spatial one, by
temporal convolutions inside the residual blocks, or both. Module names are those of the published checkpoints, with their
misspelling of ``temopral_conv``.

Between the blocks a video is ``[(b t), c, h, w]``. Where it lies in memory with its channels last, the tokens of frames, the tokens
of positions and the plane that convolutions over time see are all views of the same numbers, and nothing is copied between them.
Sums are taken in place where one side is needed no more.
"""

from __future__ import annotations

import math
from itertools import count, islice

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import UNetConfig
from ..diffusion.deep_cache import DeepFeatures
from .attention import ImageTokens, SpatialTransformer, TemporalTransformer
from .hooks import Hooks
from .layers import Layers, zeroed

#: Heads of the temporal transformer that follows the first convolution, whatever the network's width.
INIT_ATTENTION_HEADS = 8
#: Pieces that feed-forwards at full resolution are taken in, which decide what the whole network takes otherwise.
FEED_FORWARD_PIECES = 4


def sinusoidal_embedding(values: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of ``values`` ``[B]`` at ``width / 2`` frequencies from 1 down to 1/10000 -> ``[B, width]`` in float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=values.device))
    angles = values.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def best_layout(device: torch.device) -> torch.memory_format:
    """Channels last for a GPU's convolutions; torch's norms on a processor are ten times slower on it."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


class TemporalConvolution(nn.Module):
    """Four convolutions over time, added to what they are given."""

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()

        def stage(dropout: bool) -> list[nn.Module]:
            # The published stages hold a dropout, except the first; it keeps its place, for the names.
            dropped = [nn.Identity()] if dropout else []
            return [layers.group_norm(channels), nn.SiLU(inplace=True), *dropped, layers.temporal_conv(channels)]

        self.conv1 = nn.Sequential(*stage(dropout=False))
        self.conv2 = nn.Sequential(*stage(dropout=True))
        self.conv3 = nn.Sequential(*stage(dropout=True))
        self.conv4 = nn.Sequential(*stage(dropout=True))
        zeroed(self.conv4[-1])

    def forward(self, x: Tensor) -> Tensor:
        """``[b, c, t, l]``, l being the positions -> the same shape."""
        hidden = self.conv4(self.conv3(self.conv2(self.conv1(x))))
        hidden += x
        return hidden


class ResidualBlock(nn.Module):
    """Two convolutions in space with the embedding of time between them; then, if asked for, convolutions over time."""

    def __init__(self, inputs: int, outputs: int, embedding: int, layers: Layers, temporal_conv: bool) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(layers.group_norm(inputs), nn.SiLU(inplace=True), layers.conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), layers.linear(embedding, outputs))
        self.out_layers = nn.Sequential(
            layers.group_norm(outputs), nn.SiLU(inplace=True), nn.Identity(), zeroed(layers.conv2d(outputs, outputs, 3, padding=1))
        )
        self.skip_connection = nn.Identity() if inputs == outputs else layers.conv2d(inputs, outputs, 1)
        self.temopral_conv = TemporalConvolution(outputs, layers) if temporal_conv else None

    def forward(self, x: Tensor, embedding: Tensor, frames: int) -> Tensor:
        """``[(b t), c, h, w]``, embedding ``[b, e]`` -> ``[(b t), c', h, w]``."""
        hidden = self.in_layers(x)
        hidden += repeat(self.emb_layers(embedding), "b c -> (b t) c 1 1", t=frames)
        hidden = self.out_layers(hidden)
        hidden += self.skip_connection(x)
        if self.temopral_conv is not None:
            plane = self.temopral_conv(rearrange(hidden, "(b t) c h w -> b c t (h w)", t=frames))
            hidden = rearrange(plane, "b c t (h w) -> (b t) c h w", h=x.shape[-2])
        return hidden


class Downsample(nn.Module):
    """Half the size by a strided convolution; odd sizes round up."""

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        self.op = layers.conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Nearest neighbour to the size of the skip that comes next, which is double or, where halving rounded up, one less."""

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        self.conv = layers.conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(nn.functional.interpolate(x, size=size, mode="nearest"))


class UNet(nn.Module):
    """The network. Its weights' names are those under ``model.diffusion_model.`` in the published files."""

    def __init__(self, config: UNetConfig, layers: Layers | None = None) -> None:
        super().__init__()
        layers = layers or Layers()
        self.config = config
        width = config.model_channels
        embedding = 4 * width

        def embed() -> nn.Sequential:
            return nn.Sequential(layers.linear(width, embedding), nn.SiLU(), layers.linear(embedding, embedding))

        def residual(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, embedding, layers, config.temporal_conv)

        def attention(channels: int, level: int) -> list[nn.Module]:
            heads, depth, pieces = config.head_channels, config.transformer_depth, FEED_FORWARD_PIECES if level == 0 else 1
            return [
                SpatialTransformer(channels, config.context_dim, heads, depth, layers, config.image_attention, config.image_gain, pieces),
                TemporalTransformer(channels, channels, heads, depth, layers, config.max_relative_position, pieces=pieces),
            ]

        def stage(inputs: int, level: int) -> list[nn.Module]:
            outputs = config.channel_mult[level] * width
            attends = 2**level in config.attention_resolutions
            return [residual(inputs, outputs), *(attention(outputs, level) if attends else [])]

        self.time_embed = embed()
        if config.fps_embedding:
            self.fps_embedding = embed()

        self.input_blocks = nn.ModuleList([nn.ModuleList([layers.conv2d(config.in_channels, width, 3, padding=1)])])
        inner = INIT_ATTENTION_HEADS * config.head_channels
        self.init_attn = nn.ModuleList([
            TemporalTransformer(
                width, inner, config.head_channels, config.transformer_depth, layers, config.max_relative_position, pointwise_conv=True,
                pieces=FEED_FORWARD_PIECES,
            )
        ])  # fmt: skip
        channels, skips = width, [width]
        last = len(config.channel_mult) - 1
        for level, multiplier in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(nn.ModuleList(stage(channels, level)))
                channels = multiplier * width
                skips.append(channels)
            if level != last:
                self.input_blocks.append(nn.ModuleList([Downsample(channels, layers)]))
                skips.append(channels)

        # The middle attends even where the level it stands on does not.
        self.middle_block = nn.ModuleList([residual(channels, channels), *attention(channels, last), residual(channels, channels)])

        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(config.channel_mult))):
            for index in range(config.num_res_blocks + 1):
                block = stage(channels + skips.pop(), level)
                channels = multiplier * width
                if level and index == config.num_res_blocks:
                    block.append(Upsample(channels, layers))
                self.output_blocks.append(nn.ModuleList(block))

        self.out = nn.Sequential(
            layers.group_norm(channels), nn.SiLU(inplace=True), zeroed(layers.conv2d(channels, config.out_channels, 3, padding=1))
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        text: Tensor,
        image_tokens: Tensor | None = None,
        fps: Tensor | None = None,
        temporal_attention: bool = True,
        image_strength: Tensor | None = None,
        hooks: Hooks | None = None,
        deep: DeepFeatures | None = None,
        begun: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise (or v) in ``x``.

        Args:
            x: noisy latents ``[B, in_channels, T, h, w]``, any T, h and w; the latents of pictures, where a model takes them, stand
                after the noisy latent's channels.
            timesteps: ``[B]``, 0 to 999; fractions are allowed.
            text: ``[B, n, context_dim]``.
            image_tokens: ``[B, m, context_dim]``, or none. In models with tokens for each frame, m is their number times T and they
                are shared out in order; where it isn't, every frame sees all of them.
            fps: frames a second ``[B]``, the configuration's default where none is given; ignored by models without that input.
            temporal_attention: False leaves all temporal transformers out, for temporal guidance.
            image_strength: ``[B]``, what the attention to image tokens is multiplied by; 1 where it is not given.
            hooks: what looks in at its places, see :mod:`.hooks`.
            deep: an earlier pass's deep features, which are used in place of what would make them; empty ones are filled.
            begun: what :meth:`begin` made of ``x``, where several passes see the same; hooks that write into it change it for all.

        Returns:
            ``[B, out_channels, T, h, w]``.

        Raises:
            ValueError: deep features of no block, or of all.
        """
        blocks = len(self.input_blocks)
        if deep is not None and not 0 < deep.shallow < blocks:
            raise ValueError(f"{deep.shallow} shallow blocks are asked for; this UNet has {blocks}, so it can be 1 to {blocks - 1}.")
        shallow = blocks if deep is None or deep.kept is None else deep.shallow
        frames = x.shape[2]
        image = None if image_tokens is None else ImageTokens(self._shared_out(image_tokens, frames), image_strength)
        embedding = self._embed(x, timesteps, fps)
        transformers = count()

        def run(layer: nn.Module, hidden: Tensor, part: str, number: int) -> Tensor:
            if isinstance(layer, ResidualBlock):
                return layer(hidden, embedding, frames)
            if isinstance(layer, SpatialTransformer):
                return layer(hidden, text, image, hooks, (part, number, next(transformers)))
            if isinstance(layer, TemporalTransformer):
                return layer(hidden, frames) if temporal_attention else hidden
            if isinstance(layer, Upsample):
                return layer(hidden, size=skips[-1].shape[-2:])
            return layer(hidden)

        # Each layer's result takes the place of what it was made of, which nothing here holds any longer then.
        skips: list[Tensor] = []
        hidden = self.begin(x, temporal_attention) if begun is None else begun
        del begun
        for number, block in enumerate(islice(self.input_blocks, shallow)):
            for layer in block if number else ():  # type: ignore[union-attr]
                hidden = run(layer, hidden, "input", number)
            hidden, skip = (hidden, hidden) if hooks is None else hooks.after_input_block(number, hidden)
            skips.append(skip)
            del skip
        if shallow == blocks:
            for layer in self.middle_block:
                hidden = run(layer, hidden, "middle", 0)
            if hooks is not None:
                hidden = hooks.after_middle_block(hidden)
        else:
            # Hooks are told the transformers' numbers as if all had run.
            left_out = [*islice(self.input_blocks, shallow, None), self.middle_block, *islice(self.output_blocks, blocks - shallow)]
            transformers = count(next(transformers) + sum(isinstance(each, SpatialTransformer) for part in left_out for each in part))  # type: ignore[attr-defined]
        for number, block in islice(enumerate(self.output_blocks), blocks - shallow, None):
            if deep is not None and number == blocks - deep.shallow:
                hidden = deep.pass_on(hidden)
            skip = skips.pop()
            if hooks is not None:
                hidden, skip = hooks.before_output_block(number, hidden, skip)
            hidden = torch.cat([hidden, skip], dim=1)
            del skip
            for layer in block:  # type: ignore[attr-defined]
                hidden = run(layer, hidden, "output", number)
        return rearrange(self.out(hidden), "(b t) c h w -> b c t h w", t=frames)

    def begin(self, x: Tensor, temporal_attention: bool = True) -> Tensor:
        """The first block, which sees nothing but the video: all of guidance's passes over ``x`` can begin with what it made.

        ``x`` and ``temporal_attention`` are those of :meth:`forward`; the result is ``[(b t), c, h, w]``.
        """
        hidden = rearrange(x, "b c t h w -> (b t) c h w").contiguous(memory_format=best_layout(x.device))
        for layer in self.input_blocks[0]:  # type: ignore[attr-defined]
            hidden = layer(hidden)
        if temporal_attention:
            for layer in self.init_attn:
                hidden = layer(hidden, x.shape[2])
        return hidden

    def _shared_out(self, image_tokens: Tensor, frames: int) -> Tensor:
        per_frame = self.config.image_tokens_per_frame
        if per_frame and image_tokens.shape[1] == per_frame * frames:
            return rearrange(image_tokens, "b (t m) c -> (b t) m c", t=frames)
        return image_tokens

    def _embed(self, x: Tensor, timesteps: Tensor, fps: Tensor | None) -> Tensor:
        width = self.config.model_channels
        embedding = self.time_embed(sinusoidal_embedding(timesteps, width).to(x.dtype))
        if self.config.fps_embedding:
            if fps is None:
                fps = torch.full_like(timesteps, self.config.default_fps)
            embedding = embedding + self.fps_embedding(sinusoidal_embedding(fps, width).to(x.dtype))
        return embedding
