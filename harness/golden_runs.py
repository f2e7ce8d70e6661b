"""What the core computes from recorded inputs. Every call of the core's that the comparisons need is here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from harness.goldens import Recording, fps
from vc_core.diffusion.samplers import DDIMTables
from vc_core.models.image_encoder import prepare_pictures
from vc_core.pipeline import VideoModel


@dataclass(frozen=True)
class Settings:
    """``{run}.settings``."""

    steps: int
    eta: float
    guidance_scale: float
    fps: float
    spacing: str = "uniform"
    guidance_rescale: float = 0.0
    image_guidance_scale: float | None = None

    @classmethod
    def read(cls, recorded: Recording, run: str) -> Settings:
        steps, eta, guidance, rate, *more = recorded.read("sampling")[f"{run}.settings"].tolist()
        if not more:
            return cls(int(steps), eta, guidance, rate)
        trailing, rescale, image_guidance = more
        return cls(int(steps), eta, guidance, rate, "uniform_trailing" if trailing else "uniform", rescale, image_guidance or None)

@dataclass(frozen=True)
class Run:
    """What a sampling run gave: each step's prediction of the clean latent as the reference has it, the last latent, the frames."""

    predictions: list[Tensor]
    latent: Tensor
    video: Tensor

def tables(model: VideoModel, steps: int, spacing: str, eta: float) -> DDIMTables:
    """DDIM's tables of a model."""
    return DDIMTables.make(model.schedule, model.schedule.spaced(steps, spacing), eta)

@torch.inference_mode()
def run_unet(model: VideoModel, recorded: Recording, case: str) -> Tensor:
    """The UNet on the inputs of a case, ``[B, C, T, h, w]``."""
    golden = recorded.read("unet")
    text, image = split_context(model, golden[f"{case}.context"])
    return model.unet(golden[f"{case}.x"], golden[f"{case}.timesteps"], text, image_tokens=image, fps=fps(golden, case))

def split_context(model: VideoModel, context: Tensor) -> tuple[Tensor, Tensor | None]:
    """A recorded context ``[B, n + m, width]`` as text tokens ``[B, n, width]`` and image tokens ``[B, m, width]``, if any."""
    length = model.config.text_encoder.context_length
    return context[:, :length], context[:, length:] if context.shape[1] > length else None

@torch.inference_mode()
def encode_moments(model: VideoModel, images: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior's mean and log variance of images ``[B, 3, H, W]``, each ``[B, C, h, w]``, not scaled."""
    mean, log_variance = model.networks["autoencoder"].encode(images).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)  # the reference's bounds

@torch.inference_mode()
def encode_latent(model: VideoModel, images: Tensor) -> Tensor:
    """Images ``[B, 3, H, W]`` -> latents ``[B, C, h, w]`` as the UNet sees them."""
    return model.encode(images[:, :, None])[:, :, 0]

@torch.inference_mode()
def decode(model: VideoModel, z: Tensor) -> Tensor:
    """Latents ``[B, C, h, w]`` as the autoencoder has them -> images ``[B, 3, H, W]``, not clamped."""
    decoded: Tensor = model.networks["autoencoder"].decode(z)
    return decoded

def clip_pixels(model: VideoModel, images: Tensor) -> Tensor:
    """Images ``[B, 3, H, W]`` as CLIP takes them, ``[B, 3, size, size]``."""
    return prepare_pictures(images, model.networks["image_encoder"].config.image_size)

@torch.inference_mode()
def image_features(model: VideoModel, images: Tensor) -> Tensor:
    """All tokens of CLIP's image tower, ``[B, n, width]``."""
    features: Tensor = model.networks["image_encoder"](clip_pixels(model, images))
    return features

def keyframe_latents(model: VideoModel, recorded: Recording, run: str) -> Tensor:
    """What the core puts into the UNet's input channels beside the noisy latent for the run's first image, ``[B, C, T, h, w]``."""
    videos, _, frames, height, width = recorded.read("sampling")[f"{run}.concat"].shape
    factor = model.config.downscale
    return model.keyframe_latents(photos(recorded, videos), None, frames, height * factor, width * factor)

def photos(recorded: Recording, videos: int) -> Tensor:
    """The image that every recorded run starts from, for each of its videos, ``[B, 3, H, W]``."""
    return recorded.read("encoders")["photo"][:1].expand(videos, -1, -1, -1)

def run_sampling(model: VideoModel, recorded: Recording, run: str) -> Run:
    """The run from its recorded noise, and from its recorded keyframe latents where it has them."""
    golden, settings = recorded.read("sampling"), Settings.read(recorded, run)
    x_T = golden[f"{run}.x_T"]
    videos = len(x_T)
    prompt, *_, negative = recorded.prompts
    predictions: list[Tensor] = []
    latents: list[Tensor] = []

    def watch(step: int, total: int, x0: Tensor, x: Tensor) -> None:
        predictions.append(x0)
        latents.append(x)

    common: dict[str, Any] = {
        "steps": settings.steps,
        "eta": settings.eta,
        "guidance_scale": settings.guidance_scale,
        "guidance_rescale": settings.guidance_rescale,
        "fps": settings.fps,
        "spacing": settings.spacing,
        "x_T": x_T,
        "step_noise": golden[f"{run}.noise"],
        "callback": watch,
    }
    prompts, negatives = [prompt] * videos, [negative] * videos
    if not model.config.unet.image_attention:
        video = model.text_to_video(prompts, negatives, **common)
        return Run(predictions, latents[-1], video)
    concat = golden.get(f"{run}.concat")
    # The last image of some runs was recorded as its latent only, so the latents are set where the core would encode the images.
    with patch.object(model, "keyframe_latents", lambda *_: concat):
        video = model.image_to_video(
            photos(recorded, videos), prompts, negatives, image_guidance_scale=settings.image_guidance_scale, **common
        )
    if model.config.schedule.dynamic_rescale:
        # The reference's prediction is of the scaled latent of the timestep that the step goes to.
        scale = tables(model, settings.steps, settings.spacing, settings.eta).scale_prev.flip(0)
        predictions = [prediction * each for prediction, each in zip(predictions, scale, strict=True)]
    return Run(predictions, latents[-1], video)
