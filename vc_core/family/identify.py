"""Identifies the model in a file, and its sizes, by the file's tensors.

Sizes are read off names and shapes, and the schedule off ``scale_arr`` and ``alphas_cumprod`` if the file has them. Other values
(the heads of the text tower, the authors' settings) come from the published configuration of the same form, or from the caller's.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoint.convert import CONFIG_KEY
from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint
from ..config import ConfigLike, ModelConfig, TextEncoderConfig, from_yaml, load_config, read_config
from ..errors import ConfigError, printable
from .choice import Found, as_stated, check_name, choose, differences, named
from .parts import PARTS
from .sizes import BLOCK, UNET_FLAGS, PartShapes
from .tables import check_schedule, read_scale, schedule_of

#: The start of a tensor's name in some UNets, and in ours.
RENAMED = {"framestride_embed.": "fps_embedding."}
#: The prefix of a UNet as ComfyUI saves it.
SHORT_PREFIX = "diffusion_model."
#: A tensor of the temporal transformer that every UNet of the family has in its middle.
TEMPORAL = f"middle_block.2.{BLOCK}.attn1.to_q.weight"
#: The first tensor of a UNet.
FIRST = "input_blocks.0.0.weight"
#: How the scales are called by which quantised weights must be multiplied. Those of scaled fp8 files are applied when they are read.
SCALES = re.compile(r"(^|\.)(scaled_fp8|scale_weight|weight_scale(_2)?|scale_input|input_scale|comfy_quant)$")
#: A LoRA's matrices.
LORA = re.compile(r"[._]lora(\.|_linear_layer\.|_(?=[AB]|up|down))(A|B|up|down)\b")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


def check_whole(checkpoint: Checkpoint) -> None:
    """
    Raises:
        CheckpointError: the file is one part of a model's, is a LoRA, or has quantised weights in a form that isn't read; the message
            says what to do.
    """
    if any(map(LORA.search, checkpoint.names())) and not any(name.endswith(FIRST) for name in checkpoint.names()):
        raise CheckpointError(
            f"{checkpoint.path} is a LoRA, not a model. Load the model that it is for, and the LoRA with the node VideoCrafter Load LoRA "
            "(--lora on the command line, loras= in Python)."
        )
    shard = SHARD.search(checkpoint.path.stem)
    if shard and int(shard[2]) > 1:
        raise CheckpointError(
            f"{checkpoint.path} is part {int(shard[1])} of the {int(shard[2])} parts (shards) of a model. Get the model as one file, or "
            "join them: read each with safetensors.torch.load_file, put all tensors into one dictionary, and write it with save_file."
        )
    scale = next((name for name in checkpoint.names() if SCALES.search(name)), None)
    if scale is not None:
        raise CheckpointError(
            f"{checkpoint.path} has quantised weights that are right only with their scales ({printable(scale, 120)}), in a form that is "
            "not supported; fp8 with one scale for each weight is. Get the model in fp16, bf16 or fp8."
        )


def part_prefixes(checkpoint: Checkpoint) -> dict[str, str]:
    """The parts in a file, and the prefix of their tensors' names.

    Community files can contain the UNet alone, sometimes without any prefix.

    Raises:
        CheckpointError: the file has no UNet of the family.
    """
    names = checkpoint.names()
    parts = {name: part.prefix for name, part in PARTS.items() if any(each.startswith(part.prefix) for each in names)}
    if "unet" not in parts and FIRST in checkpoint:
        parts["unet"] = ""
    if "unet" not in parts:
        shown = ", ".join(printable(name, 80) for name in names[:3])
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
    """The same file with our networks' names for tensors that a published model or a community file names differently."""
    names, prefix = {}, PARTS["unet"].prefix
    short = SHORT_PREFIX + FIRST in checkpoint and prefix + FIRST not in checkpoint
    for name in (*checkpoint.names(), *checkpoint.unreadable):
        start, stem = prefix, name.removeprefix(prefix)
        if short and name.startswith(SHORT_PREFIX):
            stem = name[len(SHORT_PREFIX) :]
        elif not name.startswith(prefix):
            start = ""
        for theirs, ours in RENAMED.items():
            if stem.startswith(theirs):
                stem = ours + stem[len(theirs) :]
        if start + stem != name:
            names[name] = start + stem
    return checkpoint.renamed(names) if names else checkpoint


def identify(checkpoint: Checkpoint, config: ConfigLike | None = None) -> ModelConfig:
    """The configuration of the model in a file.

    Args:
        config: values that can't be read off the tensors, or the name of a published model. It must not contradict the file.

    Raises:
        CheckpointError: no model of the family, a configuration that contradicts the file, or a name that is not a published model's.
        ConfigError: the configuration can't be read.
    """
    check_whole(checkpoint)
    parts = part_prefixes(checkpoint)
    found: Found = {part: PARTS[part].sizes(PartShapes(checkpoint, prefix)) for part, prefix in parts.items()}
    tables = schedule_of(checkpoint)
    if tables:
        found["schedule"] = tables
    if isinstance(config, (str, Path)):
        config = {"name": str(config)} if named(config) else read_config(config)

    text = checkpoint.metadata.get(CONFIG_KEY)
    try:
        stated = from_yaml(text) if text else None
        _count_last_layer(found, stated.text_encoder if stated else TextEncoderConfig())
        base = as_stated(checkpoint, found, stated, config) if stated else choose(checkpoint, found, config)
        values = _complete(found, base, checkpoint, parts)
        values.setdefault("schedule", {}).update(read_scale(checkpoint, base))
        result = load_config(values, base=base)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.path} describes an impossible model: {error}") from None
    check_name(checkpoint, config, result)
    if config is not None:
        result = load_config(config, base=result)
    _agree(checkpoint, found, result)
    return result


def _count_last_layer(found: Found, usual: TextEncoderConfig) -> None:
    """Count the text tower's last layer where the file lacks it: nothing uses it, so that some files are saved without it."""
    text = found.get("text_encoder", {})
    if text.get("width") == usual.width and text.get("layers") == usual.layers - 1:
        text["layers"] = usual.layers


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
            image["heads"] = image_heads(image["width"])
    return completed


def image_heads(width: int) -> int:
    """Number of heads of an image tower."""
    return _heads(width, 80)


def _heads(width: int, usual: int) -> int:
    """Number of heads of the usual width, which is ViT-H's; 2 if that doesn't divide the width, as in tiny towers."""
    return width // usual if width % usual == 0 else 2


def _agree(checkpoint: Checkpoint, found: Found, config: ModelConfig) -> None:
    wrong = list(differences(found, asdict(config)))
    if wrong:
        listed = "; ".join(wrong[:10])
        raise CheckpointError(f"The configuration contradicts {checkpoint.path}: {listed}. Leave these values out of it.")
    check_schedule(checkpoint, config)
