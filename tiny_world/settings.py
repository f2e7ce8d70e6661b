"""Settings of a run, as in `tiny_t2v.yaml` and the other YAML files in this folder, with types and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vc_core import plain_yaml
from vc_core.config import ImageEncoderConfig
from vc_core.errors import ConfigError, InputError
from vc_core.training.settings import LossSettings, TrainerSettings, check_numbers

from .world import MOTIONS, World


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
class EmbeddingTraining:
    """See `tiny_world.clip.EmbeddingLoss`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)


@dataclass
class SightTraining:
    """See `tiny_world.sight`."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)


@dataclass
class Phase:
    """Settings of a part of the UNet's training."""

    until: float = 1.0  # fraction of all updates at which the phase ends; phases that end together take turns
    frames: int = 0  # these four are the world's where 0
    fps_min: int = 0
    fps_max: int = 0
    spread: int = 0
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
class Distillation:
    """See `tiny_world.distilling`. The scale of guidance is drawn evenly from its range."""

    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    guidance_min: float = 2.0
    guidance_max: float = 6.0
    huber: float = 0.03  # where the loss turns from the square of the error to its amount


@dataclass
class TrainingSettings:
    """All settings of a run."""

    model: str = "tiny_t2v"
    start: str = ""  # a bundled model or a file that gives the autoencoder, the text tower and the UNet to start from
    world: World = field(default_factory=World)
    clip: ClipTraining = field(default_factory=ClipTraining)
    embedding: EmbeddingTraining | None = None  # after clip: the image embedding alone, where the text tower is kept
    autoencoder: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    decoder: DecoderTraining = field(default_factory=DecoderTraining)
    sight: SightTraining = field(default_factory=SightTraining)  # of image-to-video models
    diffusion: DiffusionTraining = field(default_factory=DiffusionTraining)
    polish: DiffusionTraining | None = None  # after diffusion: further training of the UNet, with a rate of its own
    distillation: Distillation | None = None  # in place of diffusion, clip and sight: the model to start from in fewer steps
    camera: DiffusionTraining | None = None  # in place of diffusion, clip and sight: a camera module for the model to start from

    @property
    def changes_a_model(self) -> bool:
        """Whether the run changes the model that it starts from, whose text encoder it keeps."""
        return self.distillation is not None or self.camera is not None


DEFAULT = Path(__file__).parent / "tiny_t2v.yaml"


#: Lowest and highest values of numbers.
WORLD_BOUNDS = {
    "size": (8, 1024), "frames": (1, 1024), "radius": (1, 512), "speed": (0, 10_000), "fps_min": (1, 1000), "fps_max": (1, 1000),
    "spread": (0, 512),
}
PHASE_BOUNDS = {
    "until": (0, 1), "frames": (0, 1024), "fps_min": (0, 1000), "fps_max": (0, 1000), "spread": (0, 512), "batch": (0, 65536),
    "timestep_power": (0.01, 100),
}
STAGE_BOUNDS: dict[str, dict[str, tuple[float, float]]] = {
    "clip": {"attribute_weight": (0, 1e6), "images": (1, 65536)},
    "embedding": {},
    "autoencoder": {"foreground_weight": (0, 1e6), "kl_weight": (0, 1e6), "anchor_weight": (0, 1e6), "anchored_until": (0, 1)},
    "decoder": {"foreground_weight": (0, 1e6), "latent_noise": (0, 1e6)},
    "sight": {},
    "diffusion": {},
    "polish": {},
    "camera": {},
    "distillation": {"guidance_min": (0, 100), "guidance_max": (0, 100), "huber": (0, 100)},
}


def load_settings(path: str | Path = DEFAULT) -> TrainingSettings:
    """Read the settings of a run. The file is parsed as plain data: references in it are refused.

    Raises:
        ConfigError: there is no such file, it is no YAML, or a key or a type isn't known.
        InputError: a number is out of its bounds.
    """
    if not Path(path).is_file():
        raise ConfigError(f"There are no training settings at {path}.")
    try:
        values = plain_yaml.read_file(Path(path))
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainingSettings), OmegaConf.create(values)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"The training settings {path} are wrong at {error.full_key}: {str(error).splitlines()[0]}") from error
    except ConfigError as error:
        raise ConfigError(f"The training settings {path} can't be read: {error}.") from error
    assert isinstance(settings, TrainingSettings)
    _check(settings)
    return settings


def _check(settings: TrainingSettings) -> None:
    for name, bounds in STAGE_BOUNDS.items():
        stage = getattr(settings, name)
        if stage is None:
            continue
        stage.trainer.check(f"{name}.trainer.")
        check_numbers(stage, bounds, f"{name}.")
    for name, stage in (("diffusion", settings.diffusion), ("polish", settings.polish), ("camera", settings.camera)):
        if stage is not None:
            stage.loss.check(f"{name}.loss.")
            for index, phase in enumerate(stage.phases):
                check_numbers(phase, PHASE_BOUNDS, f"{name}.phases[{index}].")
    world = settings.world
    check_numbers(world, WORLD_BOUNDS, "world.")
    if world.fps_min > world.fps_max:
        raise InputError(f"world.fps_min is {world.fps_min}; it must be at most fps_max, which is {world.fps_max}.")
    if not world.motions or not set(world.motions) <= set(MOTIONS):
        raise InputError(f"world.motions are {', '.join(world.motions) or 'none'}; possible are {', '.join(MOTIONS)}.")
