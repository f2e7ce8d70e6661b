"""Nodes that measure videos."""

from __future__ import annotations

import os
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..vc_core.evaluation.image_fidelity import measure
from .bridge.images import image_embeddings, rgb_images
from .bridge.schema import schema


class VideoCrafterPictureKept(io.ComfyNode):
    """Measures how closely a video follows its source image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterPictureKept",
            display_name="VideoCrafter Image Fidelity",
            category="VideoCrafter",
            description=(
                "Measures how similar each frame is to the source image and to the previous frame. SSIM compares "
                "structure, CLIP compares content. 1 means identical."
            ),
            search_aliases=["measure", "ssim", "clip similarity", "consistency", "quality", "fidelity", "picture kept", "videocrafter"],
            inputs=[
                io.Image.Input("images", tooltip="The frames of one video."),
                io.Image.Input("image", tooltip="The source image of the video."),
                io.ClipVision.Input(
                    "clip_vision", optional=True,
                    tooltip="The image encoder for the CLIP similarity. Not connected: only SSIM is measured.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="A plot of the similarity over the frames."),
                io.String.Output(display_name="table", tooltip="The values as a Markdown table."),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, image: Tensor, clip_vision: Any = None) -> io.NodeOutput:
        if len(image) != 1:
            raise ValueError(f"image has {len(image)} images; exactly one is needed. Use ImageFromBatch to take one.")

        def embed(images: Tensor) -> Tensor:
            return image_embeddings(clip_vision, images)

        # matplotlib's cache goes into ComfyUI's folders, unless the user set another folder.
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder_paths.get_user_directory(), "matplotlib"))
        frames, source = ((rgb_images(each) * 2).sub_(1) for each in (images, image))
        fidelity = measure(frames.transpose(0, 1), source[0], None if clip_vision is None else embed)
        return io.NodeOutput(fidelity.plot()[None].to(torch.float32), fidelity.table())
