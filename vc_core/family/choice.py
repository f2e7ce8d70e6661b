"""Which of the published models a file is, and whether that is the one that the caller names.

Several published models have the same tensors, such as DynamiCrafter's at 512 and 1024 and for interpolation: the schedule decides,
then the caller, then the file's name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint
from ..config import ConfigLike, ModelConfig, ScheduleConfig, bundled_configurations, load_config, published
from ..errors import printable
from .sizes import UNET_FLAGS
from .tables import has_schedule

#: The form of a UNet, which its size is no part of. A file is matched with the published models of the same form.
FORM = ("in_channels", "out_channels", "relative_position", *UNET_FLAGS)
#: The values of a configuration that were read off the tensors, by part.
Found = dict[str, dict[str, Any]]


@cache
def _published_models() -> tuple[ModelConfig, ...]:
    """Their configurations, which must not be changed."""
    return tuple(map(load_config, published()))


def named(config: ConfigLike | None) -> str | None:
    """The published or bundled model that a caller's configuration names, by itself or beside values."""
    name: object = None
    if isinstance(config, ModelConfig):
        name = config.name
    elif isinstance(config, Mapping):
        name = config.get("name")
    elif config is not None:
        name = str(config)
    return name if isinstance(name, str) and name in (*published(), *bundled_configurations()) else None


def check_name(checkpoint: Checkpoint, config: ConfigLike | None, base: ModelConfig) -> None:
    """Refuse a name of no known model, unless it is the label of a configuration with values of its own.

    Raises:
        CheckpointError: the message says what the file is, and the possible names.
    """
    if not isinstance(config, Mapping) or config.get("name") is None or named(config):
        return
    name = str(config["name"])
    misspelt = difflib.get_close_matches(name[:80], published(), n=1, cutoff=0.8)
    if name in (base.name, ModelConfig().name) or not misspelt and not set(config) <= {"name", "title"}:
        return
    raise CheckpointError(
        f"{checkpoint.path} is {base.title} ({base.name}); config= names {name!r:.80}, which is no published model. "
        f"Leave the name out, or choose one of {', '.join(published())}."
    )


def choose(checkpoint: Checkpoint, found: Found, config: ConfigLike | None) -> ModelConfig:
    """The source of values that can't be read off the tensors: the published configuration of the same form, or else the caller's.

    It is renamed if the file's sizes are different.

    Raises:
        CheckpointError: no published model is of this form, several are, or the caller names one that isn't.
    """
    name = named(config)
    candidates = _candidates(checkpoint, found, config)
    fitting = [each for each in candidates if not any(differences(found, asdict(each)))]
    of_size = fitting or [each for each in candidates if each.name in published()]
    possible = [each for each in of_size if has_schedule(checkpoint, each.schedule) is not False] or of_size
    if name is None:
        chosen = _tell_apart(checkpoint, possible)
    else:
        _check_choice(checkpoint, found, str(name), possible)
        chosen = next(each for each in possible if each.name == name)
    return chosen if fitting else replace(chosen, name="custom", title=f"A model of the form of {chosen.name}")


def _candidates(checkpoint: Checkpoint, found: Found, config: ConfigLike | None) -> list[ModelConfig]:
    """The published models of the file's form, and the one that the caller gives or names."""
    form = _form(found["unet"])
    candidates = [each for each in _published_models() if _form(asdict(each.unet)) == form]
    name = named(config)
    if not candidates and config is not None and name is None:
        own = load_config(config)
        candidates = [own] if _form(asdict(own.unet)) == form else []
    if not candidates:
        described = ", ".join(f"{key} {value}" for key, value in form.items())
        raise CheckpointError(
            f"{checkpoint.path} is of the family, but of a form that is not supported ({described}). "
            f"Supported are {', '.join(published())}; another one needs a complete configuration (config=)."
        )
    if name in bundled_configurations():
        candidates.append(load_config(str(name)))
    return candidates


