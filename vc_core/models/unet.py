"""The 3D UNet that predicts the noise in a video's latent (VideoCrafter1, arXiv:2310.19512, section 3.1).

Stable Diffusion's UNet treats every frame as an image; time is added by a temporal transformer after each spatial one, by
temporal convolutions inside the residual blocks, or both. Module names are those of the published checkpoints, with their
misspelling of ``temopral_conv``.

Between the blocks a video is ``[(b t), c, h, w]``. In channels-last, spatial tokens, temporal tokens and the temporal convolution's
input are views of one storage, and nothing is copied between them. Sums are computed in place where an operand is no longer needed.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ..choices import current
from ..config import UNetConfig
from .conditioning import Conditioning
from .hooks import Hooks
from .layers import Attention, LayerFactory, zero_module
from .temporal_conv import temporal_convolution
from .time_embedding import TimeEmbedding
from .transformers import Location, Pass, SpatialTransformer, TemporalTransformer


class ResidualBlock(nn.Module):
    """Two convolutions in space with the embedding of time between them; in some models convolutions over time follow.

    Args:
        location: for hooks.
    """

    def __init__(self, config: UNetConfig, inputs: int, outputs: int, layers: LayerFactory, location: Location) -> None:
        super().__init__()
        self.location = location
        self.in_layers = nn.Sequential(layers.group_norm(inputs), nn.SiLU(inplace=True), layers.conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), layers.linear(config.embedding_width, outputs))
        self.out_layers = nn.Sequential(
            layers.group_norm(outputs), nn.SiLU(inplace=True), nn.Identity(), zero_module(layers.conv2d(outputs, outputs, 3, padding=1))
        )
        self.skip_connection = nn.Identity() if inputs == outputs else layers.conv2d(inputs, outputs, 1)
        self.temopral_conv = temporal_convolution(config, outputs, layers)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """``[(b t), c, h, w]`` -> ``[(b t), c', h, w]``."""
        hidden = self.in_layers(x)
        embedding = self.emb_layers(run.embedding)
        hidden += embedding.repeat_interleave(len(x) // len(embedding), dim=0)[:, :, None, None]
        hidden = self.out_layers(hidden)
        hidden += self.skip_connection(x)
        if self.temopral_conv is not None:
            video = rearrange(hidden, "(b t) c h w -> b c t h w", t=run.frames)
            if run.hooks is None:
                return rearrange(run.over_time(self.temopral_conv, video), "b c t h w -> (b t) c h w")
            added = rearrange(run.over_time(self.temopral_conv.added, video), "b c t h w -> (b t) c h w")
            hidden = hidden + run.hooks.over_time(self.location.part, self.location.block, run.frames, added)
        return hidden


class Downsample(nn.Module):
    """Half the size by a strided convolution; odd sizes round up."""

    def __init__(self, channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.op = layers.conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """``[(b t), c, h, w]`` -> ``[(b t), c, h / 2, w / 2]``."""
        return self.op(x)


class Upsample(nn.Module):
    """Nearest neighbour, then a convolution."""

    def __init__(self, channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.conv = layers.conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """``[(b t), c, h, w]`` -> ``[(b t), c, *size]``: that of the next skip, double or one less where halving rounded up."""
        return self.conv(nn.functional.interpolate(x, size=size, mode="nearest"))


def _apply(layer: nn.Module, hidden: Tensor, run: Pass, size: tuple[int, int] | None = None) -> Tensor:
    """One layer of a block, ``[(b t), c, h, w]`` -> ``[(b t), c', h', w']``. ``size`` is the size after upsampling.

    Blocks are loops over their layers that rebind the hidden state, so that the previous activation is freed; as modules with a forward
    of their own they would hold their input to the end.
    """
    return layer(hidden, size) if isinstance(layer, Upsample) else layer(hidden, run)


class UNet(TimeEmbedding):
    """The network. Its weights' names are those under ``model.diffusion_model.`` in the published files."""

    def __init__(self, config: UNetConfig, layers: LayerFactory | None = None) -> None:
        layers = layers or LayerFactory()
        super().__init__(config, layers)
        width = config.model_channels
        self._build_input_blocks(layers)
        last = len(config.channel_mult) - 1
        inner = width * config.channel_mult[last]
        # The middle block has transformers even if its level has none.
        self.middle_block = nn.ModuleList([
            ResidualBlock(config, inner, inner, layers, Location("middle", 0)),
            *self._transformers(inner, "middle", 0, layers),
            ResidualBlock(config, inner, inner, layers, Location("middle", 0)),
        ])
        self._build_output_blocks(layers)
        self.out = nn.Sequential(
            layers.group_norm(width * config.channel_mult[0]),
            nn.SiLU(inplace=True),
            zero_module(layers.conv2d(width * config.channel_mult[0], config.out_channels, 3, padding=1)),
        )

    def _transformers(self, channels: int, part: str, block: int, layers: LayerFactory) -> list[nn.Module]:
        location = Location(part, block, sum(isinstance(module, SpatialTransformer) for module in self.modules()))
        return [
            SpatialTransformer(self.config, channels, layers, location),
            TemporalTransformer(self.config, channels, layers, Location(part, block)),
        ]

    def _stage(self, inputs: int, level: int, part: str, block: int, layers: LayerFactory) -> list[nn.Module]:
        channels = self.config.channel_mult[level] * self.config.model_channels
        attends = 2**level in self.config.attention_resolutions
        transformers = self._transformers(channels, part, block, layers) if attends else []
        return [ResidualBlock(self.config, inputs, channels, layers, Location(part, block)), *transformers]

    def _build_input_blocks(self, layers: LayerFactory) -> None:
        config = self.config
        width, last = config.model_channels, len(config.channel_mult) - 1
        self.input_blocks = nn.ModuleList([nn.ModuleList([layers.conv2d(config.in_channels, width, 3, padding=1)])])
        if config.init_attention:
            self.init_attn = nn.ModuleList([TemporalTransformer(config, width, layers, Location("init", 0), initial=True)])
        channels = width
        for level, multiplier in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(nn.ModuleList(self._stage(channels, level, "input", len(self.input_blocks), layers)))
                channels = multiplier * width
            if level != last:
                self.input_blocks.append(nn.ModuleList([Downsample(channels, layers)]))

    def _build_output_blocks(self, layers: LayerFactory) -> None:
        config = self.config
        levels = list(enumerate(config.channel_mult))
        # Skips have the channels of the input blocks: the first convolution's, then per level its blocks' and its downsampling's.
        skips = [config.model_channels]
        for level, multiplier in levels:
            skips += [multiplier * config.model_channels] * (config.num_res_blocks + (level < len(levels) - 1))
        channels = skips[-1]
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(levels):
            for index in range(config.num_res_blocks + 1):
                block = self._stage(channels + skips.pop(), level, "output", len(self.output_blocks), layers)
                channels = multiplier * config.model_channels
                if level and index == config.num_res_blocks:
                    block.append(Upsample(channels, layers))
                self.output_blocks.append(nn.ModuleList(block))

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        hooks: Hooks | None = None,
        attention: Attention | None = None,
        temporal_attention: bool = True,
    ) -> Tensor:
        """Predict the noise (or v) in ``x``.

        Args:
            x: noisy latents ``[B, C, T, h, w]``, any T, h and w. C is ``out_channels``, or ``in_channels`` where the
                conditioning has no concat latents.
            timesteps: ``[B]``, 0 to 999, or ``[B, T]`` where each frame has its own; fractions are allowed.
            hooks: see :mod:`.hooks`; for this pass only.
            attention: in place of the layers' own attention function, for this pass only.
            temporal_attention: False skips all temporal transformers, for temporal guidance.

        Returns:
            ``[B, out_channels, T, h, w]``.
        """
        run = self.prepare(x, timesteps, conditioning, hooks, attention, temporal_attention)
        return self.head(self.body(self.stem(x, conditioning, run), run), run)

    def prepare(
        self,
        x: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        hooks: Hooks | None = None,
        attention: Attention | None = None,
        temporal_attention: bool = True,
    ) -> Pass:
        """The inputs that all blocks of a pass share; the arguments are those of :meth:`forward`."""
        conditioning.check(x, timesteps, self.config)
        frames = x.shape[2]
        text = conditioning.text.flatten(0, 1) if conditioning.text.ndim == 4 else conditioning.text
        image, per_frame = conditioning.image_tokens, self.config.image_tokens_per_frame
        if image is not None and per_frame and image.shape[1] == per_frame * frames:
            image = rearrange(image, "b (t m) c -> (b t) m c", t=frames)
        embedding = self.embed(x, timesteps, conditioning)
        return Pass(embedding, frames, text, image, conditioning.image_strength, hooks, attention, temporal_attention)

    def stem(self, x: Tensor, conditioning: Conditioning, run: Pass) -> Tensor:
        """The first convolution and the temporal transformer after it -> ``[(b t), c, h, w]``.

        It depends on the latents only, so passes without hooks over the same latents can share its result.
        """
        if conditioning.concat is not None:
            x = torch.cat([x, conditioning.concat.to(x)], dim=1)
        hidden = rearrange(x, "b c t h w -> (b t) c h w").contiguous(memory_format=current().layout(x.device))
        hidden = self.input_blocks[0][0](hidden)  # type: ignore[index]
        for layer in self.init_attn if self.config.init_attention else ():
            hidden = layer(hidden, run)
        return hidden

    def body(self, hidden: Tensor, run: Pass) -> Tensor:
        """All blocks between :meth:`stem` and :meth:`head`, ``[(b t), c, h, w]`` -> the same shape."""
        hidden, skips = self.down(hidden, run)
        return self.up(self.middle(hidden, run), skips, run)

    def down(self, hidden: Tensor, run: Pass, blocks: int | None = None) -> tuple[Tensor, list[Tensor]]:
        """The input blocks after the stem -> the hidden state, and the skips of all blocks, the stem's first.

        Args:
            blocks: how many input blocks run, the stem included; all if not given.
        """
        hidden, skip = self._after_input_block(0, hidden, run)
        skips = [skip]
        for number in range(1, len(self.input_blocks) if blocks is None else blocks):
            for layer in self.input_blocks[number]:  # type: ignore[attr-defined]
                hidden = _apply(layer, hidden, run)
            hidden, skip = self._after_input_block(number, hidden, run)
            skips.append(skip)
        return hidden, skips

    def middle(self, hidden: Tensor, run: Pass) -> Tensor:
        """``[(b t), c, h, w]`` -> the same shape."""
        for layer in self.middle_block:
            hidden = _apply(layer, hidden, run)
        return hidden if run.hooks is None else run.hooks.after_middle_block(hidden)

    def up(self, hidden: Tensor, skips: list[Tensor], run: Pass, start: int = 0, stop: int | None = None) -> Tensor:
        """The output blocks from ``start`` to before ``stop`` -> ``[(b t), c, h, w]``. Skips are taken from the end of the list."""
        for number in range(start, len(self.output_blocks) if stop is None else stop):
            skip = skips.pop()
            if run.hooks is not None:
                hidden, skip = run.hooks.before_output_block(number, hidden, skip)
            hidden = torch.cat([hidden, skip], dim=1)
            del skip  # frees it before the block runs
            size = (skips[-1].shape[-2], skips[-1].shape[-1]) if skips else None
            for layer in self.output_blocks[number]:  # type: ignore[attr-defined]
                hidden = _apply(layer, hidden, run, size)
        return hidden

    def head(self, hidden: Tensor, run: Pass) -> Tensor:
        """The last norm and convolution, ``[(b t), c, h, w]`` -> ``[B, out_channels, T, h, w]``."""
        return rearrange(self.out(hidden), "(b t) c h w -> b c t h w", t=run.frames)

    def _after_input_block(self, number: int, hidden: Tensor, run: Pass) -> tuple[Tensor, Tensor]:
        return (hidden, hidden) if run.hooks is None else run.hooks.after_input_block(number, hidden, hidden)
