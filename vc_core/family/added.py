"""Files that hold a model together with an adapter's tensors, or an adapter that was trained with some of the model's weights.

The adapter's tensors are set apart, so that the model is identified and checked without them.
"""

from __future__ import annotations

import re

from ..checkpoint.convert import CONFIG_KEY
from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint

#: The tensors of adapters that can be in a model's file, by their names there.
ADDED = re.compile(
    r"omcm\.|pose_encoder\.|model\.diffusion_model\..*\.(cc_projection|pluker_projection|epipolar)\.|(body\.\d+|conv_in)\.(block\d|in_conv|weight|bias)"
)
#: MotionCtrl's camera module in the first temporal transformer, which no other adapter has.
MOTIONCTRL = "model.diffusion_model.init_attn.0.transformer_blocks.0.cc_projection.weight"
_MIDDLE = "model.diffusion_model.middle_block.2.transformer_blocks.0."
#: One of these is in every adapter's file. Other tensors with such names are parts of no model that is known, and refused as such.
MARKERS = (
    MOTIONCTRL, f"{_MIDDLE}pluker_projection.weight", f"{_MIDDLE}cc_projection.weight", "omcm.conv_in.weight", "body.0.block1.weight",
)
#: What MotionCtrl's authors drop of VideoCrafter2's file: their model has no embedding of fps, and no sample scale. A file that says its
#: configuration, as those written here do, keeps what it has.
DROPPED = re.compile(r"model\.diffusion_model\.fps_embedding\.|scale_arr$")
#: A part of every UNet of the family.
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
#: A part of UNets that take an image, which MotionCtrl for VideoCrafter is not.
IMAGE = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k_ip.weight"


def is_added(name: str) -> bool:
    """Whether a tensor is an adapter's, by its name in a file."""
    return ADDED.match(name) is not None


def has_adapter(checkpoint: Checkpoint) -> bool:
    """Whether a file has the tensors of a known adapter."""
    return any(marker in checkpoint for marker in MARKERS)


def is_overlay(checkpoint: Checkpoint) -> bool:
    """Whether a file has an adapter's tensors and only a part of a UNet's, or none."""
    return FIRST not in checkpoint and has_adapter(checkpoint)


def set_apart(checkpoint: Checkpoint) -> tuple[Checkpoint, Checkpoint | None]:
    """A file without its adapter's tensors, and these; None if there are none.

    Raises:
        CheckpointError: the file is an adapter only.
    """
    if not has_adapter(checkpoint):
        return checkpoint, None
    if is_overlay(checkpoint):
        raise CheckpointError(
            f"{checkpoint.path} is an adapter, not a model: load the model that it was made for, and the adapter beside it (adapters= in "
            "Python, --adapter on the command line, VideoCrafter Load Motion Adapter in ComfyUI); or give that model as the base."
        )
    plain = MOTIONCTRL in checkpoint and IMAGE not in checkpoint and CONFIG_KEY not in checkpoint.metadata
    model = checkpoint.only(lambda name: not is_added(name) and not (plain and DROPPED.match(name)))
    return model, checkpoint.only(is_added)
