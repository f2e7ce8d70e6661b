"""Finds the layer that a path in a LoRA file means, among a model's own names.

Paths are looked up, not taken apart: an underscore in kohya's names can be a dot or part of a name (``temopral_conv``, as the
authors spell it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from ..family.identify import RENAMED

#: What wrappers and whole models put before the UNet's own names.
_UNET_PREFIXES = ("base_model.model.", "model.", "diffusion_model.", "unet.", "module.")
_KOHYA_PREFIXES = ("lora_unet_", "lycoris_")
#: Layers of a residual block by their names in diffusers.
_RESNET = {
    "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
}
#: A layer of the text tower, by its name in transformers; kohya's has underscores. SDXL's second tower has another prefix.
_TEXT = re.compile(
    r"(?:lora_te1?_|(?:[\w.]+\.)?(?<!_2\.))text_model[._]encoder[._]layers[._](?P<number>\d{1,3})[._]"
    r"(?P<layer>self_attn[._](?:q_proj|k_proj|v_proj|out_proj)|mlp[._](?:fc1|fc2))"
)
#: The same in OpenCLIP, which keeps the three projections of attention in one matrix.
_OPENCLIP = re.compile(r"(?:[\w.]+\.)?transformer\.resblocks\.(?P<number>\d{1,3})\.(?P<layer>attn\.out_proj|mlp\.c_fc|mlp\.c_proj)")
#: By the names of transformers: the tensor in OpenCLIP's layer, and which third of its rows.
_TEXT_LAYERS: dict[str, tuple[str, int | None]] = {
    "self_attn.q_proj": ("attn.in_proj_weight", 0),
    "self_attn.k_proj": ("attn.in_proj_weight", 1),
    "self_attn.v_proj": ("attn.in_proj_weight", 2),
    "self_attn.out_proj": ("attn.out_proj.weight", None),
    "mlp.fc1": ("mlp.c_fc.weight", None),
    "mlp.fc2": ("mlp.c_proj.weight", None),
}
#: Paths that mean a text tower, whether it is this family's or not.
_OF_TEXT = re.compile(r"lora_te\d?_|(.*\.)?(text_encoder(_\d)?|cond_stage_model|text_model|te\d?)\.")

Shapes = Mapping[str, tuple[int, ...]]


def unet_layers(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The UNet's layers that a LoRA can change, by their paths, with the shapes of their weights.

    Args:
        shapes: those of all tensors of the UNet, by their names in it.
    """
    end = ".weight"
    return {name[: -len(end)]: shape for name, shape in shapes.items() if name.endswith(end) and len(shape) > 1}


