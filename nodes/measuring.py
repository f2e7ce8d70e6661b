"""Nodes that measure videos."""

from __future__ import annotations

import os
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..vc_core.evaluation.image_fidelity import measure
from .bridge.encoders import image_embeddings, rgb_pictures
from .bridge.schema import schema


class VideoCrafterPictureKept(io.ComfyNode):
    """How well a video keeps the picture it was made from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterPictureKept",
            display_name="VideoCrafter Picture Kept",
            category="VideoCrafter",
            description=(
                "Measures how well a video keeps the picture it was made from, and how smoothly it goes on: SSIM compares structure place "
                "by place, CLIP compares content. 1 is equal."
            ),
            search_aliases=["measure", "ssim", "clip similarity", "consistency", "quality", "videocrafter"],
            inputs=[
                io.Image.Input("images", tooltip="The frames of one video."),
                io.Image.Input("image", tooltip="The picture it was made from."),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="For the CLIP similarities; without it there is only SSIM."),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="Similarity over the frames."),
                io.String.Output(display_name="table", tooltip="The numbers, as Markdown."),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, image: Tensor, clip_vision: Any = None) -> io.NodeOutput:
        if len(image) != 1:
            raise ValueError(f"image holds {len(image)} pictures; one is compared with. Take one with ImageFromBatch.")

        def embed(pictures: Tensor) -> Tensor:
            return image_embeddings(clip_vision, pictures)

        # Where matplotlib keeps its list of fonts, unless the user has said: in ComfyUI's folders, as all that is written.
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder_paths.get_user_directory(), "matplotlib"))
        frames, picture = rgb_pictures(images) * 2 - 1, rgb_pictures(image)[0] * 2 - 1
        kept = measure(frames.transpose(0, 1), picture, None if clip_vision is None else embed)
        return io.NodeOutput(kept.plot()[None].to(torch.float32), kept.table())
