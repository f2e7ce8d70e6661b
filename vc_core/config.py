"""The configuration of a model: its sizes, its noise schedule and its authors' sampling settings.

The published models are YAML files in ``configs/``; each lists only what differs from the defaults below, which are the sizes
that all of them share (VideoCrafter1, arXiv:2310.19512, section 3).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, List, Mapping, Optional, Union

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import plain_yaml
from .errors import ConfigError
from .limits import check_limits

CONFIGS = Path(__file__).parent / "configs"
PREDICTIONS = ("eps", "v")
SPACINGS = ("uniform", "uniform_trailing", "consistency")
SAMPLERS = ("ddim", "consistency")
#: Steps of the solver of T2V-Turbo's distillation, in its authors' demonstrations.
ORIGINAL_STEPS = 200
#: Which frames can have an image in a model's concat channels, see :class:`ModelConfig`.
KEYFRAMES = ("first", "ends", "frames")
#: Heads of the temporal transformer after the first convolution, whatever the network's width.
INIT_ATTENTION_HEADS = 8
#: What a name or a title in a file's metadata can be; another one is not shown.
PLAIN_LABEL = re.compile(r"[\w ,.()+-]{1,80}")
#: Most characters of a name or a title in a configuration that is given by the user.
LONGEST_LABEL = 200
#: Most characters of a configuration in a file's metadata; a longer one was not written by this package, whose have 2,000.
LONGEST_TEXT = 1 << 13


# omegaconf reads the field types at run time and knows typing's generics only.
@dataclass
class UNetConfig:
    """The 3D UNet. Channel widths are ``model_channels * channel_mult[level]``."""

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: List[int] = field(default_factory=lambda: [1, 2, 4, 4])
    num_res_blocks: int = 2
    #: Downsampling factors at which there is attention.
    attention_resolutions: List[int] = field(default_factory=lambda: [1, 2, 4])
    head_channels: int = 64
    transformer_depth: int = 1
    context_dim: int = 1024
    #: A temporal transformer directly after the first convolution.
    init_attention: bool = True
    #: Four (3, 1, 1) convolutions over time in each residual block.
    temporal_conv: bool = True
    #: In their place five convolutions, one of them within frames, whose first and last frame are repeated (Make-Your-Video).
    spatial_temporal_conv: bool = False
    #: In temporal attention a frame sees itself and those before it, so many in all (Make-Your-Video: 16); 0: it sees all frames.
    causal_frames: int = 0
    #: Temporal attention has a learned vector for each distance between frames up to this; 0: no relative positions.
    max_relative_position: int = 0
    #: An embedding of the frames per second (or the frame stride), added to that of the timestep.
    fps_embedding: bool = True
    #: The default value for that embedding.
    default_fps: int = 8
    #: A second pair of keys and values in cross-attention, for image tokens.
    image_attention: bool = False
    #: A learned gate on the image stream of each cross-attention (DynamiCrafter 256).
    image_gate: bool = False
    #: A projection of the scale of guidance, added to the timestep's sinusoid (T2V-Turbo).
    guidance_embedding: bool = False
    #: A projection of the scale of motion guidance, joined with that of guidance (T2V-Turbo v2).
    motion_embedding: bool = False
    #: Number of image tokens of each frame; 0: all frames read all tokens.
    image_tokens_per_frame: int = 0

    @property
    def concat_channels(self) -> int:
        """Input channels after those of the noisy latent, for latents that are concatenated to it."""
        return self.in_channels - self.out_channels

    @property
    def takes_depth(self) -> bool:
        """Whether the only input channel after those of the noisy latent is a map of each frame's depth (Make-Your-Video)."""
        return self.concat_channels == 1

    @property
    def embedding_width(self) -> int:
        """Channels of the timestep's embedding."""
        return 4 * self.model_channels

    @property
    def init_attention_width(self) -> int:
        """Channels inside the temporal transformer after the first convolution, which has 8 heads in every model."""
        return INIT_ATTENTION_HEADS * self.head_channels


@dataclass
class AutoencoderConfig:
    """Stable Diffusion's image autoencoder."""

    channels: int = 128
    channel_mult: List[int] = field(default_factory=lambda: [1, 2, 4, 4])
    num_res_blocks: int = 2
    z_channels: int = 4
    embed_dim: int = 4
    image_channels: int = 3
    #: Latents in the diffusion's scale are the encoder's times this.
    scale_factor: float = 0.18215


@dataclass
class TextEncoderConfig:
    """OpenCLIP's text tower; the defaults are those of ViT-H/14."""

    width: int = 1024
    heads: int = 16
    layers: int = 24
    embed_dim: int = 1024
    vocab_size: int = 49408
    context_length: int = 77


