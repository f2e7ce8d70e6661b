"""Stable Diffusion's image autoencoder, which encodes and decodes each frame on its own (Rombach et al., arXiv:2112.10752).

Module names are those under ``first_stage_model.`` in the published files.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from ..config import AutoencoderConfig
from .layers import LayerFactory

#: Epsilon of this network's norms; most of the UNet's have another.
EPS = 1e-6


class ResnetBlock(nn.Module):
    """Two convolutions and a skip."""

    def __init__(self, inputs: int, outputs: int, layers: LayerFactory) -> None:
        super().__init__()
        self.norm1 = layers.group_norm(inputs, eps=EPS)
        self.conv1 = layers.conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = layers.group_norm(outputs, eps=EPS)
        self.conv2 = layers.conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Identity() if inputs == outputs else layers.conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` -> ``[n, c', h, w]``."""
        hidden = self.conv1(nn.functional.silu(self.norm1(x), inplace=True))
        hidden = self.conv2(nn.functional.silu(self.norm2(hidden), inplace=True))
        hidden += self.nin_shortcut(x)
        return hidden


class AttnBlock(nn.Module):
    """Self-attention over all positions, with one head as wide as the layer."""

    def __init__(self, channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.attention = layers.attention
        self.norm = layers.group_norm(channels, eps=EPS)
        self.q = layers.conv2d(channels, channels, 1)
        self.k = layers.conv2d(channels, channels, 1)
        self.v = layers.conv2d(channels, channels, 1)
        self.proj_out = layers.conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` -> the same shape."""
        hidden = self.norm(x)
        # 'n c h w -> n (h w) c'
        q, k, v = (project(hidden).flatten(2).transpose(1, 2) for project in (self.q, self.k, self.v))
        out = self.attention(q, k, v, 1)
        return x + self.proj_out(out.transpose(1, 2).unflatten(2, x.shape[-2:]))


class Downsample(nn.Module):
    """Half the size, by a strided convolution padded with zeros at the right and the bottom only."""

    def __init__(self, channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.conv = layers.conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` -> ``[n, c, h / 2, w / 2]``."""
        return self.conv(nn.functional.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the size, by nearest neighbours and a convolution."""

    def __init__(self, channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.conv = layers.conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` -> ``[n, c, 2 h, 2 w]``."""
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution and the change to the next, if there is one."""

    def __init__(self, blocks: list[ResnetBlock]) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` -> ``[n, c', h', w']``."""
        return self.resample(self.blocks(x))

    def blocks(self, x: Tensor) -> Tensor:
        """The blocks alone, ``[n, c, h, w]`` -> ``[n, c', h, w]``."""
        for block in self.block:
            x = block(x)
        return x

    def resample(self, x: Tensor) -> Tensor:
        """The change to the next resolution alone."""
        resample = self.downsample or self.upsample
        return x if resample is None else resample(x)


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, layers)
        self.attn_1 = AttnBlock(channels, layers)
        self.block_2 = ResnetBlock(channels, channels, layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` -> the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Images to the moments of their latents."""

    def __init__(self, config: AutoencoderConfig, layers: LayerFactory) -> None:
        super().__init__()
        channels = config.channels
        self.conv_in = layers.conv2d(config.image_channels, channels, 3, padding=1)
        self.down = nn.ModuleList()
        for index, multiplier in enumerate(config.channel_mult):
            blocks = []
            for _ in range(config.num_res_blocks):
                blocks.append(ResnetBlock(channels, multiplier * config.channels, layers))
                channels = multiplier * config.channels
            level = Level(blocks)
            if index != len(config.channel_mult) - 1:
                level.downsample = Downsample(channels, layers)
            self.down.append(level)
        self.mid = Middle(channels, layers)
        self.norm_out = layers.group_norm(channels, eps=EPS)
        self.conv_out = layers.conv2d(channels, 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, image_channels, H, W]`` -> ``[n, 2 * z_channels, h, w]``."""
        hidden = self.conv_in(x)
        for level in self.down:
            hidden = level(hidden)
        return self.conv_out(nn.functional.silu(self.norm_out(self.mid(hidden)), inplace=True))

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of each level's blocks, full resolution first, then that of the first convolution, each ``[n, c, h, w]``."""
        hidden = first = self.conv_in(x)
        found = []
        level: Level
        for level in self.down:  # type: ignore[assignment]
            hidden = level.blocks(hidden)
            found.append(hidden)
            hidden = level.resample(hidden)
        return [*found, first]


class Decoder(nn.Module):
    """Latents to images. Levels are numbered as the encoder's, so they run from the last to the first."""

    def __init__(self, config: AutoencoderConfig, layers: LayerFactory) -> None:
        super().__init__()
        channels = config.channels * config.channel_mult[-1]
        self.conv_in = layers.conv2d(config.z_channels, channels, 3, padding=1)
        self.mid = Middle(channels, layers)
        levels: list[nn.Module] = []
        for index, multiplier in reversed(list(enumerate(config.channel_mult))):
            blocks = []
            for _ in range(config.num_res_blocks + 1):
                blocks.append(ResnetBlock(channels, multiplier * config.channels, layers))
                channels = multiplier * config.channels
            level = Level(blocks)
            if index:
                level.upsample = Upsample(channels, layers)
            levels.insert(0, level)
        self.up = nn.ModuleList(levels)
        self.norm_out = layers.group_norm(channels, eps=EPS)
        self.conv_out = layers.conv2d(channels, config.image_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """``[n, z_channels, h, w]`` -> ``[n, image_channels, H, W]``."""
        hidden = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            hidden = level(hidden)
        return self.conv_out(nn.functional.silu(self.norm_out(hidden), inplace=True))


class Autoencoder(nn.Module):
    """Encoder and decoder. Latents are in the autoencoder's own scale; the caller applies ``scale_factor``."""

    def __init__(self, config: AutoencoderConfig, layers: LayerFactory | None = None) -> None:
        super().__init__()
        layers = layers or LayerFactory()
        self.config = config
        self.encoder = Encoder(config, layers)
        self.decoder = Decoder(config, layers)
        self.quant_conv = layers.conv2d(2 * config.z_channels, 2 * config.embed_dim, 1)
        self.post_quant_conv = layers.conv2d(config.embed_dim, config.z_channels, 1)

    #: Whether :meth:`decode_video` decodes with features of reference images; decoders that do override it.
    takes_references = False

    def encode(self, frames: Tensor) -> Tensor:
        """Images ``[N, 3, H, W]`` in [-1, 1] -> mean and log variance ``[N, 2 * embed_dim, h, w]``, one after the other."""
        return self.quant_conv(self.encoder(frames))

    def decode(self, z: Tensor) -> Tensor:
        """Latents ``[N, embed_dim, h, w]`` -> images ``[N, 3, H, W]`` around [-1, 1], not clamped."""
        return self.decoder(self.post_quant_conv(z))

    def reference_features(self, images: Tensor) -> list[Tensor]:
        """The encoder's features of reference images ``[B, 3, K, H, W]``, each ``[B, c, K, h, w]``; see :meth:`Encoder.features`."""
        found = self.encoder.features(rearrange(images, "b c k h w -> (b k) c h w"))
        return [rearrange(each, "(b k) c h w -> b c k h w", k=images.shape[2]) for each in found]

    def decode_video(self, z: Tensor, references: list[Tensor]) -> Tensor:
        """Latents ``[B, embed_dim, T, h, w]`` and reference features -> frames ``[B, 3, T, H, W]`` around [-1, 1], not clamped."""
        raise NotImplementedError(f"{type(self).__name__} decodes frames without references.")
