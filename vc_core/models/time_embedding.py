"""The embedding of a pass's timestep, and of the numbers that condition it: fps, and in distilled models the scales of guidance.

A distilled model reads the scale of guidance as an input and needs no negative pass (Meng et al., arXiv:2210.03142, section 3.1).
T2V-Turbo (arXiv:2405.18750) adds a projection of it to the timestep's sinusoid; T2V-Turbo v2 (arXiv:2410.05677) joins it with one of
the scale of motion guidance. Module names are those of the published files.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from .conditioning import Conditioning
from .layers import LayerFactory

#: Width of the embedding of a scale of guidance.
SCALE_WIDTH = 256


def sinusoidal_embedding(values: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of ``values`` ``[n]`` at ``width / 2`` frequencies from 1 down to 1/10000 -> ``[n, width]`` in float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=values.device))
    angles = values.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def scale_embedding(scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sines, then cosines, of 1000 times the ``scales`` ``[n]`` at 128 frequencies from 1 down to exactly 1/10000 -> ``[n, 256]``.

    Args:
        dtype: what all of it is computed in. Angles are up to thousands, so that its rounding shows: the models were trained with it.
    """
    half = SCALE_WIDTH // 2
    step = torch.log(torch.tensor(10000.0)) / (half - 1)
    # In float64 exp is the same on all processors; in float32 libraries differ in the last bit, which is up to 1e-3 of the result.
    frequencies = (torch.arange(half, dtype=dtype) * -step).double().exp().to(dtype).to(scales.device)
    angles = (1000 * scales).to(dtype)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """Base class of the UNet: the layers that embed time and its conditions, which the published files name at the UNet's top level."""

    def __init__(self, config: UNetConfig, layers: LayerFactory) -> None:
        super().__init__()
        self.config = config
        width = config.model_channels
        self.time_embed = self._embedding(layers)
        if config.fps_embedding:
            self.fps_embedding = self._embedding(layers)
        if config.guidance_embedding:
            self.time_cond_proj = layers.linear(SCALE_WIDTH, width, bias=False)
        if config.motion_embedding:
            self.motion_cond_proj = layers.linear(SCALE_WIDTH, width, bias=False)
            self.combine_proj = layers.linear(2 * width, width, bias=False)

    def _embedding(self, layers: LayerFactory) -> nn.Sequential:
        width, inner = self.config.model_channels, self.config.embedding_width
        return nn.Sequential(layers.linear(width, inner), nn.SiLU(), layers.linear(inner, inner))

    def embed(self, x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """``[b, e]``, or ``[(b t), e]`` for a timestep per frame.

        Args:
            x: the noisy latents, whose type is the embedding's.
            timesteps: ``[b]`` or ``[b, t]``.
        """
        width, rows = self.config.model_channels, timesteps.numel()
        embedding = sinusoidal_embedding(timesteps.flatten(), width).to(x.dtype)
        if conditioning.time is not None:
            embedding = embedding + _to_rows(conditioning.time, rows).to(x)
        if self.config.guidance_embedding and conditioning.guidance is not None:
            embedding = embedding + self._guidance(conditioning, timesteps.flatten(), x.dtype)
        embedding = self.time_embed(embedding)
        if self.config.fps_embedding:
            fps = conditioning.fps
            if fps is None:
                fps = torch.full((1,), self.config.default_fps, device=x.device)
            embedding = embedding + _to_rows(self.fps_embedding(sinusoidal_embedding(fps, width).to(x.dtype)), rows)
        return embedding

    def _guidance(self, conditioning: Conditioning, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """What the scales of guidance add to the timestep's sinusoid, ``[rows, width]``; ``timesteps`` is ``[rows]``."""
        rows = len(timesteps)
        assert conditioning.guidance is not None
        guidance = _to_rows(self.time_cond_proj(scale_embedding(conditioning.guidance.float()).to(dtype)), rows)
        if not self.config.motion_embedding or conditioning.motion is None:
            return guidance
        scale = _to_rows(conditioning.motion.float(), rows)
        if conditioning.motion_stop is not None:
            scale = scale * (timesteps >= _to_rows(conditioning.motion_stop, rows))
        motion = self.motion_cond_proj(scale_embedding(scale, dtype))
        return self.combine_proj(torch.cat([guidance, motion], dim=-1))


def _to_rows(values: Tensor, rows: int) -> Tensor:
    """``[b, ...]`` -> ``[rows, ...]``, each row repeated for its frames."""
    return values.repeat_interleave(rows // len(values), dim=0)
