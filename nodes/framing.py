"""The node that adds an image for every frame to a conditioning."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .bridge.frames import frames_per_video
from .bridge.images import frame_latents
from .bridge.keyframes import KEYFRAMES_KEY, PLACE_KEY, ImagePlace
from .bridge.model import STRENGTH_KEY
from .bridge.schema import checked_inputs, schema
from .conditioning import CLIP_VISION_TOOLTIP, image_outputs, motion, strength_input, with_images


class VideoCrafterFramesToVideo(io.ComfyNode):
    """Adds an image for every frame to a conditioning, for ViewCrafter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterFramesToVideo",
            display_name="VideoCrafter Frames to Video",
            category="VideoCrafter",
            description=(
                "Sets an image for every frame, for ViewCrafter: the views of a scene, rendered roughly from other nodes' point clouds or "
                "depth maps, become a clean video. The first image also goes through the image encoder."
            ),
            search_aliases=["viewcrafter", "novel view", "point cloud", "rendered frames", "per frame", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt. The authors always use: Rotating view of a scene."),
                io.Conditioning.Input("negative", tooltip="The negative prompt. The authors leave it empty."),
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                io.Vae.Input("vae", tooltip="The model's VAE, or any VAE for Stable Diffusion 1 or 2."),
                io.Latent.Input(
                    "latent",
                    tooltip="The latent to be sampled. It sets the size and the number of frames: 25 for ViewCrafter.",
                ),
                io.Image.Input("images", tooltip="An image for every frame of the latent, in order."),
                io.Float.Input(
                    "fps", default=10.0, min=1.0, max=120.0, step=1.0, tooltip="fps of the model's condition. ViewCrafter: always 10."
                ),
                strength_input(),
                io.Image.Input(
                    "first_image", optional=True,
                    tooltip="The real image in place of the first rendered one; for a batch of videos, one each.",
                ),
                io.Image.Input(
                    "last_image", optional=True,
                    tooltip="The real image in place of the last rendered one, for ViewCrafter's model for several real images.",
                ),
            ],
            outputs=image_outputs(),
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, positive: Any, negative: Any, clip_vision: Any, vae: Any, latent: dict[str, Any], images: Tensor, fps: float, strength: float,
        first_image: Tensor | None = None, last_image: Tensor | None = None,
    ) -> io.NodeOutput:
        frames = frames_per_video(latent)
        encoded = frame_latents(vae, images, {0: first_image, frames - 1: last_image}, latent)
        values = {**motion(fps, latent), STRENGTH_KEY: strength, PLACE_KEY: ImagePlace("frames", frames), KEYFRAMES_KEY: encoded}
        first = images[::frames] if first_image is None else first_image
        return with_images(positive, negative, clip_vision, first, values)
