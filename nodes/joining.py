"""Nodes that make one video of several."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..vc_core.media.joining import join
from .bridge.encoders import rgb_pictures
from .bridge.progress_text import show
from .bridge.schema import schema


class VideoCrafterJoinClips(io.ComfyNode):
    """Clips that share their ends to one video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterJoinClips",
            display_name="VideoCrafter Join Clips",
            category="VideoCrafter",
            description=(
                "Joins the clips of VideoCrafter Keyframes into one video: the picture that two clips share is shown once, and both sides "
                "are brought to the same brightness and contrast there. Nothing is cross-faded."
            ),
            search_aliases=["join", "concatenate", "merge videos", "keyframes", "color match", "videocrafter"],
            inputs=[
                io.Image.Input("images", tooltip="The frames of all clips, one clip after the other."),
                io.Int.Input("length", default=16, min=2, max=4096, tooltip="Frames a clip, as in VideoCrafter Keyframes."),
                io.Boolean.Input(
                    "match", default=True, tooltip="Bring both sides of a joint to the same mean and deviation, channel by channel."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames of the joined video."),
                io.String.Output(display_name="steps", tooltip="The step in brightness at each joint, as made and as matched."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, images: Tensor, length: int, match: bool) -> io.NodeOutput:
        if len(images) % length:
            raise ValueError(f"There are {len(images)} images, which are no whole clips of {length}: set length to the frames a clip.")
        clips = (rgb_pictures(images) * 2 - 1).unflatten(0, (-1, length)).transpose(1, 2)  # [K, 3, T, H, W]
        joined = join(list(clips), match)
        frames = (joined.video.permute(1, 2, 3, 0) + 1) / 2
        table = joined.table()
        show(cls, table)
        return io.NodeOutput(frames.to(images).contiguous(), table)
