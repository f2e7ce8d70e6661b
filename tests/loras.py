"""LoRA files for tests, for the recorded VideoCrafter2."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from harness import goldens
from vc_core.lora.files import open_lora
from vc_core.lora.layer import Layer
from vc_core.lora.places import text_layers, unet_layers
from vc_core.lora.turbo_list import layers_of
from vc_core.lora.writing import save_lora

PREFIX, _TEXT_PREFIX = "model.diffusion_model.", "cond_stage_model.model."
SPATIAL = "input_blocks.1.1.transformer_blocks.0"
QUERY = f"{SPATIAL}.attn1.to_q"
#: The ends of the names of a layer's two matrices.
KOHYA = ("lora_down.weight", "lora_up.weight")
PEFT = ("lora_A.weight", "lora_B.weight")
LINEAR = ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")
FIRST_DIFFUSERS = ("_lora.down.weight", "_lora.up.weight")
#: A layer of an AnimateDiff motion LoRA.
MOTION = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q"


def _below(shapes: dict[str, list[int]], prefix: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items() if name.startswith(prefix)}


#: The shapes of the UNet's tensors, and of the text tower's layers, of the recorded VideoCrafter2.
UNET = _below(goldens.recording("t2v_512_v2").shapes, PREFIX)
TEXT = text_layers(_below(goldens.recording("t2v_512_v2").shapes, _TEXT_PREFIX))
#: The shapes of the layers of the published one's UNet.
VIDEOCRAFTER2 = unet_layers(_below(goldens.manifest("t2v_512_v2"), PREFIX))


def pair(stem: str, sides: tuple[str, str], shape: tuple[int, ...], rank: int = 4) -> dict[str, Tensor]:
    """Two matrices, down and up, for a weight of this shape."""
    draw = torch.Generator().manual_seed(len(stem))
    down, up = torch.randn(rank, *shape[1:], generator=draw), torch.randn(shape[0], rank, generator=draw)
    dot = "" if sides[0].startswith("_") else "."
    return {f"{stem}{dot}{side}": part for side, part in zip(sides, (down, up), strict=True)}


def write(folder: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    """A file with these tensors."""
    save_file(tensors, folder / "lora.safetensors", metadata)
    return folder / "lora.safetensors"


def only_layer(file: Path, alpha: float | None = None) -> Layer:
    """The layer of a file that has one."""
    (layer,) = open_lora(file).match(UNET, alpha=alpha).unet.values()
    return layer


def plain_file(folder: Path, alpha: float = 2.0) -> Path:
    """A file in the plain layout, for one layer."""
    down, up = pair(QUERY, PEFT, UNET[f"{QUERY}.weight"]).values()
    return save_lora(folder / "plain.safetensors", {QUERY: (down, up, alpha)}, {"title": "style"}, torch.float32)


def first_diffusers() -> dict[str, torch.Tensor]:
    """The layout of diffusers' first LoRAs, with four layers of the UNet and four of the text encoder."""
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    tensors = {}
    for part in ("to_q", "to_k", "to_v", "to_out"):
        shape = UNET[f"{SPATIAL}.attn1.{part}{'.0' if part == 'to_out' else ''}.weight"]
        tensors |= pair(f"unet.{block}.attn1.processor.{part}", FIRST_DIFFUSERS, shape)
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        stem = f"text_encoder.text_model.encoder.layers.0.self_attn.{part}"
        shape = TEXT[f"text_model.encoder.layers.0.self_attn.{part}"]
        tensors |= pair(stem, LINEAR, shape)
    return tensors


def turbo_list() -> dict[str, tuple[Tensor, Tensor]]:
    """``(up, down)`` of each layer of a T2V-Turbo list for the recorded VideoCrafter2, of rank 2."""
    draw, found = torch.manual_seed(4), {}
    shapes = UNET | {"time_cond_proj.weight": (UNET["time_embed.0.weight"][1], 256)}
    for layer in layers_of(shapes):
        out, *inner = shapes[f"{layer}.weight"]
        ones = [1] * (len(inner) - 1)
        found[layer] = 0.02 * torch.randn(out, 2, *ones, generator=draw), torch.randn(2, *inner, generator=draw)
    return found
