"""Identifies the model in a file, and its sizes, by the file's tensors.

Sizes are read off names and shapes, and the schedule off ``scale_arr`` and ``alphas_cumprod`` if the file has them. Other values
(the heads of the text tower, the authors' settings) come from the published configuration of the same form, or from the caller's.
If several published models have the same tensors, such as DynamiCrafter's at 512 and 1024 and for interpolation, the file's name
decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from ..checkpoint.convert import CONFIG_KEY
from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint
from ..config import ConfigLike, ModelConfig, from_yaml, load_config, published
from ..diffusion.schedule import Schedule
from ..errors import ConfigError
from .parts import PARTS
from .sizes import BLOCK, UNET_FLAGS, PartShapes

#: The form of a UNet, which its size is no part of. A file is matched with the published models of the same form.
FORM = ("in_channels", "out_channels", "relative_position", *UNET_FLAGS)
#: A last alpha below this counts as 0: a schedule that ends without signal.
ZERO_SIGNAL = 1e-6
#: The start of a tensor's name in some UNets, and in ours.
RENAMED = {"framestride_embed.": "fps_embedding."}
#: A tensor of the temporal transformer that every UNet of the family has in its middle.
TEMPORAL = f"middle_block.2.{BLOCK}.attn1.to_q.weight"


#: The values of a configuration that were read off the tensors, by part.
Found = dict[str, dict[str, Any]]


def part_prefixes(checkpoint: Checkpoint) -> dict[str, str]:
    """The parts in a file, and the prefix of their tensors' names.

    Community files can contain the UNet alone, sometimes without any prefix.

    Raises:
        CheckpointError: the file has no UNet of the family.
    """
    names = checkpoint.names()
    parts = {name: part.prefix for name, part in PARTS.items() if any(each.startswith(part.prefix) for each in names)}
    if "unet" not in parts and "input_blocks.0.0.weight" in checkpoint:
        parts["unet"] = ""
    if "unet" not in parts:
        shown = ", ".join(names[:3])
        raise CheckpointError(
            f"{checkpoint.path} holds no UNet of the VideoCrafter family: no name starts with 'model.diffusion_model.'. "
            f"Its {len(names)} tensors start with {shown}."
        )
    if parts["unet"] + TEMPORAL not in checkpoint:
        raise CheckpointError(
            f"{checkpoint.path} holds a UNet without temporal transformers ({TEMPORAL!r}): an image model such as Stable Diffusion, "
            "or a video model of another family. Models of the VideoCrafter family are needed here."
        )
    if parts["unet"] + UNET_FLAGS["image_attention"] not in checkpoint:
        return {name: prefix for name, prefix in parts.items() if not PARTS[name].for_images}
    return parts


def with_our_names(checkpoint: Checkpoint) -> Checkpoint:
    """The same file with our networks' names for tensors that a published model names differently."""
    names = {}
    for name in checkpoint.names():
        stem = name.removeprefix(PARTS["unet"].prefix)
        for theirs, ours in RENAMED.items():
            if stem.startswith(theirs):
                names[name] = name[: len(name) - len(stem)] + ours + stem[len(theirs) :]
    return checkpoint.renamed(names) if names else checkpoint


def identify(checkpoint: Checkpoint, config: ConfigLike | None = None) -> ModelConfig:
    """The configuration of the model in a file.

    Args:
        config: values that can't be read off the tensors. It must not contradict them.

    Raises:
        CheckpointError: no model of the family, or a configuration that contradicts the tensors.
    """
    parts = part_prefixes(checkpoint)
    found: Found = {part: PARTS[part].sizes(PartShapes(checkpoint, prefix)) for part, prefix in parts.items()}
    for name in ("alphas_cumprod", "scale_arr"):
        if name in checkpoint:
            PartShapes(checkpoint, "").sizes(name, 1)
    if "alphas_cumprod" in checkpoint:
        alphas = checkpoint.tensor("alphas_cumprod")
        found["schedule"] = {"timesteps": len(alphas), "zero_terminal_snr": bool(alphas[-1] < ZERO_SIGNAL)}

    stated = checkpoint.metadata.get(CONFIG_KEY)
    try:
        base = from_yaml(stated) if stated else _base(checkpoint, found, config)
        values = _complete(found, base, checkpoint, parts)
        values.setdefault("schedule", {}).update(read_scale(checkpoint, base))
        result = load_config(values, base=base)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.path} describes an impossible model: {error}") from error
    if config is not None:
        result = load_config(config, base=result)
    _agree(checkpoint, found, result)
    return result


