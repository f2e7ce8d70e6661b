"""Nodes that make images."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..vc_core.media.shapes import COLOURS, SHAPES, SIZE, draw_shapes
from .bridge.schema import advanced, checked_inputs, schema


class VideoCrafterExampleImage(io.ComfyNode):
    """An image for the bundled models, or the user's own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterExampleImage",
            display_name="VideoCrafter Example Image",
            category="VideoCrafter",
            description="Draws an image for the bundled models, 64x64 pixels, so that a graph runs without a file. Connect your own "
            "image to use it instead.",
            search_aliases=["draw", "test image", "placeholder", "shape", "videocrafter"],
            inputs=[
                io.Combo.Input("shape", options=list(SHAPES), default="square", tooltip="The shape that is drawn."),
                io.Combo.Input("color", options=list(COLOURS), default="red", tooltip="The color of the shape."),
                io.Int.Input("x", default=18, min=0, max=SIZE, tooltip="The middle of the shape, in pixels from the left."),
                io.Int.Input("y", default=32, min=0, max=SIZE, tooltip="The middle of the shape, in pixels from the top."),
                advanced(
                    io.Int.Input(
                        "length", default=1, min=1, max=4096, optional=True,
                        tooltip="Number of images. With more than 1 the shape moves evenly from x, y to end_x, end_y.",
                    )
                ),
                advanced(io.Int.Input("end_x", default=46, min=0, max=SIZE, optional=True, tooltip="x in the last image.")),
                advanced(io.Int.Input("end_y", default=32, min=0, max=SIZE, optional=True, tooltip="y in the last image.")),
                io.Image.Input("image", optional=True, tooltip="Your own image. It is passed on unchanged, and nothing is drawn."),
            ],
            outputs=[io.Image.Output(tooltip="The drawn image, or your own.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, shape: str, color: str, x: int, y: int, length: int = 1, end_x: int = 46, end_y: int = 32, image: Tensor | None = None
    ) -> io.NodeOutput:
        if image is not None:
            return io.NodeOutput(image)
        kinds = (torch.tensor([value] * length) for value in (list(COLOURS).index(color), SHAPES.index(shape)))
        places = (torch.linspace(start, end, length) for start, end in ((x, end_x), (y, end_y)))
        return io.NodeOutput((draw_shapes(*kinds, *places).movedim(1, -1) + 1) / 2)
