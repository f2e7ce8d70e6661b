"""Trains the UNet on clips of the closed world, whose latents are looked up instead of encoded."""

from __future__ import annotations

from dataclasses import replace
from threading import Lock
from typing import Callable

import torch
from torch import Tensor

from ..models.autoencoder import Autoencoder
from ..models.text_encoder import TextEncoder, tokenize
from ..models.unet import UNet
from .loss import Batch, DiffusionLoss
from .settings import DiffusionTraining, Phase
from .world import COLOURS, SHAPES, World, render, sample


class LatentTable:
    """The latents of all frames of the world, each encoded when it is first asked for.

    A frame is a colour, a shape and a whole-pixel place, so there are `6 * 3 * span^2` of them.
    """

    def __init__(self, autoencoder: Autoencoder, world: World, scale_factor: float) -> None:
        self.autoencoder, self.world, self.scale_factor = autoencoder, world, scale_factor
        self.latents = torch.empty(0)
        self.lock = Lock()
        self.known = torch.zeros(len(COLOURS) * len(SHAPES) * world.span**2, dtype=torch.bool)

    def __call__(self, colour: Tensor, shape: Tensor, places: Tensor) -> Tensor:
        """`colour, shape [B]`, `places [B, T, 2]` to latents `[B, C, T, h, w]` in the diffusion's scale."""
        span, margin = self.world.span, self.world.margin
        kind = (colour * len(SHAPES) + shape)[:, None]
        index = (kind * span + places[..., 0] - margin) * span + places[..., 1] - margin  # [B, T]
        with self.lock:
            missing = index.unique()
            missing = missing[~self.known[missing]]
            if len(missing):
                self._encode(missing)
        return self.latents[index].float().transpose(1, 2)

    @torch.no_grad()
    def _encode(self, index: Tensor) -> None:
        span, margin = self.world.span, self.world.margin
        kind, x, y = index // span**2, index // span % span + margin, index % span + margin
        pictures = render(self.world, kind // len(SHAPES), kind % len(SHAPES), x, y)
        mean = torch.cat([self.autoencoder.encode(part).chunk(2, 1)[0] for part in pictures.split(64)]) * self.scale_factor
        if not self.latents.numel():
            self.latents = torch.zeros(len(self.known), *mean.shape[1:], dtype=torch.float16)
        self.latents[index] = mean.half()
        self.known[index] = True


class TextTable:
    """Encoded sentences by their words."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self.known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> Tensor:
        """`[B, n, context]`."""
        missing = sorted(set(prompts) - set(self.known))
        if missing:
            self.known.update(zip(missing, self.encoder(tokenize(missing))))
        return torch.stack([self.known[prompt] for prompt in prompts])


def phase_of(settings: DiffusionTraining, update: int) -> Phase:
    """The phase of update number `update` (from 0)."""
    return next((phase for phase in settings.phases if update < phase.until * settings.trainer.updates), Phase())


class DenoiserLoss:
    """The loss of one update of `vc_core.training.trainer.Trainer`."""

    def __init__(
        self, unet: Callable[..., Tensor], loss: DiffusionLoss, latents: LatentTable, text: TextTable, world: World, settings: DiffusionTraining
    ) -> None:
        self.unet, self.loss, self.latents, self.text, self.world, self.settings = unet, loss, latents, text, world, settings

    def __call__(self, generator: torch.Generator, update: int) -> tuple[Tensor, dict[str, float]]:
        phase = phase_of(self.settings, update)
        changes = {name: getattr(phase, name) for name in ("frames", "fps_min", "fps_max") if getattr(phase, name)}
        clips = sample(replace(self.world, **changes), phase.batch or self.settings.trainer.batch, generator)
        batch = Batch(
            latents=self.latents(clips.colour, clips.shape, clips.places),
            text=self.text(clips.prompts), empty_text=self.text([""]), fps=clips.fps.float(),
        )
        return self.loss(self.unet, batch, generator, phase.timestep_power), {}


@torch.no_grad()
def open_noise_path(unet: UNet) -> None:
    """Start the UNet as one that returns its input: nearly the right prediction of noise where there is much of it.

    The first convolution puts each latent channel and its negative side by side in one norm group, so that the group's mean
    is 0 and nothing is lost in the last norm; the last skip carries them; the last convolution takes silu(x) - silu(-x) = x.
    Narrow networks take long to find this, as each of their norms, over few channels, forgets a frame's mean.
    """
    first, last, skip = unet.input_blocks[0][0], unet.out[-1], unet.output_blocks[-1][0].skip_connection
    width = first.out_channels
    for channel in range(unet.config.out_channels):
        for index, sign in ((2 * channel, 1.0), (2 * channel + 1, -1.0)):
            first.weight[index], first.bias[index] = 0.0, 0.0
            first.weight[index, channel, 1, 1] = sign
            skip.weight[index], skip.bias[index] = 0.0, 0.0
            skip.weight[index, skip.in_channels - width + index] = 1.0
            last.weight[channel, index, 1, 1] = sign


@torch.no_grad()
def open_clock(unet: UNet, strength: float = 0.3) -> None:
    """Start with a signal that tells a clip's first frames from its last.

    Nothing in the network knows the time of a frame but the zeros beyond the clip's ends, on which convolutions over time
    end. Forwards and backwards differ only by that, so that the direction of a movement is what is learned last. Here the
    stages of a temporal convolution carry, in one pair of channels, a constant's difference at the two ends (+ at the
    first frames, - at the last), spread it by one frame each, and add it to the last two channels of what passes.
    """
    for block in (unet.input_blocks[1][0], unet.middle_block[0], unet.middle_block[-1]):
        stages = [block.temopral_conv.conv1, block.temopral_conv.conv2, block.temopral_conv.conv3, block.temopral_conv.conv4]
        channels = stages[0][-1].out_channels
        plus, minus = channels - 2, channels - 1
        norm, convolution = stages[0][0], stages[0][-1]
        norm.weight[minus], norm.bias[minus] = 0.0, 1.2785  # silu(1.2785) = 1
        convolution.weight[:, minus] = 0.0
        for row, sign in ((plus, 1.0), (minus, -1.0)):
            convolution.weight[row], convolution.bias[row] = 0.0, 0.0
            convolution.weight[row, minus, 0], convolution.weight[row, minus, 2] = -sign, sign
        for stage in stages[1:]:
            norm, convolution = stage[0], stage[-1]
            norm.weight[plus:], norm.bias[plus:] = 1.0, 0.0
            convolution.weight[:, plus:] = 0.0
            for row, sign in ((plus, 1.0), (minus, -1.0)):
                if stage is not stages[-1]:
                    convolution.weight[row], convolution.bias[row] = 0.0, 0.0
                factor = sign * (strength if stage is stages[-1] else 1.0)
                convolution.weight[row, plus], convolution.weight[row, minus] = factor, -factor