def read_scale(checkpoint: Checkpoint, base: ModelConfig) -> dict[str, Any]:
    """The sample scale of a file, if its table differs from that of ``base``.

    Some published tables are longer than the schedule; the rest was never used.
    """
    if "scale_arr" not in checkpoint:
        return {}
    scale = checkpoint.tensor("scale_arr").double()
    if base.schedule.scale_end is not None and _same_table(scale, Schedule.from_config(base.schedule).scale):
        return {}
    return {"scale_end": round(float(scale[-1]), 6), "scale_steps": int((scale > scale[-1]).sum()) + 1}


def _same_table(stored: torch.Tensor, ours: torch.Tensor) -> bool:
    """Whether a file's table equals ours, up to the precision that it was stored in."""
    length = min(len(stored), len(ours))
    return torch.allclose(stored[:length].float(), ours[:length], rtol=1e-2, atol=1e-4)


def _base(checkpoint: Checkpoint, found: Found, config: ConfigLike | None) -> ModelConfig:
    """The source of values that can't be read off the tensors: the published configuration of the same form, or else the caller's.

    It is renamed if the file's sizes are different.
    """
    form = _form(found["unet"])
    candidates = [each for each in map(load_config, published()) if _form(asdict(each.unet)) == form]
    if not candidates and config is not None:
        own = load_config(config)
        candidates = [own] if _form(asdict(own.unet)) == form else []
    if not candidates:
        described = ", ".join(f"{key} {value}" for key, value in form.items())
        raise CheckpointError(
            f"{checkpoint.path} is of the family, but of a form that is not supported ({described}). "
            f"Supported are {', '.join(published())}; another one needs a complete configuration (config=)."
        )
    fitting = [each for each in candidates if not any(_differences(found, asdict(each)))]
    chosen = _tell_apart(checkpoint, fitting or candidates, _name_of(config))
    return chosen if fitting else replace(chosen, name="custom", title=f"A model of the form of {chosen.name}")


def _name_of(config: ConfigLike | None) -> str | None:
    """The name in a caller's configuration."""
    if isinstance(config, ModelConfig):
        return config.name
    if isinstance(config, Mapping):
        return config.get("name")
    return None if config is None else str(config)


def _tell_apart(checkpoint: Checkpoint, candidates: list[ModelConfig], name: str | None) -> ModelConfig:
    """One of several published models with the same tensors: by the caller's name, the schedule, or the file's name."""
    named = [config for config in candidates if config.name == name]
    candidates = _with_same_schedule(checkpoint, candidates) or candidates
    if named or len(candidates) == 1:
        return (named or candidates)[0]
    best, told_apart = _by_file_name(checkpoint.path.stem.lower(), candidates)
    if told_apart or len({config.schedule.scale_end for config in candidates}) == 1:  # then only their use differs
        return best
    names = ", ".join(config.name for config in candidates)
    raise CheckpointError(
        f"{checkpoint.path} could be any of {names}: their tensors are the same, and neither a schedule in the file (scale_arr) nor "
        "its name tells which. Choose one by config= (in ComfyUI: the loader's model), or put its name into the file's name."
    )