@dataclass
class ImageEncoderConfig:
    """OpenCLIP's image tower; the defaults are those of ViT-H/14."""

    width: int = 1280
    heads: int = 16
    layers: int = 32
    embed_dim: int = 1024
    patch_size: int = 14
    image_size: int = 224


@dataclass
class ProjectorConfig:
    """The resampler from the image tower's tokens to the UNet's."""

    width: int = 1024
    depth: int = 4
    heads: int = 12
    head_channels: int = 64
    queries: int = 16
    feature_dim: int = 1280
    context_dim: int = 1024
    ff_mult: int = 4


@dataclass
class ScheduleConfig:
    """The noise a model was trained with: Stable Diffusion's betas, and the sample scale."""

    timesteps: int = 1000
    linear_start: float = 0.00085
    linear_end: float = 0.012
    #: The sample scale falls from 1 to this over ``scale_steps`` timesteps; None: samples are not scaled.
    scale_end: Optional[float] = None
    scale_steps: int = 400
    #: Alphas are shifted and scaled so that nothing of the sample is left at the last timestep.
    zero_terminal_snr: bool = False
    #: Betas and alphas are computed in float32 rather than float64, as T2V-Turbo's are; they differ by up to 1e-6 of their size.
    single_precision: bool = False
    #: What the network predicts: the noise (``eps``), or ``v``.
    prediction: str = "eps"
    #: The last step of a run leaves the sample at its own scale rather than at that of the first timestep (DynamiCrafter).
    dynamic_rescale: bool = False
    #: The same, only in runs whose guidance by the image has a scale of its own (ViewCrafter).
    dynamic_rescale_by_image: bool = False


@dataclass
class SamplingConfig:
    """The authors' sampling settings, which are the model's defaults."""

    height: int = 320
    width: int = 512
    frames: int = 16
    steps: int = 50
    eta: float = 1.0
    guidance_scale: float = 12.0
    guidance_rescale: float = 0.0
    #: ``ddim``, or ``consistency`` for distilled models.
    sampler: str = "ddim"
    #: How the visited timesteps are spaced, one of :data:`SPACINGS`.
    spacing: str = "uniform"
    #: Of the spacing ``consistency``: steps of the solver that the model was distilled with.
    original_steps: int = ORIGINAL_STEPS
    #: The scale of guidance that a distilled model reads (``unet.guidance_embedding``).
    distilled_guidance: float = 7.5
    #: The scale of motion guidance that it can read (below 0: none), and the share of the timesteps from the noisiest on with it.
    motion_guidance: float = 0.05
    motion_share: float = 0.5
    #: Playback speed of a saved clip, in frames per second. The condition for the motion is ``unet.default_fps``.
    playback_fps: int = 8


@dataclass
class ModelConfig:
    """All sizes and settings of a model."""

    name: str = "custom"
    title: str = "VideoCrafter"
    unet: UNetConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    #: For image to video only.
    image_encoder: Optional[ImageEncoderConfig] = None
    projector: Optional[ProjectorConfig] = None
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    #: What the concat channels can hold: the latent of one image at every frame (``first``), those of two images, at the first and
    #: the last frame (``ends``), or the latent of an image of its own at every frame (``frames``). Empty for models without concat
    #: channels.
    keyframes: List[str] = field(default_factory=list)
    #: Depth maps are averaged as they shrink to the latent's size, in place of sampled at its positions.
    antialiased_depth: bool = False

    def image_problem(self, place: Optional[str]) -> str:
        """What is wrong with a video whose images are at this place, for callers to put into their own words.

        Args:
            place: one of :data:`KEYFRAMES`; None for a video without an image.

        Returns:
            ``no image taken``, ``no image given``, ``no end taken``, ``no end given``, ``no frames taken`` or ``no frames given``;
            empty where the model can make it.
        """
        if not self.unet.image_attention:
            return "no image taken" if place else ""
        if place is None:
            return "no image given"
        if place == "frames" and "frames" not in self.keyframes:
            return "no frames taken"
        if place != "frames" and self.keyframes == ["frames"]:
            return "no frames given"
        if place == "ends" and "ends" not in self.keyframes:
            return "no end taken"
        return "no end given" if place == "first" and self.keyframes == ["ends"] else ""

    @property
    def downscale(self) -> int:
        """Side of a latent's element in pixels."""
        return 2 ** (len(self.autoencoder.channel_mult) - 1)


ConfigLike = Union[str, Path, Mapping[str, Any], ModelConfig]


def published() -> list[str]:
    """Names of the published models' configurations, without those of the bundled models."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml") if not path.stem.startswith("tiny_"))


def bundled_configurations() -> list[str]:
    """Names of the bundled models' configurations."""
    return sorted(path.stem for path in CONFIGS.glob("tiny_*.yaml"))


