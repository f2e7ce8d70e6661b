"""Trains the UNet on clips of the closed world, whose latents are looked up instead of encoded.

A UNet that takes a picture is trained together with its projector, on the features that the image tower, which stays as it
is, has of a clip's first frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Lock

import torch
from torch import Tensor, nn

from vc_core.models.autoencoder import Autoencoder
from vc_core.models.conditioning import Conditioning, place_keyframes
from vc_core.models.image_encoder import ImageEncoder, prepare_images
from vc_core.models.projector import Projector
from vc_core.models.text_encoder import TextEncoder, tokenize
from vc_core.models.unet import UNet
from vc_core.training.loss import Batch, DiffusionLoss

from .settings import DiffusionTraining, Phase
from .world import COLOURS, MOTIONS, ONWARDS, SHAPES, Clips, World, render, sample


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
            self.known.update(zip(missing, self.encoder(tokenize(missing)), strict=True))
        return torch.stack([self.known[prompt] for prompt in prompts])


class ImageUNet(nn.Module):
    """A UNet with the projector that makes its image tokens from an image tower's features."""

    def __init__(self, unet: UNet, projector: Projector) -> None:
        super().__init__()
        self.unet, self.projector = unet, projector

    def forward(self, x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """As `vc_core.models.unet.UNet.forward`, with features `[B, n, width]` in place of image tokens."""
        return self.unet(x, timesteps, replace(conditioning, image_tokens=self.projector(conditioning.image_tokens)))


class FirstFrames:
    """What the image tower sees of a clip's first frame."""

    def __init__(self, encoder: ImageEncoder, world: World) -> None:
        self.encoder, self.world = encoder, world
        self.empty = self.features(torch.zeros(1, 3, world.size, world.size))

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """`[B, 3, H, W]` in [-1, 1] to `[B, n, width]`."""
        return self.encoder(prepare_images(pictures, self.encoder.config.image_size))

    def __call__(self, clips: Clips) -> Tensor:
        """`[B, n, width]`."""
        first = clips.places[:, 0]
        return self.features(render(self.world, clips.colour, clips.shape, first[:, 0], first[:, 1]))


def keyframe_latents(latents: Tensor, motion: Tensor) -> Tensor:
    """The concat latents of clips, `[B, C, T, h, w]`: their first frame where a clip goes on from it, else their first and last."""
    first, last, frames = latents[:, :, :1], latents[:, :, -1:], latents.shape[2]
    onwards = (motion == MOTIONS.index(ONWARDS))[:, None, None, None, None]
    return torch.where(onwards, place_keyframes(first, None, frames), place_keyframes(first, last, frames))


def phase_of(settings: DiffusionTraining, update: int) -> Phase:
    """The phase of update number `update` (from 0)."""
    return next((phase for phase in settings.phases if update < phase.until * settings.trainer.updates), Phase())


class DenoiserLoss:
    """The loss of one update of `vc_core.training.trainer.Trainer`."""

    def __init__(
        self, unet: Callable[..., Tensor], loss: DiffusionLoss, latents: LatentTable, text: TextTable, world: World,
        settings: DiffusionTraining, images: FirstFrames | None = None, concat: bool = False,
    ) -> None:
        self.unet, self.loss, self.latents, self.text, self.world, self.settings = unet, loss, latents, text, world, settings
        self.images, self.concat = images, concat

    def __call__(self, generator: torch.Generator, update: int) -> tuple[Tensor, dict[str, float]]:
        phase = phase_of(self.settings, update)
        changes = {name: getattr(phase, name) for name in ("frames", "fps_min", "fps_max") if getattr(phase, name)}
        clips = sample(replace(self.world, **changes), phase.batch or self.settings.trainer.batch, generator)
        latents = self.latents(clips.colour, clips.shape, clips.places)
        conditioning = Conditioning(
            self.text(clips.prompts),
            image_tokens=self.images(clips) if self.images else None,
            fps=clips.fps.float(),
            concat=keyframe_latents(latents, clips.motion) if self.concat else None,
        )
        empty = Conditioning(self.text([""]), image_tokens=self.images.empty if self.images else None)
        batch = Batch(latents, conditioning, empty)
        return self.loss(self.unet, batch, generator, phase.timestep_power, phase.weight_limit), {}


@torch.no_grad()
def init_from(unet: UNet, weights: Mapping[str, Tensor]) -> None:
    """Start from another UNet's weights: of what it lacks, input channels start without effect, attention to a picture as it is.

    Raises:
        ValueError: a weight of another shape, so that the two can't be of the same sizes.
    """
    for name, parameter in unet.state_dict().items():
        given = weights.get(name)
        if given is None:
            continue
        if name == "input_blocks.0.0.weight" and given.shape[1] < parameter.shape[1]:
            parameter.zero_()
            parameter[:, : given.shape[1]] = given
        elif given.shape != parameter.shape:
            raise ValueError(f"{name} is {list(given.shape)} in the model to start from, and {list(parameter.shape)} in the one to train.")
        else:
            parameter.copy_(given)


@torch.no_grad()
def init_identity(unet: UNet) -> None:
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
def init_time_signal(unet: UNet, strength: float = 0.3) -> None:
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


@torch.no_grad()
def init_position_signal(unet: UNet, strength: float = 1.0) -> None:
    """Start with a signal that tells each position of the coarsest level where it lies.

    As with time, nothing in the network knows a position but the zeros beyond the picture's edges; and what a picture's tokens
    say of a place is of no use to positions that don't know theirs. Here the last residual block on the way down finds the four
    edges with its first convolution, in the last channels, and adds to the last two channels of what passes a slope in x and
    one in y, as far as two convolutions reach.
    """
    block = unet.input_blocks[-1][0]
    norm, edges, spread = block.in_layers[0], block.in_layers[-1], block.out_layers[-1]
    between = block.out_layers[0]
    constant, first, slopes = edges.in_channels - 1, edges.out_channels - 8, spread.out_channels - 2
    norm.weight[constant], norm.bias[constant] = 0.0, 1.2785  # silu(1.2785) = 1
    edges.weight[:, constant] = 0.0
    block.emb_layers[-1].weight[first:], block.emb_layers[-1].bias[first:] = 0.0, 0.0
    between.weight[first:], between.bias[first:] = 1.0, 0.0
    spread.weight[:, first:] = 0.0
    for axis in (0, 1):  # y, x
        for end, beyond in ((-1.0, 0), (1.0, 2)):
            row = first + 4 * axis + 2 * (end > 0)  # a channel and its negative share a norm group, so that its mean is 0
            down, across = (beyond, 1) if axis == 0 else (1, beyond)
            for channel, sign in ((row, 1.0), (row + 1, -1.0)):
                edges.weight[channel], edges.bias[channel] = 0.0, sign * 0.5
                # A neighbour on this side takes the constant away; at the edge there is none.
                edges.weight[channel, constant, down, across] = -sign
                # silu(x) - silu(-x) = x
                spread.weight[slopes + axis, channel, 1, 1] = sign * end * strength * 0.75
                spread.weight[slopes + axis, channel, down, across] = sign * end * strength * 0.25