def _by_file_name(stem: str, candidates: list[ModelConfig]) -> tuple[ModelConfig, bool]:
    """The model whose words match the file's name best, and whether no other matches as well."""
    words = {config.name: set(config.name.split("_")[1:-1]) for config in candidates}  # dynamicrafter_512_interp_v1: 512, interp
    scores = {name: sum(1 if word in stem else -1 for word in each) for name, each in words.items()}
    best = [config for config in candidates if scores[config.name] == max(scores.values())]
    return best[0], len(best) == 1 and any(word in stem for word in words[best[0].name])


def _with_same_schedule(checkpoint: Checkpoint, candidates: list[ModelConfig]) -> list[ModelConfig]:
    """The candidates that have the file's schedule; all of them if the file has none."""
    schedules = [Schedule.from_config(config.schedule) for config in candidates]
    if "scale_arr" in checkpoint:
        table, ours = checkpoint.tensor("scale_arr"), [schedule.scale for schedule in schedules]
    elif "alphas_cumprod" in checkpoint:
        table, ours = checkpoint.tensor("alphas_cumprod"), [schedule.alphas_cumprod for schedule in schedules]
    else:
        return candidates
    return [config for config, each in zip(candidates, ours, strict=True) if _same_table(table, each)]


def _form(unet: dict[str, Any]) -> dict[str, Any]:
    return {key: unet[key] for key in FORM if key in unet} | {"relative_position": unet["max_relative_position"] > 0}


def _complete(found: Found, base: ModelConfig, checkpoint: Checkpoint, parts: dict[str, str]) -> dict[str, Any]:
    """The values read off the tensors, completed by the best guess for numbers of heads and for the sizes of missing parts."""
    completed = {part: dict(values) for part, values in found.items()}
    context = completed["unet"]["context_dim"]
    text = completed.setdefault("text_encoder", {"width": context})
    if text["width"] != base.text_encoder.width:
        text["heads"] = _heads(text["width"], 64)
    if base.projector:
        projector = completed.setdefault("projector", {"context_dim": context})
        if "projector" in parts:
            inner = PartShapes(checkpoint, parts["projector"]).sizes("layers.0.0.to_q.weight", 2)[0]
            if inner != base.projector.heads * base.projector.head_channels:
                projector["heads"] = _heads(inner, 64)
                projector["head_channels"] = inner // projector["heads"]
    if base.image_encoder:
        width = completed["projector"].get("feature_dim", base.image_encoder.width) if base.projector else base.image_encoder.width
        image = completed.setdefault("image_encoder", {"width": width})
        if image["width"] != base.image_encoder.width:
            image["heads"] = _heads(image["width"], 80)
    return completed


def _heads(width: int, usual: int) -> int:
    """Number of heads of the usual width, which is ViT-H's; 2 if that doesn't divide the width, as in tiny towers."""
    return width // usual if width % usual == 0 else 2


def _agree(checkpoint: Checkpoint, found: Found, config: ModelConfig) -> None:
    wrong = list(_differences(found, asdict(config)))
    if wrong:
        raise CheckpointError(f"The configuration contradicts {checkpoint.path}: " + "; ".join(wrong) + ". Leave these values out of it.")
    schedule = Schedule.from_config(config.schedule)
    for name, ours in (("alphas_cumprod", schedule.alphas_cumprod), ("scale_arr", schedule.scale)):
        if name in checkpoint and not _same_table(checkpoint.tensor(name), ours):
            raise CheckpointError(
                f"{checkpoint.path} was trained with another noise schedule than its configuration ({config.name}) says: its {name} "
                f"ends at {checkpoint.tensor(name)[-1]:.6f}, the configuration's at {ours[-1]:.6f}."
            )


def _differences(found: Found, config: dict[str, Any]) -> Iterable[str]:
    for part, values in found.items():
        for key, value in values.items():
            if config[part][key] != value:
                yield f"{part}.{key} is {value} by the tensors and {config[part][key]} by the configuration"
