"""CamI2V: attention to what other frames can see of a pixel, along its epipolar lines (Zheng et al., arXiv:2410.15957)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checkpoint.reading import Checkpoint
from ..config import ModelConfig
from ..models.hooks import PassInputs, Site
from ..models.layers import LayerFactory
from .cameractrl import RayAdapter, camera_places, own
from .control import Control, for_frames, for_videos
from .geometry import fundamental_matrices
from .places import key_of
from .pose_encoder import PIXELS, channels_of

__all__ = ["CamI2V", "build", "own"]

#: Tokens that every pixel sees.
REGISTERS = 4
#: Most numbers of a mask that are made at once.
MASK_AT_ONCE = 1 << 25
#: A model of at most so many pixels has masks at every level; larger ones have none at the latent's own size.
SMALL = 256 * 256


@dataclass(frozen=True)
class EpipolarMasks:
    """Which pixels of all frames are near the epipolar lines of which.

    Attributes:
        matrices: ``[n, from, to, 3, 3]``, see :func:`.geometry.fundamental_matrices`.
        levels: the UNet's levels with a mask.
    """

    matrices: Tensor
    levels: tuple[int, ...]

    def rows(self, level: int, height: int, width: int, start: int, stop: int) -> Tensor:
        """Which of all ``T height width`` tokens the tokens from ``start`` to ``stop`` see, ``[n, stop - start, T l]``."""
        size, pixels = PIXELS * 2**level, self._pixels(level, height, width)
        frames, each = self.matrices.shape[1], height * width
        found = []
        for frame in range(start // each, (stop - 1) // each + 1):
            queries = pixels[max(start - frame * each, 0) : min(stop - frame * each, each)]
            lines = torch.einsum("ntij,qj->nqti", self.matrices[:, frame], queries)
            distances = torch.einsum("nqti,ki->nqtk", lines, pixels).abs() / lines[..., :2].norm(dim=-1, keepdim=True)
            found.append((distances < size * 2**0.5 / 2).reshape(len(lines), len(queries), frames * each))
        return torch.cat(found, dim=1)

    def _pixels(self, level: int, height: int, width: int) -> Tensor:
        """The positions of a level's tokens in pixels of the video, ``[l, (x, y, 1)]``."""
        size = PIXELS * 2**level
        rows, columns = (size * torch.arange(n, dtype=torch.float64) + size / 2 - 0.5 for n in (height, width))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(0, 1).to(self.matrices.device)


class EpipolarAttention(nn.Module):
    """Attention of all tokens of a video to all, and to learned registers."""

    def __init__(self, width: int, head_channels: int, layers: LayerFactory) -> None:
        super().__init__()
        self.heads, self.attention = width // head_channels, layers.attention
        self.register_tokens = layers.parameter(1, REGISTERS, width)
        self.to_q = layers.linear(width, width, bias=False)
        self.to_k = layers.linear(width, width, bias=False)
        self.to_v = layers.linear(width, width, bias=False)
        self.to_out = nn.Sequential(layers.linear(width, width))

    def forward(self, x: Tensor, seen: Callable[[int, int], Tensor] | None) -> Tensor:
        """``[n, T l, width]`` -> the same shape.

        Args:
            seen: which tokens the tokens from one number to another see, ``[n, q, T l]``; None: all.
        """
        tokens = torch.cat([self.register_tokens.to(x).expand(len(x), -1, -1), x], dim=1)
        q, k, v = self.to_q(x), self.to_k(tokens), self.to_v(tokens)
        if seen is None:
            return self.to_out(self.attention(q, k, v, self.heads))
        count = x.shape[1]
        at_once = max(1, MASK_AT_ONCE // (len(x) * count))
        results = []
        for start in range(0, count, at_once):
            stop = min(start + at_once, count)
            bias = torch.zeros(len(x), 1, stop - start, count + REGISTERS, dtype=q.dtype, device=q.device)
            bias[:, 0, :, REGISTERS:].masked_fill_(~seen(start, stop), float("-inf"))
            results.append(self.attention(q[:, start:stop], k, v, self.heads, bias))
        return self.to_out(torch.cat(results, dim=1))


class CamI2V(RayAdapter):
    """CamI2V's layers beside a UNet."""

    title = "CamI2V"

    def __init__(self, config: ModelConfig, channels: list[int], layers: LayerFactory) -> None:
        super().__init__(config, channels, layers)
        places, heads = camera_places(config), config.unet.head_channels
        first = 0 if config.sampling.height * config.sampling.width <= SMALL else 1
        #: The levels with a mask; at others the attention sees all tokens.
        self.masked_levels = tuple(range(first, len(config.unet.channel_mult)))
        self.pluker_projection = nn.ModuleDict({each.key: layers.linear(each.width, each.width) for each in places})
        self.epipolar_attn = nn.ModuleDict({each.key: EpipolarAttention(each.width, heads, layers) for each in places})

    def attending(self, control: Control, inputs: PassInputs, rows: Tensor | None) -> EpipolarMasks:
        relative, intrinsics = self.geometry(control, inputs)
        drawn = control.tie_breakers.to(relative).expand(len(relative), -1, -1, -1)
        relative, intrinsics, drawn = (for_frames(each, inputs, 1, "camera poses") for each in (relative, intrinsics, drawn))
        matrices = fundamental_matrices(relative, intrinsics, for_frames(drawn, inputs, 2, "camera poses"))
        matrices = for_videos(matrices, len(inputs.roles), "camera paths")
        return EpipolarMasks(matrices if rows is None else matrices[rows], self.masked_levels)

    def joined(self, site: Site, attend: Callable[[Tensor], Tensor], normed: Tensor, features: Tensor, given: object) -> Tensor:
        assert isinstance(given, EpipolarMasks)
        key, level = key_of(site), self.levels[key_of(site)]
        both = normed + features

        def seen(start: int, stop: int) -> Tensor:
            return given.rows(level, site.height, site.width, start, stop)

        around = self.epipolar_attn[key](both.flatten(1, 2), seen if level in given.levels else None)
        return self.pluker_projection[key](both) + around.view_as(both) + attend(normed)


def build(config: ModelConfig, checkpoint: Checkpoint, layers: LayerFactory) -> CamI2V:
    """The adapter of a file whose tensors have our names."""
    return CamI2V(config, channels_of(checkpoint, "camera.pose_encoder."), layers)
