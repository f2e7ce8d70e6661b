"""Trains the autoencoder (Kingma and Welling, arXiv:1312.6114; Rombach et al., arXiv:2112.10752) on single frames.

The loss is the usual one (absolute and squared error, with more weight on the small shape, and a small KL divergence of the
latents) plus an anchor loss: the four channels of a latent are trained towards the mean colour and the standard deviation of its
8x8 pixels. At these widths a group norm has two channels, and an autoencoder without anchors needs most of its training to find
latents that carry colour through the norms. Anchored latents are also nearly linear in the image, which is easy for the
diffusion model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vc_core.models.autoencoder import Autoencoder
from vc_core.training.trainer import Pass

from .settings import AutoencoderTraining, DecoderTraining
from .world import COLOURS, SHAPES, World, render


def anchors(images: Tensor, factor: int) -> Tensor:
    """The latents' targets, `[N, 3, H, W]` to `[N, 4, H/factor, W/factor]`: mean colour and standard deviation of each cell."""
    mean = F.avg_pool2d(images, factor)
    variance = F.avg_pool2d(images**2, factor) - mean**2
    return torch.cat([2 * mean, 2 * variance.clamp(min=0).sqrt().mean(1, keepdim=True)], 1)


def random_frames(world: World, batch: int, generator: torch.Generator) -> Tensor:
    """Images `[N, 3, H, W]` of random colours, shapes and positions."""
    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (batch,), generator=generator)

    low, high = world.margin, world.size - world.margin + 1
    return render(world, draw(0, len(COLOURS)), draw(0, len(SHAPES)), draw(low, high), draw(low, high))


def quieten(autoencoder: Autoencoder) -> None:
    """Start with little noise on the latents, since they are small at first."""
    with torch.no_grad():
        noise = autoencoder.quant_conv.out_channels // 2
        autoencoder.quant_conv.weight[noise:] *= 0.1
        autoencoder.quant_conv.bias[noise:] = -7.0


def reconstruction_loss(decoded: Tensor, images: Tensor, foreground_weight: float) -> tuple[Tensor, float]:
    """Absolute and squared error, with more weight on the shape; and, for the log, the mean absolute error on the shape."""
    error = decoded - images
    foreground = ((images - images[:, :, :1, :1]).abs().amax(1, keepdim=True) > 0.02).float()
    weight = 1 + foreground_weight * foreground
    shape_error = (error.detach().abs() * foreground).sum() / foreground.sum() / 3
    return (weight * (error.abs() + error**2)).mean(), float(shape_error)


class AutoencoderLoss:
    """The loss of one pass of `vc_core.training.trainer.Trainer`."""

    def __init__(self, autoencoder: Autoencoder, world: World, settings: AutoencoderTraining) -> None:
        self.autoencoder, self.world, self.settings = autoencoder, world, settings

    def __call__(self, network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        settings = self.settings
        images = random_frames(self.world, settings.trainer.batch, run.generator)
        mean, log_variance = self.autoencoder.encode(images).chunk(2, dim=1)  # [N, 4, h, w] each
        log_variance = log_variance.clamp(-30.0, 20.0)
        targets = anchors(images, images.shape[-1] // mean.shape[-1])
        anchored = run.update < settings.anchored_until * settings.trainer.updates
        noise = torch.randn(mean.shape, generator=run.generator)
        latent = (targets if anchored else mean) + (0.5 * log_variance).exp() * noise
        reconstruction, shape_error = reconstruction_loss(self.autoencoder.decode(latent), images, settings.foreground_weight)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        anchor = F.mse_loss(mean, targets)
        loss = reconstruction + settings.kl_weight * divergence + settings.anchor_weight * anchor
        return loss, {"shape": shape_error, "anchor": float(anchor.detach())}


class DecoderLoss:
    """The loss of the decoder alone, with a frozen encoder. A little noise is added to the latents, as sampled ones have errors."""

    def __init__(self, autoencoder: Autoencoder, world: World, settings: DecoderTraining, scale_factor: float) -> None:
        self.autoencoder, self.world, self.settings, self.scale_factor = autoencoder, world, settings, scale_factor

    def __call__(self, network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        images = random_frames(self.world, self.settings.trainer.batch, run.generator)
        with torch.no_grad():
            mean = self.autoencoder.encode(images).chunk(2, dim=1)[0]
        noise = self.settings.latent_noise / self.scale_factor * torch.randn(mean.shape, generator=run.generator)
        loss, shape_error = reconstruction_loss(self.autoencoder.decode(mean + noise), images, self.settings.foreground_weight)
        return loss, {"shape": shape_error}


@torch.no_grad()
def normalise(autoencoder: Autoencoder, world: World, scale_factor: float, generator: torch.Generator) -> None:
    """Normalize the latents: each channel, times `scale_factor`, gets mean 0 and standard deviation 1.

    The last layer of the encoder and the first of the decoder are changed so that decoded images are the same as before.
    """
    means = torch.cat([autoencoder.encode(random_frames(world, 64, generator)).chunk(2, 1)[0] for _ in range(8)])
    channels = means.shape[1]
    shift, scale = means.mean((0, 2, 3)), means.std((0, 2, 3)) * scale_factor  # new = (old - shift) / scale
    last, first = autoencoder.quant_conv, autoencoder.post_quant_conv
    last.weight[:channels] /= scale[:, None, None, None]
    last.bias[:channels] = (last.bias[:channels] - shift) / scale
    last.bias[channels:] -= 2 * scale.log()
    first.bias += (first.weight[:, :, 0, 0] * shift).sum(1)
    first.weight *= scale[None, :, None, None]
