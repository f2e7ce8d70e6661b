"""Settings of a training run: what `tiny_t2v.yaml` and the like beside this file may say, with types and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..config import ImageEncoderConfig
from .world import World


@dataclass
class TrainerSettings:
    """How one network is trained; see `vc_core.training.trainer`."""

    updates: int = 1000
    batch: int = 8  # in one piece
    pieces: int = 1  # that are computed side by side and make up an update; give each one thread
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup: int = 50
    cooldown: float = 0.3  # the last part of the updates, over which the learning rate falls to zero
    clip_norm: float = 1.0
    ema: float = 0.0  # decay of the averaged weights at the end of its ramp; 0 keeps no average
    save_every: int = 100
    log_every: int = 20
    seed: int = 0


@dataclass
class AutoencoderTraining:
    """See `vc_core.training.vae`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    foreground_weight: float = 6.0
    kl_weight: float = 1e-6
    anchor_weight: float = 3.0
    anchored_until: float = 0.4  # part of the updates during which the decoder reads the anchors themselves


@dataclass
class DecoderTraining:
    """See `vc_core.training.vae.DecoderLoss`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    foreground_weight: float = 6.0
    latent_noise: float = 0.1  # in the diffusion's scale, where latents have deviation 1


@dataclass
class ClipTraining:
    """See `vc_core.training.clip`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    attribute_weight: float = 1.0
    pictures: int = 16  # to `batch` sentences in one update
    #: The image tower; the model's own where it has one.
    image_encoder: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig(width=64, heads=4, layers=3, embed_dim=32, patch_size=28)
    )


@dataclass
class SightTraining:
    """See `vc_core.training.sight`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)


@dataclass
class LossSettings:
    """See `vc_core.training.loss`."""

    prediction: str = "eps"  # or v
    prompt_dropout: float = 0.1  # of text and picture together
    text_dropout: float = 0.0  # of the text alone, for guidance by the picture
    weighting: str = "none"  # none, min_snr, or v: eps weighted as if the target were v
    weight_limit: float = 5.0  # gamma of min_snr; the largest weight of v


@dataclass
class Phase:
    """What the UNet sees during a part of its training."""

    until: float = 1.0  # part of all updates at which the phase ends
    frames: int = 0  # these three are the world's where 0
    fps_min: int = 0
    fps_max: int = 0
    batch: int = 0  # the trainer's where 0
    weight_limit: float = 0.0  # the loss's where 0
    timestep_power: float = 1.0  # the density of timesteps is t^(power - 1): above 1, more of them are noisy


@dataclass
class DiffusionTraining:
    """See `vc_core.training.denoiser`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    phases: list[Phase] = field(default_factory=list)  # in order; none is one phase of defaults


@dataclass
class TrainingSettings:
    """One whole run."""

    model: str = "tiny_t2v"
    start: str = ""  # a bundled model or a file that gives the autoencoder, the text tower and the UNet to start from
    world: World = field(default_factory=World)
    clip: ClipTraining = field(default_factory=ClipTraining)
    autoencoder: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    decoder: DecoderTraining = field(default_factory=DecoderTraining)
    sight: SightTraining = field(default_factory=SightTraining)  # of models that take a picture
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
