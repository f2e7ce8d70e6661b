"""What the core computes from recorded inputs. Every call of the core's that the comparisons need is here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from harness.goldens import Recording, fps
from vc_core.diffusion.noise import RecordedNoise
from vc_core.diffusion.samplers import Tables
from vc_core.models.conditioning import Conditioning
from vc_core.models.image_encoder import prepare_images
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

def tables(model: VideoModel, steps: int, spacing: str, eta: float) -> Tables:
    """DDIM's tables of a model."""
    return Tables.make(model.schedule, model.schedule.spaced(steps, spacing), eta)

@torch.inference_mode()
def run_unet(model: VideoModel, recorded: Recording, case: str) -> Tensor:
    """The UNet on the inputs of a case, ``[B, C, T, h, w]``."""
    golden = recorded.read("unet")
    where = {"device": model.device, "dtype": model.dtype}
    text, image = split_context(model, golden[f"{case}.context"].to(**where))
    rate = fps(golden, case)
    given = Conditioning(text, image, fps=None if rate is None else rate.to(model.device))
    return model.unet(golden[f"{case}.x"].to(**where), golden[f"{case}.timesteps"].to(model.device), given)

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
    return prepare_images(images, model.networks["image_encoder"].config.image_size)

@torch.inference_mode()
def image_features(model: VideoModel, images: Tensor) -> Tensor:
    """All tokens of CLIP's image tower, ``[B, n, width]``."""
    features: Tensor = model.networks["image_encoder"](clip_pixels(model, images))
    return features

def keyframe_latents(model: VideoModel, recorded: Recording, run: str) -> Tensor:
    """The core's concat latents for the run's first image, ``[B, C, T, h, w]``."""
    concat = conditionings(model, recorded, run)[0].concat
    assert concat is not None
    return concat


@torch.inference_mode()
def conditionings(model: VideoModel, recorded: Recording, run: str) -> tuple[Conditioning, Conditioning]:
    """The positive and the negative conditioning of a recorded run, made from its prompt and its image."""
    videos, _, frames, height, width = recorded.read("sampling")[f"{run}.x_T"].shape
    prompt, *_, negative = recorded.prompts
    if not model.config.unet.image_attention:
        return Conditioning(model.encode_text([prompt] * videos)), Conditioning(model.encode_text([negative] * videos))
    size = frames, height * model.config.downscale, width * model.config.downscale
    return model.image_conditioning(photos(recorded, videos), None, prompt, negative, size)


def photos(recorded: Recording, videos: int) -> Tensor:
    """The image that every recorded run starts from, for each of its videos, ``[B, 3, H, W]``."""
    return recorded.read("encoders")["photo"][:1].expand(videos, -1, -1, -1)

def run_sampling(model: VideoModel, recorded: Recording, run: str) -> Run:
    """The run from its recorded noise, and from its recorded concat latents where it has them."""
    golden, settings = recorded.read("sampling"), Settings.read(recorded, run)
    predictions: list[Tensor] = []
    both = conditionings(model, recorded, run)
    if f"{run}.concat" in golden:  # the last image of some runs was recorded as its latent only
        concat = golden[f"{run}.concat"].to(model.device)
        both = replace(both[0], concat=concat), replace(both[1], concat=concat)
    latent = model.sample(
        *both,
        noise=RecordedNoise(golden[f"{run}.x_T"], golden[f"{run}.noise"]),
        callback=lambda step, steps, x0, x: predictions.append(x0),
        **asdict(settings),
    )
    if model.config.schedule.dynamic_rescale:
        # The reference's prediction is of the scaled latent of the timestep that the step goes to.
        scale = tables(model, settings.steps, settings.spacing, settings.eta).scale_prev.flip(0)
        predictions = [prediction * each for prediction, each in zip(predictions, scale, strict=True)]
    return Run(predictions, latent, model.decode(latent))
