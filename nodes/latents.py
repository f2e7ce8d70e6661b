"""Nodes that make latents."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..vc_core.config import suggested_size
from .bridge.encoders import rgb_pictures
from .bridge.frames import LARGEST, SMALLEST, empty_latent, size_problem
from .bridge.model import VideoCrafterModel
from .bridge.schema import schema


class VideoCrafterImageSize(io.ComfyNode):
    """A size for the video of a picture: its shape, the model's number of pixels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterImageSize",
            display_name="VideoCrafter Image Size",
            category="VideoCrafter",
            description="Suggests the size of a picture's video: the picture's shape, with about the pixels that the model was trained on.",
            search_aliases=["get image size", "resolution", "aspect ratio", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="The VideoCrafter model that is to make the video."),
                io.Image.Input("image", tooltip="The picture."),
            ],
            outputs=[
                io.Int.Output(display_name="width", tooltip="For Empty VideoCrafter Latent."),
                io.Int.Output(display_name="height", tooltip="For Empty VideoCrafter Latent."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, image: Tensor) -> io.NodeOutput:
        if not isinstance(model.model, VideoCrafterModel):
            raise ValueError(f"This node needs a VideoCrafter model; it got {type(model.model).__name__}.")
        height, width = rgb_pictures(image).shape[2:]
        return io.NodeOutput(*suggested_size(model.model.config.sampling, width, height))


class EmptyVideoCrafterLatent(io.ComfyNode):
    """A blank video, or several."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EmptyVideoCrafterLatent",
            display_name="Empty VideoCrafter Latent",
            category="VideoCrafter",
            description="A blank video as a batch of frames, to be sampled. The bundled model makes 64x64.",
            search_aliases=["empty video latent", "empty latent", "videocrafter"],
            inputs=[
                io.Int.Input(
                    "width", default=512, min=SMALLEST, max=LARGEST, step=8, tooltip="A multiple of 8. The models' own are 512 or 1024."
                ),
                io.Int.Input(
                    "height", default=320, min=SMALLEST, max=LARGEST, step=8, tooltip="A multiple of 8. The models' own are 320 or 576."
                ),
                io.Int.Input("length", default=16, min=1, max=4096, tooltip="Frames a video. The models were trained on 16."),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="How many videos to make at once."),
            ],
            outputs=[io.Latent.Output(tooltip="All frames of all videos, one after the other.")],
        )

    @classmethod
    def validate_inputs(cls, width: int | None, height: int | None) -> bool | str:
        """Refuse, before the graph runs, what the autoencoder can't make."""
        return size_problem(width, height) or True

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int) -> io.NodeOutput:
        return io.NodeOutput(empty_latent(width, height, length, batch_size))