def text_layers(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The text tower's layers that a LoRA can change, by transformers' paths (``text_model.encoder.layers.0.mlp.fc1``).

    Args:
        shapes: those of all tensors of the text encoder, by their names in :class:`vc_core.models.text_encoder.TextEncoder`.
    """
    found = {}
    for name, shape in shapes.items():
        match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
        for layer, (stored, third) in _TEXT_LAYERS.items():
            if match and match[2] == stored:
                found[_text_path(match[1], layer)] = shape if third is None else (shape[0] // 3, shape[1])
    return found


def text_tensor(path: str) -> tuple[str, int | None]:
    """The tensor of our text encoder for a path of :func:`text_layers`, and which third of its rows; None for all of them."""
    number, layer = path.removeprefix(_text_path("", "")[:-1]).split(".", 1)
    stored, third = _TEXT_LAYERS[layer]
    return f"transformer.resblocks.{number}.{stored}", third


def _text_path(number: str, layer: str) -> str:
    return f"text_model.encoder.layers.{number}.{layer}"


def is_text(path: str) -> bool:
    """Whether a path of a LoRA file means a layer of a text tower."""
    return _TEXT.fullmatch(path) is not None or _OPENCLIP.fullmatch(path) is not None or _OF_TEXT.match(path) is not None


def text_place(path: str) -> str:
    """The path of :func:`text_layers` for a path of a LoRA file; the path itself if it has none."""
    if match := _TEXT.fullmatch(path):
        return _text_path(match["number"], re.sub(r"^(self_attn|mlp)_", r"\1.", match["layer"]))
    if match := _OPENCLIP.fullmatch(path):
        stored = match["layer"] + ".weight"
        return next(_text_path(match["number"], layer) for layer, (name, _) in _TEXT_LAYERS.items() if name == stored)
    return path


def unet_place(path: str, layers: Iterable[str]) -> str | None:
    """The UNet's layer for a path of a LoRA file; None if it has none.

    Args:
        layers: the paths of :func:`unet_layers`.
    """
    table = _lookup(tuple(layers))
    for prefix in _KOHYA_PREFIXES:
        if path.startswith(prefix):
            return table.get(path[len(prefix) :])
    path = path.replace(".processor.", ".")
    while path not in table:
        wrapper = next((each for each in _UNET_PREFIXES if path.startswith(each)), None)
        if wrapper is None:
            return None
        path = path[len(wrapper) :]
    return table[path]


@lru_cache(maxsize=8)
def _lookup(layers: tuple[str, ...]) -> dict[str, str]:
    """The UNet's layers by all their names: ours, the authors' and diffusers', with dots and with underscores."""
    table = {diffusers: layer for layer in layers for diffusers in _diffusers_names(layer, layers)} | {layer: layer for layer in layers}
    table |= {name.removesuffix(".0"): layer for name, layer in table.items() if name.endswith(".to_out.0")}
    for theirs, ours in RENAMED.items():
        table |= {theirs + name[len(ours) :]: layer for name, layer in table.items() if name.startswith(ours)}
    return {name.replace(".", "_"): layer for name, layer in table.items()} | table


def _diffusers_names(layer: str, layers: tuple[str, ...]) -> list[str]:
    """The layer's names in diffusers' UNet of Stable Diffusion, of which this UNet has the spatial layers."""
    if layer in _ENDS.values():
        return [name for name, ours in _ENDS.items() if ours == layer]
    for block, name in _blocks(layers).items():
        if layer.startswith(block + "."):
            rest = layer[len(block) + 1 :]
            if ".resnets." in name:
                return [f"{name}.{theirs}" for theirs, ours in _RESNET.items() if ours == rest]
            return [f"{name}.{rest}".replace(".conv.op", ".conv")]
    return []


@lru_cache(maxsize=8)
def _blocks(layers: tuple[str, ...]) -> dict[str, str]:
    """The names in diffusers of the UNet's blocks of spatial layers: ``input_blocks.1.1`` is ``down_blocks.0.attentions.0``."""
    have = {".".join(layer.split(".")[:4]) for layer in layers} | set(layers)
    names = {"middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0", "middle_block.3": "mid_block.resnets.1"}
    level = place = 0
    for number in range(1, _count(layers, "input_blocks")):
        block = f"input_blocks.{number}"
        if f"{block}.0.op" in have:
            names[f"{block}.0"] = f"down_blocks.{level}.downsamplers.0.conv"
            level, place = level + 1, 0
            continue
        names |= {f"{block}.0": f"down_blocks.{level}.resnets.{place}", f"{block}.1": f"down_blocks.{level}.attentions.{place}"}
        place += 1
    level = place = 0
    for number in range(_count(layers, "output_blocks")):
        block = f"output_blocks.{number}"
        names[f"{block}.0"] = f"up_blocks.{level}.resnets.{place}"
        last = next((index for index in (1, 2, 3) if f"{block}.{index}.conv" in have), None)
        if last != 1:
            names[f"{block}.1"] = f"up_blocks.{level}.attentions.{place}"
        place += 1
        if last is not None:
            names[f"{block}.{last}"] = f"up_blocks.{level}.upsamplers.0"
            level, place = level + 1, 0
    return names


def _count(layers: tuple[str, ...], part: str) -> int:
    return 1 + max((int(layer.split(".")[1]) for layer in layers if layer.startswith(part + ".")), default=-1)
