"""The settings of a fine-tuning run, as in the YAML file of ``vc-core train``, and the presets that they start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import plain_yaml
from ..batch.names import problem
from ..errors import ConfigError, InputError
from .clip_loss import CONDITIONS
from .clips import ClipSettings
from .settings import LossSettings, TrainerSettings, check_numbers


@dataclass
class LoraSettings:
    """A LoRA (Hu et al., arXiv:2106.09685), or DoRA (Liu et al., arXiv:2402.09353), by peft.

    Attributes:
        rank, alpha: the change of a weight is ``alpha / rank * up @ down``.
        dora: whether the weights' norms are trained apart.
        spatial, temporal: the transformers that it changes: those within frames, and those over time.
        feed_forward: whether it changes their feed-forwards, too, beside the projections of their attention.
        dropout: of the input of the LoRA, in training.
    """

    rank: int = 16
    alpha: float = 16.0
    dora: bool = False
    spatial: bool = True
    temporal: bool = True
    feed_forward: bool = True
    dropout: float = 0.0


@dataclass
class DropoutSettings:
    """How often conditioning is dropped in training, see :meth:`.loss.DiffusionLoss.dropped`; below 0: as in the published training.

    Attributes:
        text_dropout, prompt_dropout, image_dropout: probabilities of dropping the text alone, both, and the image alone. Published are
            0.05 of each and, for models without images, a prompt_dropout of 0.1.
        weighting, weight_limit: see :class:`.settings.LossSettings`.
    """

    text_dropout: float = -1.0
    prompt_dropout: float = -1.0
    image_dropout: float = -1.0
    weighting: str = "none"
    weight_limit: float = 5.0

    def settings(self, prediction: str, images: bool) -> LossSettings:
        """The settings of the loss of a model with this prediction, with or without images."""
        own = (0.05, 0.05, 0.05) if images else (0.0, 0.1, 0.0)
        given = (self.text_dropout, self.prompt_dropout, self.image_dropout)
        text, both, image = (published if value < 0 else value for value, published in zip(given, own, strict=True))
        return LossSettings(prediction, text, both, image, weighting=self.weighting, weight_limit=self.weight_limit)


@dataclass
class ValidationSettings:
    """Clips that are made every so many updates, with the same seed each time.

    Attributes:
        every: updates; 0: never.
        prompts: a clip is made of each.
        image: for models that start from an image.
        steps: sampling steps; 0: the model's own.
    """

    every: int = 0
    prompts: list[str] = field(default_factory=list)
    image: str = ""
    steps: int = 0
    seed: int = 0


@dataclass
class TrainingOptions:
    """All settings of a run.

    Attributes:
        model: a file, or a bundled model.
        data: see :mod:`.sources`.
        output: the folder for the state, the curves, validation clips and the result; a stopped run resumes from there.
        cache: the folder for what is computed of the clips once; ``cache`` in the output's folder if empty.
        name: of the result's file.
        preset: one of :data:`PRESETS`.
        train: ``lora``; ``unet``, which is the UNet and its projector; or ``projector``.
        condition: what the model's fps condition is told: ``fps`` or ``stride``; ``auto`` is the latter for DynamiCrafter 256.
        dropout: of activations, at the published places.
        checkpointing: activations are computed again for the gradients in place of stored: a third more time, far less memory.
        weights: data type of the weights that are not trained, ``float32`` or ``bfloat16``.
        device: a torch device; the fastest if empty.
    """

    model: str = ""
    data: str = ""
    output: str = ""
    cache: str = ""
    name: str = ""
    preset: str = "style"
    train: str = "lora"
    condition: str = "auto"
    dropout: float = 0.0
    checkpointing: bool = True
    weights: str = "float32"
    device: str = ""
    clips: ClipSettings = field(default_factory=ClipSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    trainer: TrainerSettings = field(
        default_factory=lambda: TrainerSettings(
            updates=1000, batch=1, accumulate=4, learning_rate=1e-4, betas=(0.9, 0.999), warmup=20, cooldown=0.1, save_every=100,
            log_every=10,
        )
    )
    loss: DropoutSettings = field(default_factory=DropoutSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)


#: The published training: all of UNet and projector at a constant rate (DynamiCrafter's configs/training_512_v1.0).
_PUBLISHED: dict[str, Any] = {
    "dropout": 0.1, "clips": {"images": False},
    "trainer": {"batch": 2, "accumulate": 2, "learning_rate": 1e-5, "warmup": 0, "cooldown": 0.0, "clip_norm": 0.5},
}
#: What each preset changes.
PRESETS: dict[str, dict[str, Any]] = {
    "style": {"lora": {"temporal": False}},
    "motion": {"lora": {"spatial": False}, "clips": {"images": False}},
    "subject": {"lora": {"feed_forward": False, "rank": 32, "alpha": 32.0}},
    "full": {"train": "unet", **_PUBLISHED},
    "projector": {"train": "projector", **_PUBLISHED},
}
TRAINED = ("lora", "unet", "projector")
WEIGHTS = ("float32", "bfloat16")
BOUNDS: dict[str, dict[str, tuple[float, float]]] = {
    "": {"dropout": (0, 0.9)},
    "lora": {"rank": (1, 4096), "alpha": (0, 1e6), "dropout": (0, 0.9)},
    "clips": {"frames": (0, 4096), "height": (0, 4096), "width": (0, 4096), "most_frames": (1, 1 << 20), "workers": (1, 256)},
    "clips.strides": {"stride_min": (1, 10_000), "stride_max": (1, 10_000), "fps": (0, 1000), "fps_max": (0, 1000)},
    "validation": {"every": (0, 10**9), "steps": (0, 1000), "seed": (0, 2**53)},
}


def read_options(path: Path | None, changes: Sequence[str] = ()) -> TrainingOptions:
    """Read the settings of a run: the preset's, then the file's, then the changes.

    Args:
        path: a YAML file, which is parsed as plain data.
        changes: ``name=value``, such as ``trainer.updates=500``.

    Raises:
        ConfigError: no such file, no YAML, or a key or a type that isn't known.
        InputError: a value that can't be, or a setting that is missing.
    """
    values: dict[str, Any] = {} if path is None else _read(path)
    try:
        given = OmegaConf.merge(OmegaConf.create(values), OmegaConf.from_dotlist([plain_change(each) for each in changes]))
        preset = str(OmegaConf.select(given, "preset", default=TrainingOptions.preset))
        if preset not in PRESETS:
            raise InputError(f"preset is {preset!r:.60}; it can be {', '.join(PRESETS)}.")
        merged = OmegaConf.merge(OmegaConf.structured(TrainingOptions), OmegaConf.create(PRESETS[preset]), given)
        options = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        where = getattr(error, "full_key", "") or "their top level"
        raise ConfigError(f"The training settings are wrong at {where:.100}: {str(error).splitlines()[0]:.300}") from None
    assert isinstance(options, TrainingOptions)
    check(options)
    return options


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"There are no training settings at {path}.")
    try:
        return plain_yaml.read_file(path)
    except ConfigError as error:
        raise ConfigError(f"The training settings {path} can't be read: {error}.") from None


def plain_change(change: str) -> str:
    """A change ``name=value`` of the command line, checked to hold no reference.

    Raises:
        InputError: it has no ``=``, or a reference.
    """
    name, sign, value = change.partition("=")
    if not sign or "${" in change:
        raise InputError(f"{change!r:.100} is no setting; give name=value, such as trainer.updates=500.")
    return f"{name.strip()}={value}"


def check(options: TrainingOptions) -> None:
    """
    Raises:
        InputError: a value that can't be, or one that is missing.
    """
    for name in ("model", "data", "output"):
        if not getattr(options, name):
            raise InputError(f"{name} is missing: give it in the settings, or as --{name}.")
    if options.name and (why := problem(options.name)):
        raise InputError(f"name is {options.name!r:.80}, which can't be a file's: {why}.")
    for name, bounds in BOUNDS.items():
        part: Any = options
        for each in filter(None, name.split(".")):
            part = getattr(part, each)
        check_numbers(part, bounds, f"{name}." if name else "")
    options.trainer.check("trainer.")
    options.loss.settings("v", images=True).check("loss.")
    for name, value, known in (
        ("train", options.train, TRAINED), ("weights", options.weights, WEIGHTS), ("condition", options.condition, ("auto", *CONDITIONS)),
    ):
        if value not in known:
            raise InputError(f"{name} is {value!r:.60}; it can be {', '.join(known)}.")
    strides = options.clips.strides
    if strides.stride_min > strides.stride_max:
        raise InputError(f"clips.strides.stride_min is {strides.stride_min}; it must be at most stride_max, which is {strides.stride_max}.")
    if options.train == "lora" and not (options.lora.spatial or options.lora.temporal):
        raise InputError("lora.spatial and lora.temporal are both false: nothing would be trained. Set one of them.")


def to_yaml(options: TrainingOptions) -> str:
    """The settings as YAML, with all defaults."""
    return OmegaConf.to_yaml(OmegaConf.structured(options))
