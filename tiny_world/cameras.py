"""Clips of one shape that stands still while the camera moves, and MotionCtrl's camera module trained on them.

The shape is at a fixed distance before a camera whose path is made of MotionCtrl's presets: pans move the whole picture, zooms change its
size. As in MotionCtrl (arXiv:2312.03641, section 3.3) the poses' projections are trained together with layers over time, here with all of
them. Of the rest of the UNet, biases and norms are trained, which are small, and with which shapes of other sizes can be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vc_core.adapters.control import Control
from vc_core.adapters.motionctrl import MotionCtrl
from vc_core.adapters.places import temporal_places
from vc_core.config import ModelConfig
from vc_core.control.cameras import camera_path
from vc_core.media.shapes import COLOURS, SHAPES, draw_shapes
from vc_core.models.autoencoder import Autoencoder
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import PassInputs
from vc_core.models.layers import LayerFactory
from vc_core.models.temporal_conv import TemporalConvolution
from vc_core.models.transformers import TemporalTransformer
from vc_core.models.unet import UNet
from vc_core.training.loss import Batch, DiffusionLoss
from vc_core.training.trainer import Pass

from .denoiser import TextTable, phase_of
from .settings import DiffusionTraining
from .world import World

#: Pixels that the shape moves where the camera does by 1, and its distance from the camera.
FOCAL, DISTANCE = 13.0, 6.0
SIDEWAYS = ("pan left", "pan right", "pan up", "pan down")
ALONG = ("zoom in", "zoom out")
FPS = 8.0


@dataclass
class CameraClips:
    """Clips `[B]` of a shape: its middle `[B, T, 2]` (x, y) and radius `[B, T]` in pixels, and the camera's poses `[B, T, 3, 4]`."""

    colour: Tensor
    shape: Tensor
    middle: Tensor
    radius: Tensor
    poses: Tensor

    @property
    def prompts(self) -> list[str]:
        """What the clips show, without a direction."""
        pairs = zip(self.colour.tolist(), self.shape.tolist(), strict=True)
        return [f"a {list(COLOURS)[colour]} {SHAPES[shape]}" for colour, shape in pairs]


def seen(poses: Tensor, start: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """Where a point at `start [B, 2]` (pixels from the middle) is for a camera at `poses [B, T, 3, 4]`, and the shape's radius there."""
    way = poses[..., 3].float()
    nearer = DISTANCE / (DISTANCE + way[..., 2])
    middle = world.size / 2 + (start[:, None] + FOCAL * way[..., :2]) * nearer[..., None]
    return middle, world.radius * nearer


def sample_cameras(world: World, batch: int, generator: torch.Generator) -> CameraClips:
    """Draw clips. A quarter of the cameras stand still or both pan and zoom; the shape's path is near the picture's middle."""
    def integers(high: int) -> Tensor:
        return torch.randint(high, (batch,), generator=generator)

    colour, shape, kinds, sideways, along = integers(len(COLOURS)), integers(len(SHAPES)), integers(8), integers(4), integers(2)
    speeds = 0.4 + 0.8 * torch.rand(batch, generator=generator)
    moves = [
        "still" if kind == 0 else f"{SIDEWAYS[side]}, {ALONG[near]}" if kind == 1 else ALONG[near] if kind < 4 else SIDEWAYS[side]
        for kind, side, near in zip(kinds.tolist(), sideways.tolist(), along.tolist(), strict=True)
    ]
    poses = torch.stack([camera_path(each, world.frames, speed=speed).poses for each, speed in zip(moves, speeds.tolist(), strict=True)])
    start = world.spread * (2 * torch.rand(batch, 2, generator=generator) - 1) - FOCAL * poses[:, -1, :2, 3].float() / 2
    middle, radius = seen(poses, start, world)
    return CameraClips(colour, shape, middle, radius, poses)


def render_cameras(clips: CameraClips, world: World) -> Tensor:
    """`[B, T, 3, size, size]` in [-1, 1]."""
    batch, frames = clips.radius.shape
    kinds = (each.repeat_interleave(frames) for each in (clips.colour, clips.shape))
    images = draw_shapes(*kinds, *clips.middle.flatten(0, 1).unbind(1), size=world.size, radius=clips.radius.flatten())
    return images.unflatten(0, (batch, frames))


class CameraDenoiser(nn.Module):
    """A UNet with MotionCtrl's camera module, whose projections start without effect."""

    def __init__(self, config: ModelConfig, layers: LayerFactory | None = None) -> None:
        super().__init__()
        layers = layers or LayerFactory()
        self.unet, self.adapter = UNet(config.unet, layers), MotionCtrl(config, True, (), 1, layers)
        self.paths = {each.key: each.path for each in temporal_places(config.unet)}
        for projection in self.adapter.cc_projection.values():
            nn.init.eye_(projection.weight)  # type: ignore[arg-type]
            nn.init.zeros_(projection.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, timesteps: Tensor, conditioning: Conditioning, poses: Tensor) -> Tensor:
        """As :meth:`vc_core.models.unet.UNet.forward`, for cameras at ``poses [B, T, 3, 4]``."""
        inputs = PassInputs(("positive",) * len(x), x, timesteps, conditioning)
        return self.unet(x, timesteps, conditioning, self.adapter.controlled(Control(poses=poses))(inputs))

    def choose_trained(self) -> None:
        """Train the camera module, the layers over time, and biases and norms; keep the other weights."""
        for parameter in self.unet.parameters():
            parameter.requires_grad_(parameter.ndim == 1)
        for module in self.unet.modules():
            if isinstance(module, (TemporalTransformer, TemporalConvolution)):
                module.requires_grad_(True)

    def added(self) -> dict[str, Tensor]:
        """The camera module's tensors by their names in a file."""
        weights = self.adapter.state_dict()
        return {
            f"model.diffusion_model.{path}.cc_projection.{kind}": weights[f"cc_projection.{key}.{kind}"]
            for key, path in self.paths.items() for kind in ("weight", "bias")
        }


class CameraLoss:
    """The loss of one pass of `vc_core.training.trainer.Trainer`."""

    def __init__(
        self, loss: DiffusionLoss, autoencoder: Autoencoder, scale_factor: float, text: TextTable, world: World, settings: DiffusionTraining
    ) -> None:
        self.loss, self.autoencoder, self.scale_factor, self.text = loss, autoencoder, scale_factor, text
        self.world, self.settings = world, settings

    def __call__(self, network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        phase = phase_of(self.settings, run.update)
        world = replace(self.world, frames=phase.frames or self.world.frames)
        clips = sample_cameras(world, phase.batch or self.settings.trainer.batch, run.generator)
        images = render_cameras(clips, world)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            mean = self.autoencoder.encode(images.flatten(0, 1)).chunk(2, 1)[0] * self.scale_factor
        latents = mean.unflatten(0, images.shape[:2]).transpose(1, 2)
        batch = Batch(
            latents, Conditioning(self.text(clips.prompts), fps=torch.full([len(latents)], FPS)), Conditioning(self.text([""]))
        )

        def unet(x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
            return network(x, timesteps, conditioning, clips.poses)

        return self.loss(unet, batch, run.generator, phase.timestep_power, phase.weight_limit), {}
