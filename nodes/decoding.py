"""Nodes that turn latents into frames."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..vc_core.media.images import check_finite
from .bridge.decoding import careful
from .bridge.images import frames_for
from .bridge.schema import checked_inputs, schema


class VideoCrafterDecode(io.ComfyNode):
    """Decodes latents to frames, a few at a time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterDecode",
            display_name="VideoCrafter Decode",
            category="VideoCrafter",
            description=(
                "Decodes a video a few frames at a time, so that long videos fit into memory. Frames are decoded "
                "independently: the result does not depend on frames_at_once."
            ),
            search_aliases=["vae decode", "decode video", "videocrafter"],
            inputs=[
                io.Latent.Input("samples", tooltip="The sampled video latent."),
                io.Vae.Input("vae", tooltip="The model's VAE, or any VAE for Stable Diffusion 1 or 2."),
                io.Int.Input(
                    "frames_at_once", default=4, min=1, max=4096,
                    tooltip="Frames decoded together. Fewer frames need less memory.",
                ),
            ],
            outputs=[io.Image.Output(
                tooltip="The frames, for VideoCrafter Save Video, CreateVideo or any node that takes images.",
            )],
        )

    @classmethod
    @checked_inputs
    def execute(cls, samples: dict[str, Any], vae: Any, frames_at_once: int) -> io.NodeOutput:
        latents = frames_for(vae, samples)
        check_finite(latents, "latents")
        progress = comfy.utils.ProgressBar(len(latents))
        decoded = []
        for chunk in latents.split(frames_at_once):
            comfy.model_management.throw_exception_if_processing_interrupted()
            decoded.append(careful(vae).decode(chunk))
            progress.update(len(chunk))
        frames = torch.cat(decoded)
        check_finite(frames)  # of the whole, so that the error has the frame's number in the video
        return io.NodeOutput(frames)
