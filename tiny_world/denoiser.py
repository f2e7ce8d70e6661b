"""Trains the UNet on clips of the closed world, whose latents are looked up in a table instead of encoded.

The UNet of an image-to-video model is trained together with its projector, on the frozen image tower's features of a clip's first
frame. Whatever the precision of the passes is, latents, texts and features are computed in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Lock

import torch
from torch import Tensor, nn

from vc_core.config import UNetConfig
from vc_core.errors import InputError
from vc_core.models.autoencoder import Autoencoder
from vc_core.models.conditioning import Conditioning, place_keyframes
from vc_core.models.image_encoder import ImageEncoder, prepare_images
from vc_core.models.text_encoder import TextEncoder, tokenize
from vc_core.models.unet import UNet
from vc_core.training.loss import Batch, DiffusionLoss
from vc_core.training.trainer import Pass

from .settings import DiffusionTraining, Phase
from .silhouettes import silhouettes
from .world import COLOURS, MOTIONS, ONWARDS, SHAPES, Clips, World, render, sample


class LatentTable:
    """The latents of all frames of the world, each encoded when it is first asked for.

    A frame is a colour, a shape and a position in whole pixels, so there are `6 * 3 * span^2` of them.
    """

    def __init__(self, autoencoder: Autoencoder, world: World, scale_factor: float) -> None:
        self.autoencoder, self.world, self.scale_factor = autoencoder, world, scale_factor
        self.latents = torch.empty(0)
        self.lock = Lock()
        self.known = torch.zeros(len(COLOURS) * len(SHAPES) * world.span**2, dtype=torch.bool)

    def __call__(self, colour: Tensor, shape: Tensor, positions: Tensor) -> Tensor:
        """`colour, shape [B]`, `positions [B, T, 2]` to latents `[B, C, T, h, w]` in the diffusion's scale."""
        span, margin = self.world.span, self.world.margin
        kind = (colour * len(SHAPES) + shape)[:, None]
        index = (kind * span + positions[..., 0] - margin) * span + positions[..., 1] - margin  # [B, T]
        with self.lock:
            missing = index.unique()
            missing = missing[~self.known[missing]]
            if len(missing):
                self._encode(missing)
        return self.latents[index].float().transpose(1, 2)

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)
    def _encode(self, index: Tensor) -> None:
        span, margin = self.world.span, self.world.margin
        kind, x, y = index // span**2, index // span % span + margin, index % span + margin
        images = render(self.world, kind // len(SHAPES), kind % len(SHAPES), x, y)
        mean = torch.cat([self.autoencoder.encode(part).chunk(2, 1)[0] for part in images.split(64)]) * self.scale_factor
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
    @torch.autocast("cpu", enabled=False)
    def __call__(self, prompts: list[str]) -> Tensor:
        """`[B, n, context]`."""
        missing = sorted(set(prompts) - set(self.known))
        if missing:
            self.known.update(zip(missing, self.encoder(tokenize(missing)), strict=True))
        return torch.stack([self.known[prompt] for prompt in prompts])


class FirstFrames:
    """The image tower's features of a clip's first frame."""

    def __init__(self, encoder: ImageEncoder, world: World) -> None:
        self.encoder, self.world = encoder, world
        self.empty = self.features(torch.zeros(1, 3, world.size, world.size))

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)
    def features(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` in [-1, 1] to `[B, n, width]`."""
        return self.encoder(prepare_images(images, self.encoder.config.image_size))

    def __call__(self, clips: Clips) -> Tensor:
        """`[B, n, width]`."""
        first = clips.positions[:, 0]
        return self.features(render(self.world, clips.colour, clips.shape, first[:, 0], first[:, 1]))


def keyframe_latents(latents: Tensor, motion: Tensor) -> Tensor:
    """The concat latents of clips, `[B, C, T, h, w]`: of the first frame for clips with the motion ONWARDS, else of first and last."""
    first, last, frames = latents[:, :, :1], latents[:, :, -1:], latents.shape[2]
    onwards = (motion == MOTIONS.index(ONWARDS))[:, None, None, None, None]
    return torch.where(onwards, place_keyframes(first, None, frames), place_keyframes(first, last, frames))


#: Makes the concat latents `[B, C, T, h, w]` of clips, from them, their latents, and the generator of the pass.
Concat = Callable[[Clips, Tensor, torch.Generator], Tensor]


def concat_of(config: UNetConfig, world: World) -> Concat | None:
    """What the concat channels of a model hold: silhouettes or keyframes; None where it has none."""
    if config.takes_depth:
        return lambda clips, latents, generator: silhouettes(world, clips, latents.shape[-1], generator)
    return (lambda clips, latents, _generator: keyframe_latents(latents, clips.motion)) if config.concat_channels else None


def phase_of(settings: DiffusionTraining, update: int) -> Phase:
    """The phase of update number `update` (from 0). Phases that end at the same update take turns."""
    ends = [phase.until for phase in settings.phases if update < phase.until * settings.trainer.updates]
    phases = [phase for phase in settings.phases if phase.until == ends[0]] if ends else [Phase()]
    return phases[update % len(phases)]


class DenoiserLoss:
    """The loss of one pass of `vc_core.training.trainer.Trainer`."""

    def __init__(
        self, loss: DiffusionLoss, latents: LatentTable, text: TextTable, world: World,
        settings: DiffusionTraining, images: FirstFrames | None = None, concat: Concat | None = None,
    ) -> None:
        self.loss, self.latents, self.text, self.world, self.settings = loss, latents, text, world, settings
        self.images, self.concat = images, concat

    def __call__(self, network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        phase = phase_of(self.settings, run.update)
        changes = {name: getattr(phase, name) for name in ("frames", "fps_min", "fps_max", "spread") if getattr(phase, name)}
        clips = sample(replace(self.world, **changes), phase.batch or self.settings.trainer.batch, run.generator)
        latents = self.latents(clips.colour, clips.shape, clips.positions)
        conditioning = Conditioning(
            self.text(clips.prompts),
            image_tokens=self.images(clips) if self.images else None,
            fps=clips.fps.float(),
            concat=self.concat(clips, latents, run.generator) if self.concat else None,
        )
        empty = Conditioning(self.text([""]), image_tokens=self.images.empty if self.images else None)
        batch = Batch(latents, conditioning, empty)
        return self.loss(network, batch, run.generator, phase.timestep_power, phase.weight_limit), {}


@torch.no_grad()
def init_from(unet: UNet, weights: Mapping[str, Tensor]) -> None:
    """Start from another UNet's weights. New input channels start without effect, other new weights are unchanged.

    Raises:
        ValueError: a weight of another shape: the UNets have different sizes.
    """
    for name, parameter in unet.state_dict().items():
        weight = weights.get(name)
        if weight is None:
            continue
        if name == "input_blocks.0.0.weight" and weight.shape[1] < parameter.shape[1]:
            parameter.zero_()
            parameter[:, : weight.shape[1]] = weight
        elif weight.shape != parameter.shape:
            raise InputError(f"{name} is {list(weight.shape)} in the model to start from, and {list(parameter.shape)} in the one to train.")
        else:
            parameter.copy_(weight)


@torch.no_grad()
def init_identity(unet: UNet) -> None:
    """Start with a UNet that returns its input, which is nearly the right prediction at high noise.

    The first convolution copies each latent channel and its negative into one norm group, so that the group's mean is 0 and the
    last norm loses nothing; the last skip carries them to the last convolution, which computes silu(x) - silu(-x) = x. Narrow
    networks need long to learn this, since their norms, over few channels, remove a frame's mean.
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
    """Start with a signal that distinguishes a clip's first frames from its last.

    The network has no other information on a frame's time than the zero padding of temporal convolutions, which alone
    distinguishes forwards from backwards; so the direction of a motion is learned last. Here the first stage of a temporal
    convolution detects the two ends of a clip in a pair of channels (+ at the first frames, - at the last), the other stages
    spread the signal by one frame each, and the last stage adds it to the last two channels of the hidden state.
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
    """Start with a signal of each position's coordinates at the coarsest level.

    As with time, the network has no other information on a position than the zero padding at the image's edges, and the image
    tokens' information on positions is useless without it. Here the first convolution of the last residual block on the way down
    detects the four edges, in its last channels, and the second adds a slope in x and one in y, as far as two convolutions reach,
    to the last two channels of the hidden state.
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
                # A neighbour on this side cancels the constant; at the edge there is none.
                edges.weight[channel, constant, down, across] = -sign
                # silu(x) - silu(-x) = x
                spread.weight[slopes + axis, channel, 1, 1] = sign * end * strength * 0.75
                spread.weight[slopes + axis, channel, down, across] = sign * end * strength * 0.25
