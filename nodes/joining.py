"""Nodes that join clips into one video."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..vc_core.media.joining import join
from .bridge.images import rgb_images
from .bridge.progress_text import show
from .bridge.schema import checked_inputs, schema


class VideoCrafterJoinClips(io.ComfyNode):
    """Joins clips that share their first and last images into one video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterJoinClips",
            display_name="VideoCrafter Join Clips",
            category="VideoCrafter",
            description=(
                "Joins the clips of VideoCrafter Keyframes into one video. The frame shared by two clips appears "
                "once. Brightness and contrast are matched at each joint. There is no cross-fade."
            ),
            search_aliases=["join", "concatenate", "merge videos", "keyframes", "color match", "videocrafter"],
            inputs=[
                io.Image.Input("images", tooltip="The decoded frames of all clips, in order."),
                io.Int.Input(
                    "length", default=16, min=2, max=4096,
                    tooltip="Frames per clip: the same value as in VideoCrafter Keyframes.",
                ),
                io.Boolean.Input(
                    "match", default=True,
                    tooltip="Match brightness and contrast at each joint (mean and standard deviation per colour "
                    "channel).",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames of the joined video."),
                io.String.Output(
                    display_name="steps",
                    tooltip="The jump in brightness at each joint, before and after matching, as text.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked_inputs
    def execute(cls, images: Tensor, length: int, match: bool) -> io.NodeOutput:
        if len(images) % length:
            raise ValueError(
                f"There are {len(images)} images, which is not a multiple of length {length}: set length to the "
                "number of frames per clip."
            )
        clips = (rgb_images(images) * 2 - 1).unflatten(0, (-1, length)).transpose(1, 2)  # [K, 3, T, H, W]
        joined = join(list(clips), match)
        frames = (joined.video.permute(1, 2, 3, 0) + 1) / 2
        table = joined.table()
        show(cls, table)
        return io.NodeOutput(frames.to(images).contiguous(), table)
