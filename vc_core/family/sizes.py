"""Sizes of a network, read off the names and shapes of its tensors in a file.

The readers return values of the configuration classes of :mod:`vc_core.config`, except those that no tensor determines.
"""

from __future__ import annotations

import re
from typing import Any

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint
from ..config import INIT_ATTENTION_HEADS

#: Image tokens for each frame in models with concat latents, which can't be read off their tensors.
TOKENS_PER_FRAME = 16

#: Most blocks or layers that are counted by their names.
MOST_OF_A_KIND = 200

BLOCK = "transformer_blocks.0"
#: Flags of a UNet's configuration; each is True if the file has this tensor. A new variant is a row.
UNET_FLAGS = {
    "init_attention": "init_attn.0.proj_in.weight",
    "temporal_conv": "middle_block.0.temopral_conv.conv1.2.weight",
    "spatial_temporal_conv": "middle_block.0.temopral_conv.conv_last.3.weight",
    "fps_embedding": "fps_embedding.0.weight",
    "image_attention": f"middle_block.1.{BLOCK}.attn2.to_k_ip.weight",
    "image_gate": f"middle_block.1.{BLOCK}.attn2.alpha",
    "guidance_embedding": "time_cond_proj.weight",
    "motion_embedding": "motion_cond_proj.weight",
}


class PartShapes:
    """Names and shapes of the tensors of one part of a model, in a file."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        self.checkpoint, self.prefix = checkpoint, prefix
        self.names = [name[len(prefix) :] for name in checkpoint.names() if name.startswith(prefix)]
        self._known = set(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def sizes(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of a tensor with so many axes, none of them empty.

        Raises:
            CheckpointError: there is no such tensor, or it has another number of axes.
        """
        if name not in self._known:
            raise CheckpointError(
                f"{self.checkpoint.path} has no tensor {self.prefix + name!r}, which every model of the VideoCrafter family has. "
                "It may be another kind of model, or only a part of one: load a complete model of the family."
            )
        found = tuple(self.checkpoint.shape(self.prefix + name))
        if len(found) != axes or 0 in found:
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor {self.prefix + name!r} is {list(found)}, where models of the VideoCrafter family have "
                f"{axes} axes, none of them empty. The file is damaged, or of another model: get it from its source again."
            )
        return found

    def count(self, pattern: str) -> int:
        """How many different numbers stand for ``{}`` in the names that start with ``pattern``.

        Raises:
            CheckpointError: more than any model has.
        """
        expression = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d{1,9})"))
        found = len({match[1] for name in self.names if (match := expression.match(name))})
        if found > MOST_OF_A_KIND:
            raise CheckpointError(
                f"{self.checkpoint.path} has {found} different {self.prefix + pattern.replace('{}', 'N')!r}, where models of the family "
                f"have up to {MOST_OF_A_KIND}. The file is damaged, or of another model."
            )
        return found


def read_unet(shapes: PartShapes) -> dict[str, Any]:
    """Values of :class:`vc_core.config.UNetConfig`."""
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
    relative = f"middle_block.2.{BLOCK}.attn1.relative_position_k.embeddings_table"
    flags = {flag: name in shapes for flag, name in UNET_FLAGS.items()}
    flags["motion_embedding"] &= flags["guidance_embedding"]  # with which it is joined
    per_frame = TOKENS_PER_FRAME if flags["image_attention"] and in_channels > out_channels else 0
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "model_channels": width,
        "channel_mult": [blocks[0] // width for blocks in levels],
        "num_res_blocks": len(levels[0]),
        "attention_resolutions": sorted(attention),
        "transformer_depth": shapes.count("middle_block.1.transformer_blocks.{}."),
        "context_dim": shapes.sizes(f"middle_block.1.{BLOCK}.attn2.to_k.weight", 2)[1],
        "max_relative_position": (shapes.sizes(relative, 2)[0] - 1) // 2 if relative in shapes else 0,
        "image_tokens_per_frame": per_frame,
        **flags,
        **_head_channels(shapes, relative),
    }


def _head_channels(shapes: PartShapes, relative: str) -> dict[str, int]:
    """Read off the first temporal transformer or a table of relative positions; empty for models that have neither."""
    first = UNET_FLAGS["init_attention"]
    if first in shapes:
        return {"head_channels": shapes.sizes(first, 3)[0] // INIT_ATTENTION_HEADS}
    return {"head_channels": shapes.sizes(relative, 2)[1]} if relative in shapes else {}


def read_autoencoder(shapes: PartShapes) -> dict[str, Any]:
    """Values of :class:`vc_core.config.AutoencoderConfig`."""
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


def read_text_encoder(shapes: PartShapes) -> dict[str, Any]:
    """Values of :class:`vc_core.config.TextEncoderConfig`, but for the heads."""
    vocab_size, width = shapes.sizes("token_embedding.weight", 2)
    return {
        "width": width,
        "layers": shapes.count("transformer.resblocks.{}."),
        "vocab_size": vocab_size,
        "context_length": shapes.sizes("positional_embedding", 2)[0],
        # Nothing uses the projection, so that some files lack it.
        **({"embed_dim": shapes.sizes("text_projection", 2)[1]} if "text_projection" in shapes else {}),
    }


def read_image_encoder(shapes: PartShapes) -> dict[str, Any]:
    """Values of :class:`vc_core.config.ImageEncoderConfig`, but for the heads."""
    width, _, patch, _ = shapes.sizes("conv1.weight", 4)
    tokens = shapes.sizes("positional_embedding", 2)[0]
    return {
        "width": width,
        "layers": shapes.count("transformer.resblocks.{}."),
        "embed_dim": shapes.sizes("proj", 2)[1],
        "patch_size": patch,
        "image_size": patch * round((tokens - 1) ** 0.5),
    }


def read_projector(shapes: PartShapes) -> dict[str, Any]:
    """Values of :class:`vc_core.config.ProjectorConfig`, but for the heads."""
    _, queries, width = shapes.sizes("latents", 3)
    return {
        "width": width,
        "depth": shapes.count("layers.{}."),
        "queries": queries,
        "feature_dim": shapes.sizes("proj_in.weight", 2)[1],
        "context_dim": shapes.sizes("proj_out.weight", 2)[0],
        "ff_mult": shapes.sizes("layers.0.1.1.weight", 2)[0] // width,
    }
