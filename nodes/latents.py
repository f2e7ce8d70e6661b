"""Nodes that make latents and suggest their size."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..vc_core.sampling import suggested_size
from .bridge.frames import LARGEST, SMALLEST, empty_latent, size_problem
from .bridge.images import rgb_images
from .bridge.model import config_of
from .bridge.schema import checked_inputs, schema


class VideoCrafterImageSize(io.ComfyNode):
    """Suggests a video size: the image's aspect ratio with the model's number of pixels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterImageSize",
            display_name="VideoCrafter Image Size",
            category="VideoCrafter",
            description="Suggests a video size for an image: its aspect ratio, with about as many pixels as the "
            "model was trained on.",
            search_aliases=["get image size", "resolution", "aspect ratio", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="The VideoCrafter model that makes the video."),
                io.Image.Input("image", tooltip="The image to make a video from."),
            ],
            outputs=[
                io.Int.Output(display_name="width", tooltip="Width in pixels, for Empty VideoCrafter Latent."),
                io.Int.Output(display_name="height", tooltip="Height in pixels, for Empty VideoCrafter Latent."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, image: Tensor) -> io.NodeOutput:
        sampling = config_of(model).sampling
        height, width = rgb_images(image).shape[2:]
        return io.NodeOutput(*suggested_size(sampling, width, height))


class EmptyVideoCrafterLatent(io.ComfyNode):
    """Makes one or several empty video latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EmptyVideoCrafterLatent",
            display_name="Empty VideoCrafter Latent",
            category="VideoCrafter",
            description="Makes an empty video latent to sample from: a batch of frames. The bundled models make "
            "64x64 videos.",
            search_aliases=["empty video latent", "empty latent", "videocrafter"],
            inputs=[
                io.Int.Input(
                    "width", default=512, min=SMALLEST, max=LARGEST, step=8,
                    tooltip="Width in pixels, a multiple of 8. Trained widths: 256, 512 or 1024.",
                ),
                io.Int.Input(
                    "height", default=320, min=SMALLEST, max=LARGEST, step=8,
                    tooltip="Height in pixels, a multiple of 8. Trained heights: 256, 320 or 576.",
                ),
                io.Int.Input(
                    "length", default=16, min=1, max=4096,
                    tooltip="Frames per video. The models were trained on 16.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Number of videos to make at once."),
            ],
            outputs=[io.Latent.Output(tooltip="The frames of all videos, one video after the other.")],
        )

    @classmethod
    def validate_inputs(cls, width: int | None, height: int | None) -> bool | str:
        """Refuse sizes that the autoencoder cannot make, before the graph runs."""
        return size_problem(width, height) or True

    @classmethod
    @checked_inputs
    def execute(cls, width: int, height: int, length: int, batch_size: int) -> io.NodeOutput:
        return io.NodeOutput(empty_latent(width, height, length, batch_size))
