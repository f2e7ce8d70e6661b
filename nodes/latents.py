"""Nodes that make latents."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io

from .bridge.frames import FRAMES_PER_VIDEO


class EmptyVideoCrafterLatent(io.ComfyNode):
    """A blank video, or several."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyVideoCrafterLatent",
            display_name="Empty VideoCrafter Latent",
            category="VideoCrafter",
            description="A blank video as a batch of frames, to be sampled. The bundled model makes 64x64.",
            search_aliases=["empty video latent", "empty latent", "videocrafter"],
            inputs=[
                io.Int.Input("width", default=512, min=8, max=4096, step=8, tooltip="In pixels, a multiple of 8. The models' own: 512 or 1024."),
                io.Int.Input("height", default=320, min=8, max=4096, step=8, tooltip="In pixels, a multiple of 8. The models' own: 320 or 576."),
                io.Int.Input("length", default=16, min=1, max=4096, tooltip="Frames a video. The models were trained on 16."),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="How many videos to make at once."),
            ],
            outputs=[io.Latent.Output(tooltip="All frames of all videos, one after the other.")],
        )

    @classmethod
    def validate_inputs(cls, width: int, height: int) -> bool | str:
        """Refuse, before the graph runs, what the autoencoder can't make."""
        for name, value in (("width", width), ("height", height)):
            if value % 8:
                return f"{name} is {value}; it must be a multiple of 8, such as {max(8, value // 8 * 8)} or {value // 8 * 8 + 8}."
        return True

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int) -> io.NodeOutput:
        samples = torch.zeros([batch_size * length, 4, height // 8, width // 8], device=comfy.model_management.intermediate_device())
        return io.NodeOutput({"samples": samples, FRAMES_PER_VIDEO: length})