def load_config(source: ConfigLike, base: Optional[ModelConfig] = None) -> ModelConfig:
    """Read a configuration and check it.

    Args:
        source: a published name (``t2v_512_v2``), a path of a YAML file, a mapping, or a configuration.
        base: values that ``source`` doesn't set; the family's defaults if not given.

    Raises:
        ConfigError: no such file, a key or a type that the schema doesn't have, or sizes that no model can have.
    """
    schema = OmegaConf.structured(base if base is not None else ModelConfig)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(schema, _read(source)))
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        place = getattr(error, "full_key", "") or "its top level"
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"The configuration {_describe(source)} is wrong at {place:.100}: {reason:.300}") from None
    assert isinstance(config, ModelConfig)
    _check(config)
    return config


def to_yaml(config: ModelConfig) -> str:
    """The complete configuration as YAML, as it is in the metadata of converted files."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(text: str) -> ModelConfig:
    """Read what :func:`to_yaml` wrote. A name or title that isn't plain text of at most 80 characters is left out.

    Raises:
        ConfigError: as :func:`load_config`.
    """
    if len(text) > LONGEST_TEXT:
        raise ConfigError(f"The configuration in the file's metadata has {len(text)} characters; up to {LONGEST_TEXT} are possible.")
    try:
        parsed = plain_yaml.read(text)
    except ConfigError as error:
        raise ConfigError(f"The configuration in the file's metadata is refused: {error}.") from None
    for label in ("name", "title"):  # they are shown in pages and terminals
        if label in parsed and not (isinstance(parsed[label], str) and PLAIN_LABEL.fullmatch(parsed[label])):
            del parsed[label]
    unet = parsed.get("unet")
    if isinstance(unet, dict) and "image_gain" in unet:  # the name that files converted by version 0.1 have
        unet["image_gate"] = unet.pop("image_gain")
    return load_config(parsed)


def read_config(source: Union[str, Path]) -> dict[str, Any]:
    """The values in a YAML file, or in the configuration of a published name, without the schema's defaults.

    Raises:
        ConfigError: no such file, or it can't be read.
    """
    bundled = CONFIGS / f"{source}.yaml"
    try:
        path = bundled if bundled.parent == CONFIGS and bundled.is_file() else Path(source)
        found = path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        found = False
    if not found:
        raise ConfigError(f"There is no configuration {str(source)!r:.200}: neither a YAML file nor one of {', '.join(published())}.")
    try:
        return plain_yaml.read_file(path)
    except ConfigError as error:
        raise ConfigError(f"{path} can't be read as a configuration: {error}.") from None


def _read(source: ConfigLike) -> Any:
    if isinstance(source, ModelConfig):
        return OmegaConf.structured(source)
    if isinstance(source, Mapping):
        return OmegaConf.create(plain_yaml.check_plain(_plain_mapping(source)))
    return OmegaConf.create(read_config(source))


def _plain_mapping(value: Any) -> Any:
    """Mappings of any class as dictionaries, such as OmegaConf's own."""
    return {name: _plain_mapping(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


def _describe(source: ConfigLike) -> str:
    return repr(str(source)) if isinstance(source, (str, Path)) else "given"


def _check(config: ModelConfig) -> None:
    check_limits(asdict(config))
    _check_labels(config)
    _check_choices(config)
    unet, latent_channels = config.unet, config.autoencoder.embed_dim
    if config.keyframes and unet.concat_channels != latent_channels:
        raise ConfigError(
            f"unet.in_channels is {unet.in_channels}; for a model with keyframes, which takes latents of images beside the noisy "
            f"latent, it must be {unet.out_channels + latent_channels}."
        )


def _check_labels(config: ModelConfig) -> None:
    for label, value in (("name", config.name), ("title", config.title)):
        if not value.isprintable() or len(value) > LONGEST_LABEL:
            raise ConfigError(f"{label} is {value!r:.100}; it can have up to {LONGEST_LABEL} characters, none of them control characters.")


def _check_choices(config: ModelConfig) -> None:
    schedule = config.schedule
    for name, value, known in (
        ("schedule.prediction", schedule.prediction, PREDICTIONS),
        ("sampling.sampler", config.sampling.sampler, SAMPLERS),
        ("sampling.spacing", config.sampling.spacing, SPACINGS),
        *(("keyframes", value, KEYFRAMES) for value in config.keyframes),
    ):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}; it can be {' or '.join(known)}.")
    if schedule.zero_terminal_snr and schedule.prediction == "eps":
        raise ConfigError("schedule: the last timestep has no signal (zero_terminal_snr), where only prediction v is defined.")