def as_stated(checkpoint: Checkpoint, found: Found, stated: ModelConfig, config: ConfigLike | None) -> ModelConfig:
    """The configuration in a file's metadata, used as the model that the caller names, if there is one.

    Raises:
        CheckpointError: the caller's model has another form, other sizes or another schedule.
    """
    name = named(config)
    if name is None or name == stated.name:
        return stated
    model = load_config(name)
    possible = [stated]
    if _form(asdict(model.unet)) == _form(found["unet"]) and _trained_as(model.schedule, stated.schedule):
        possible.append(model)
    _check_choice(checkpoint, found, name, possible)
    unet = replace(stated.unet, default_fps=model.unet.default_fps)
    used = {name: getattr(model, name) for name in ("name", "title", "schedule", "keyframes", "sampling")}
    return replace(stated, unet=unet, **used)


def _trained_as(schedule: ScheduleConfig, other: ScheduleConfig) -> bool:
    """Whether two schedules differ at most in how a run's last step is made, which is a matter of use."""
    use = {"dynamic_rescale": False, "dynamic_rescale_by_image": False}
    return asdict(schedule) | use == asdict(other) | use


def _check_choice(checkpoint: Checkpoint, found: Found, name: str, possible: list[ModelConfig]) -> None:
    if name in [each.name for each in possible]:
        return
    model = load_config(name)
    theirs, ours = _form(found["unet"]), _form(asdict(model.unet))
    wrong = [f"{key} is {theirs[key]} in the file and {ours[key]} in {name}" for key in FORM if theirs[key] != ours[key]]
    if not any(any(differences(found, asdict(each))) for each in possible):  # otherwise the file has sizes of its own
        wrong = wrong or list(differences(found, asdict(model)))
    wrong = wrong or [f"{name} has another noise schedule"]
    alternatives = " or ".join(f"{each.title} ({each.name})" for each in possible)
    raise CheckpointError(
        f"{checkpoint.path} is {alternatives}, not {model.title} ({name}): {'; '.join(wrong[:5])}. Choose {alternatives}, "
        "or leave the choice out (config=; in ComfyUI: the loader's model, auto)."
    )


def _tell_apart(checkpoint: Checkpoint, candidates: list[ModelConfig]) -> ModelConfig:
    """One of several published models with the same tensors, by the file's name."""
    best, told_apart = _by_file_name(checkpoint.path.stem.lower(), candidates)
    if len(candidates) == 1 or told_apart or len({config.schedule.scale_end for config in candidates}) == 1:  # only their use differs
        return best
    names = ", ".join(config.name for config in candidates)
    raise CheckpointError(
        f"{checkpoint.path} could be any of {names}: their tensors are the same, and neither a schedule in the file (scale_arr) nor "
        "its name tells which. Choose one by config= (in ComfyUI: the loader's model), or put its name into the file's name."
    )


def _by_file_name(stem: str, candidates: list[ModelConfig]) -> tuple[ModelConfig, bool]:
    """The model whose words match the file's name best, and whether no other matches as well."""
    words = {config.name: _words(config.name) for config in candidates}
    scores = {name: sum(1 if _has_word(stem, word) else -1 for word in each) for name, each in words.items()}
    best = [config for config in candidates if scores[config.name] == max(scores.values())]
    return best[0], len(best) == 1 and any(_has_word(stem, word) for word in words[best[0].name])


def _words(name: str) -> set[str]:
    """What tells a model from others of its form: 512 and interp of dynamicrafter_512_interp_v1, viewcrafter, 25 of viewcrafter_25_v1."""
    family, *rest = name.split("_")[:-1]
    return {*rest, family} - {"dynamicrafter", "t2v", "i2v"}


def _has_word(stem: str, word: str) -> bool:
    """Whether a word is in a file's name; a number counts if it is not a part of another one, nor the bits of a data type."""
    pattern = rf"(?<!\d)(?<!fp)(?<!bf){word}(?!\d)" if word.isdigit() else re.escape(word)
    return re.search(pattern, stem) is not None


def _form(unet: Mapping[str, Any]) -> dict[str, Any]:
    return {key: bool(unet["max_relative_position"]) if key == "relative_position" else unet[key] for key in FORM}


def differences(found: Found, config: dict[str, Any]) -> Iterable[str]:
    """What a configuration says otherwise than the tensors."""
    for part, values in found.items():
        for key, value in values.items():
            own = config[part][key] if config[part] is not None else None
            if own != value:
                yield f"{part}.{key} is {printable(str(value), 60)} by the tensors and {printable(str(own), 60)} by the configuration"
