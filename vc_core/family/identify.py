"""Telling from a file's tensors which model it holds, and of which size.

Names and shapes say almost everything; ``scale_arr`` and ``alphas_cumprod``, where a file has them, how it was trained.
What no tensor tells (the heads of the text tower, the authors' settings) comes from the published configuration of the same
form, or from a configuration that the caller gives. Where several published models have the same tensors, as DynamiCrafter's at
512 and 1024 and for interpolation, the file's name decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from ..checkpoint.convert import CONFIG_KEY
from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint
from ..config import ConfigError, ConfigLike, ModelConfig, from_yaml, load_config, published
from ..diffusion.schedule import Schedule

#: Where the parts of a model stand in a published file.
PREFIXES = {
    "unet": "model.diffusion_model.",
    "autoencoder": "first_stage_model.",
    "text_encoder": "cond_stage_model.model.",
    "image_encoder": "embedder.model.visual.",
    "projector": "image_proj_model.",
}
#: Of use only to a UNet that takes image tokens.
IMAGE_PARTS = ("image_encoder", "projector")

#: What a UNet has rather than how large it is: by this a file is matched with a published model.
FORM = ("in_channels", "out_channels", "temporal_conv", "relative_position", "fps_embedding", "image_attention", "image_gain")
#: A last alpha below this is a terminal signal of zero.
ALMOST_NOTHING = 1e-6
#: Image tokens a frame of the models that take the latents of pictures, whose tensors don't tell it.
TOKENS_PER_FRAME = 16


class Shapes:
    """Names and shapes of a file's tensors, seen from one part of the model."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        self.checkpoint, self.prefix = checkpoint, prefix
        self.names = [name[len(prefix) :] for name in checkpoint.names() if name.startswith(prefix)]
        self._known = set(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def sizes(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of a tensor that has so many axes, none of them empty.

        Raises:
            CheckpointError: there is no such tensor, or it has another number of axes.
        """
        if name not in self._known:
            raise CheckpointError(
                f"{self.checkpoint.path} has no tensor {self.prefix + name!r}, which every model of the VideoCrafter family has. "
                "It may be another kind of model, or only a part of one."
            )
        found = tuple(self.checkpoint.shape(self.prefix + name))
        if len(found) != axes or 0 in found:
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor {self.prefix + name!r} is {list(found)}, where models of the VideoCrafter family have "
                f"{axes} axes, none of them empty. The file is damaged, or of another model."
            )
        return found

    def count(self, pattern: str) -> int:
        """How many numbers ``{}`` stands for in the names that start with ``pattern``."""
        expression = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
        return len({found[1] for name in self.names if (found := expression.match(name))})


def part_prefixes(checkpoint: Checkpoint) -> dict[str, str]:
    """The parts that a file holds, and what their names start with.

    Community files hold the UNet alone, sometimes without any prefix.

    Raises:
        CheckpointError: there is no UNet of the family in it.
    """
    names = checkpoint.names()
    parts = {part: prefix for part, prefix in PREFIXES.items() if any(name.startswith(prefix) for name in names)}
    if "unet" not in parts and "input_blocks.0.0.weight" in checkpoint:
        parts["unet"] = ""
    if "unet" not in parts:
        shown = ", ".join(names[:3])
        raise CheckpointError(
            f"{checkpoint.path} holds no UNet of the VideoCrafter family: no name starts with 'model.diffusion_model.'. "
            f"Its {len(names)} tensors start with {shown}."
        )
    if parts["unet"] + "init_attn.0.proj_in.weight" not in checkpoint:
        raise CheckpointError(
            f"{checkpoint.path} holds a UNet without temporal layers ('init_attn'): an image model such as Stable Diffusion, or a "
            "video model of another family. Models of the VideoCrafter family are needed here."
        )
    if parts["unet"] + "middle_block.1.transformer_blocks.0.attn2.to_k_ip.weight" not in checkpoint:
        return {part: prefix for part, prefix in parts.items() if part not in IMAGE_PARTS}
    return parts


def identify(checkpoint: Checkpoint, config: ConfigLike | None = None) -> ModelConfig:
    """The configuration of the model in a file.

    Args:
        config: what to use where the tensors are silent. It may not contradict them.

    Raises:
        CheckpointError: no model of the family, or a configuration that says otherwise than the tensors.
    """
    parts = part_prefixes(checkpoint)
    told: dict[str, Any] = {"unet": read_unet(Shapes(checkpoint, parts["unet"]))}
    told |= {part: READERS[part](Shapes(checkpoint, prefix)) for part, prefix in parts.items() if part in READERS}
    for name in ("alphas_cumprod", "scale_arr"):
        if name in checkpoint:
            Shapes(checkpoint, "").sizes(name, 1)
    if "alphas_cumprod" in checkpoint:
        alphas = checkpoint.tensor("alphas_cumprod")
        told["schedule"] = {"timesteps": len(alphas), "zero_terminal_snr": bool(alphas[-1] < ALMOST_NOTHING)}

    stated = checkpoint.metadata.get(CONFIG_KEY)
    try:
        base = from_yaml(stated) if stated else _published_form(checkpoint, told, _name_of(config))
        given = _complete(told, base, checkpoint, parts)
        given.setdefault("schedule", {}).update(read_scale(checkpoint, base))
        result = load_config(given, base=base)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.path} describes a model that can't be: {error}") from error
    if config is not None:
        result = load_config(config, base=result)
    _agree(checkpoint, told, result)
    return result


def read_unet(shapes: Shapes) -> dict[str, Any]:
    """Sizes and form of the UNet, in the terms of :class:`vc_core.config.UNetConfig`."""
    out_channels = shapes.sizes("out.2.weight", 4)[0]
    width, in_channels, *_ = shapes.sizes("input_blocks.0.0.weight", 4)
    levels: list[list[int]] = [[]]  # output channels of each residual block, by level
    attention = set()
    for index in range(1, shapes.count("input_blocks.{}.")):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            levels.append([])
            continue
        levels[-1].append(shapes.sizes(f"input_blocks.{index}.0.in_layers.2.weight", 4)[0])
        if f"input_blocks.{index}.1.norm.weight" in shapes:
            attention.add(2 ** (len(levels) - 1))
    if not all(levels):
        raise CheckpointError(f"{shapes.checkpoint.path} has a UNet with a level without blocks. The file is damaged, or of another model.")
    block = "transformer_blocks.0"
    relative = f"middle_block.2.{block}.attn1.relative_position_k.embeddings_table"
    pictured = f"middle_block.1.{block}.attn2.to_k_ip.weight" in shapes
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "model_channels": width,
        "channel_mult": [blocks[0] // width for blocks in levels],
        "num_res_blocks": len(levels[0]),
        "attention_resolutions": sorted(attention),
        "head_channels": shapes.sizes("init_attn.0.proj_in.weight", 3)[0] // 8,
        "transformer_depth": shapes.count("middle_block.1.transformer_blocks.{}."),
        "context_dim": shapes.sizes(f"middle_block.1.{block}.attn2.to_k.weight", 2)[1],
        "temporal_conv": "middle_block.0.temopral_conv.conv1.2.weight" in shapes,
        "max_relative_position": (shapes.sizes(relative, 2)[0] - 1) // 2 if relative in shapes else 0,
        "fps_embedding": "fps_embedding.0.weight" in shapes,
        "image_attention": pictured,
        "image_gain": f"middle_block.1.{block}.attn2.alpha" in shapes,
        "image_tokens_per_frame": TOKENS_PER_FRAME if pictured and in_channels > out_channels else 0,
    }


def read_autoencoder(shapes: Shapes) -> dict[str, Any]:
    """Sizes of the autoencoder, in the terms of :class:`vc_core.config.AutoencoderConfig`."""
    # Read off the decoder, whose levels have a block even where the encoder's have none.
    channels = shapes.sizes("encoder.conv_in.weight", 4)[0]
    levels = shapes.count("decoder.up.{}.")
    return {
        "channels": channels,
        "channel_mult": [shapes.sizes(f"decoder.up.{level}.block.0.conv1.weight", 4)[0] // channels for level in range(levels)],
        "num_res_blocks": shapes.count("decoder.up.0.block.{}.") - 1,
        "z_channels": shapes.sizes("decoder.conv_in.weight", 4)[1],
        "embed_dim": shapes.sizes("post_quant_conv.weight", 4)[1],
        "image_channels": shapes.sizes("encoder.conv_in.weight", 4)[1],
    }


def read_text_encoder(shapes: Shapes) -> dict[str, Any]:
    """Sizes of the text tower, in the terms of :class:`vc_core.config.TextEncoderConfig`; its heads are not told."""
    vocab_size, width = shapes.sizes("token_embedding.weight", 2)
    return {
        "width": width,
        "layers": shapes.count("transformer.resblocks.{}."),
        "embed_dim": shapes.sizes("text_projection", 2)[1],
        "vocab_size": vocab_size,
        "context_length": shapes.sizes("positional_embedding", 2)[0],
    }


def read_image_encoder(shapes: Shapes) -> dict[str, Any]:
    """Sizes of the image tower, in the terms of :class:`vc_core.config.ImageEncoderConfig`; its heads are not told."""
    width, _, patch, _ = shapes.sizes("conv1.weight", 4)
    tokens = shapes.sizes("positional_embedding", 2)[0]
    return {
        "width": width,
        "layers": shapes.count("transformer.resblocks.{}."),
        "embed_dim": shapes.sizes("proj", 2)[1],
        "patch_size": patch,
        "image_size": patch * round((tokens - 1) ** 0.5),
    }


def read_projector(shapes: Shapes) -> dict[str, Any]:
    """Sizes of the resampler, in the terms of :class:`vc_core.config.ProjectorConfig`; its heads are not told."""
    _, queries, width = shapes.sizes("latents", 3)
    return {
        "width": width,
        "depth": shapes.count("layers.{}."),
        "queries": queries,
        "feature_dim": shapes.sizes("proj_in.weight", 2)[1],
        "context_dim": shapes.sizes("proj_out.weight", 2)[0],
        "ff_mult": shapes.sizes("layers.0.1.1.weight", 2)[0] // width,
    }


#: What reads the sizes of each part beside the UNet.
READERS: dict[str, Callable[[Shapes], dict[str, Any]]] = {
    "autoencoder": read_autoencoder,
    "text_encoder": read_text_encoder,
    "image_encoder": read_image_encoder,
    "projector": read_projector,
}


def read_scale(checkpoint: Checkpoint, base: ModelConfig) -> dict[str, Any]:
    """The sample scale of a file whose table is not that of the published model of its form.

    Tables run past the last timestep in some published files; what is past it was never used.
    """
    if "scale_arr" not in checkpoint:
        return {}
    scale = checkpoint.tensor("scale_arr").double()
    if base.schedule.scale_end is not None and _same_table(scale, Schedule.from_config(base.schedule).scale):
        return {}
    return {"scale_end": round(float(scale[-1]), 6), "scale_steps": int((scale > scale[-1]).sum()) + 1}


def _same_table(stored: torch.Tensor, ours: torch.Tensor) -> bool:
    """Whether a file's table is ours, in whatever precision it was stored."""
    length = min(len(stored), len(ours))
    return torch.allclose(stored[:length].float(), ours[:length], rtol=1e-2, atol=1e-4)


def _published_form(checkpoint: Checkpoint, told: dict[str, Any], wanted: str | None) -> ModelConfig:
    """The published configuration whose UNet has the same form; renamed where the sizes are others.

    Args:
        wanted: the name of the configuration that the caller gave, which decides between models of the same tensors.
    """
    form = _form(told["unet"])
    candidates = [config for config in map(load_config, published()) if _form(asdict(config.unet)) == form]
    if not candidates:
        described = ", ".join(f"{key} {value}" for key, value in form.items())
        raise CheckpointError(
            f"{checkpoint.path} is of the family, but of a form that is not supported ({described}). "
            f"Supported are {', '.join(published())}."
        )
    fitting = [config for config in candidates if not any(_differences(told, asdict(config)))]
    chosen = _told_apart(checkpoint, fitting or candidates, wanted)
    return chosen if fitting else replace(chosen, name="custom", title=f"A model of the form of {chosen.name}")


def _name_of(config: ConfigLike | None) -> str | None:
    """The name of a configuration that a caller gave, where it is a published one's."""
    if isinstance(config, ModelConfig):
        return config.name
    if isinstance(config, Mapping):
        return config.get("name")
    return None if config is None else str(config)


def _told_apart(checkpoint: Checkpoint, candidates: list[ModelConfig], wanted: str | None) -> ModelConfig:
    """One of several published models with the same tensors: by what the caller says, its schedule, or its file's name."""
    named = [config for config in candidates if config.name == wanted]
    if "scale_arr" in checkpoint:
        scale = checkpoint.tensor("scale_arr")
        same = [config for config in candidates if _same_table(scale, Schedule.from_config(config.schedule).scale)]
        candidates = same or candidates
    elif "alphas_cumprod" in checkpoint:
        alphas = checkpoint.tensor("alphas_cumprod")
        candidates = [c for c in candidates if _same_table(alphas, Schedule.from_config(c.schedule).alphas_cumprod)] or candidates
    if named or len(candidates) == 1:
        return (named or candidates)[0]
    # dynamicrafter_512_interp_v1 -> {"512", "interp"}: the one with the most of its words in the file's name.
    spoken = {config.name: set(config.name.split("_")[1:-1]) for config in candidates}
    stem = checkpoint.path.stem.lower()
    heard = {name: sum(word in stem for word in words) - sum(word not in stem for word in words) for name, words in spoken.items()}
    best = [config for config in candidates if heard[config.name] == max(heard.values())]
    only_their_use_differs = len({config.schedule.scale_end for config in candidates}) == 1
    if only_their_use_differs or (len(best) == 1 and any(word in stem for word in spoken[best[0].name])):
        return best[0]
    names = ", ".join(config.name for config in candidates)
    raise CheckpointError(
        f"{checkpoint.path} could be any of {names}: their tensors are the same, and the file has no schedule (scale_arr) and no name "
        "that tells. Say which it is, by config= (in ComfyUI: the loader's model), or put its name into the file's."
    )


def _form(unet: dict[str, Any]) -> dict[str, Any]:
    return {key: unet[key] for key in FORM if key in unet} | {"relative_position": unet["max_relative_position"] > 0}


def _complete(told: dict[str, Any], base: ModelConfig, checkpoint: Checkpoint, parts: dict[str, str]) -> dict[str, Any]:
    """What the tensors tell, with what they tell only together or not at all, as near to it as can be guessed."""
    given = {part: dict(values) for part, values in told.items()}
    context = given["unet"]["context_dim"]
    text = given.setdefault("text_encoder", {"width": context})
    if text["width"] != base.text_encoder.width:
        text["heads"] = _heads(text["width"], 64)
    if base.projector:
        projector = given.setdefault("projector", {"context_dim": context})
        if "projector" in parts:
            inner = Shapes(checkpoint, parts["projector"]).sizes("layers.0.0.to_q.weight", 2)[0]
            if inner != base.projector.heads * base.projector.head_channels:
                projector["heads"] = _heads(inner, 64)
                projector["head_channels"] = inner // projector["heads"]
    if base.image_encoder:
        width = given["projector"].get("feature_dim", base.image_encoder.width) if base.projector else base.image_encoder.width
        image = given.setdefault("image_encoder", {"width": width})
        if image["width"] != base.image_encoder.width:
            image["heads"] = _heads(image["width"], 80)
    return given


def _heads(width: int, usual: int) -> int:
    """Heads as wide as those of ViT-H's tower where they fit; narrow towers, which are for trials, have two."""
    return width // usual if width % usual == 0 else 2


def _agree(checkpoint: Checkpoint, told: dict[str, Any], config: ModelConfig) -> None:
    wrong = list(_differences(told, asdict(config)))
    if wrong:
        raise CheckpointError(f"The configuration contradicts {checkpoint.path}: " + "; ".join(wrong) + ".")
    schedule = Schedule.from_config(config.schedule)
    for name, ours in (("alphas_cumprod", schedule.alphas_cumprod), ("scale_arr", schedule.scale)):
        if name in checkpoint and not _same_table(checkpoint.tensor(name), ours):
            raise CheckpointError(
                f"{checkpoint.path} was trained with another noise schedule than its configuration ({config.name}) says: its {name} "
                f"ends at {checkpoint.tensor(name)[-1]:.6f}, the configuration's at {ours[-1]:.6f}."
            )


def _differences(told: dict[str, Any], config: dict[str, Any]) -> Iterable[str]:
    for part, values in told.items():
        for key, value in values.items():
            if config[part][key] != value:
                yield f"{part}.{key} is {value} by the tensors and {config[part][key]} by the configuration"
