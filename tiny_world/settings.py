"""Settings of a run, as in `tiny_t2v.yaml` and the other YAML files in this folder, with types and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vc_core.config import ImageEncoderConfig
from vc_core.training.settings import LossSettings, TrainerSettings

from .world import World


@dataclass
class AutoencoderTraining:
    """See `tiny_world.vae`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    foreground_weight: float = 6.0
    kl_weight: float = 1e-6
    anchor_weight: float = 3.0
    anchored_until: float = 0.4  # fraction of the updates in which the decoder reads the anchors instead of latents


@dataclass
class DecoderTraining:
    """See `tiny_world.vae.DecoderLoss`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    foreground_weight: float = 6.0
    latent_noise: float = 0.1  # in the diffusion's scale, where latents have standard deviation 1


@dataclass
class ClipTraining:
    """See `tiny_world.clip`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    attribute_weight: float = 1.0
    images: int = 16  # per update, beside `batch` sentences
    #: The image tower; the model's own where it has one.
    image_encoder: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig(width=64, heads=4, layers=3, embed_dim=32, patch_size=28)
    )


@dataclass
class SightTraining:
    """See `tiny_world.sight`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)


@dataclass
class Phase:
    """Settings of a part of the UNet's training."""

    until: float = 1.0  # fraction of all updates at which the phase ends
    frames: int = 0  # these three are the world's where 0
    fps_min: int = 0
    fps_max: int = 0
    batch: int = 0  # the trainer's where 0
    weight_limit: float = 0.0  # the loss's where 0
    timestep_power: float = 1.0  # the density of timesteps is t^(power - 1): above 1, more of them are noisy


@dataclass
class DiffusionTraining:
    """See `tiny_world.denoiser`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    phases: list[Phase] = field(default_factory=list)  # in order; none is one phase of defaults


@dataclass
class TrainingSettings:
    """All settings of a run."""

    model: str = "tiny_t2v"
    start: str = ""  # a bundled model or a file that gives the autoencoder, the text tower and the UNet to start from
    world: World = field(default_factory=World)
    clip: ClipTraining = field(default_factory=ClipTraining)
    autoencoder: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    decoder: DecoderTraining = field(default_factory=DecoderTraining)
    sight: SightTraining = field(default_factory=SightTraining)  # of image-to-video models
    diffusion: DiffusionTraining = field(default_factory=DiffusionTraining)


DEFAULT = Path(__file__).parent / "tiny_t2v.yaml"


def load_settings(path: str | Path = DEFAULT) -> TrainingSettings:
    """Read the settings of a run.

    Raises:
        ValueError: there is no such file, or a key or a type that isn't known.
    """
    if not Path(path).is_file():
        raise ValueError(f"There are no training settings at {path}.")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(TrainingSettings), OmegaConf.load(path))
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ValueError(f"The training settings {path} are wrong at {error.full_key}: {str(error).splitlines()[0]}") from error
