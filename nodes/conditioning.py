"""Nodes that tell the model what to make."""

from __future__ import annotations

from typing import Any

import node_helpers
import torch
from comfy_api.latest import io
from torch import Tensor

from .bridge.encoders import image_features
from .bridge.frames import FRAMES_KEY, frames_per_video
from .bridge.model import FEATURES_KEY, FPS_KEY, STRENGTH_KEY
from .bridge.schema import schema

FPS_TOOLTIP = (
    "High: small steps from frame to frame. Low: large ones. The authors use 28 for VideoCrafter2 and 8 for image to video; trained were "
    "about 8 to 32. VideoCrafter1 at 512 has no such input and ignores it."
)
LATENT_TOOLTIP = "The latent to be sampled, where it holds several videos: it says how many frames each has."


class VideoCrafterConditioning(io.ComfyNode):
    """Frames a second, and frames a video, into a conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterConditioning",
            display_name="VideoCrafter Conditioning",
            category="VideoCrafter",
            description=(
                "Tells the model the frames a second of the video it is to make, which decides how far things move from one frame "
                "to the next. It is not the speed at which the clip is played."
            ),
            search_aliases=["fps", "frame rate", "motion", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What is to be seen."),
                io.Conditioning.Input("negative", tooltip="What is not; the authors use the empty prompt."),
                io.Float.Input("fps", default=28.0, min=1.0, max=120.0, step=1.0, tooltip=FPS_TOOLTIP),
                io.Latent.Input("latent", optional=True, tooltip=LATENT_TOOLTIP),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="Positive with fps."),
                io.Conditioning.Output(display_name="negative", tooltip="Negative with fps."),
            ],
        )

    @classmethod
    def execute(cls, positive: Any, negative: Any, fps: float, latent: dict[str, Any] | None = None) -> io.NodeOutput:
        values = _motion(fps, latent)
        return io.NodeOutput(
            node_helpers.conditioning_set_values(positive, values), node_helpers.conditioning_set_values(negative, values)
        )


class VideoCrafterImageToVideo(io.ComfyNode):
    """A picture, and frames a second, into a conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterImageToVideo",
            display_name="VideoCrafter Image to Video",
            category="VideoCrafter",
            description=(
                "Tells an image-to-video model which picture the video is to keep to. The whole picture is seen, whatever its shape; the "
                "negative gets the empty, grey picture, as the authors have it."
            ),
            search_aliases=["i2v", "image to video", "picture", "clip vision", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What is to be seen, and how it moves."),
                io.Conditioning.Input("negative", tooltip="What is not; the authors use the empty prompt."),
                io.ClipVision.Input(
                    "clip_vision", tooltip="The image encoder: the loader's, or OpenCLIP ViT-H/14's from CLIPVisionLoader."
                ),
                io.Image.Input("image", tooltip="The picture, of any size and shape. A batch of pictures makes a video of each."),
                io.Float.Input("fps", default=8.0, min=1.0, max=120.0, step=1.0, tooltip=FPS_TOOLTIP),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=5.0, step=0.05, round=0.01,
                    tooltip="How strongly the picture is seen: 1 as trained, 0 not at all.",
                ),
                io.Latent.Input("latent", optional=True, tooltip=LATENT_TOOLTIP),
            ],  # fmt: skip
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="Positive with the picture and fps."),
                io.Conditioning.Output(display_name="negative", tooltip="Negative with the empty picture and fps."),
            ],
        )

    @classmethod
    def execute(
        cls, positive: Any, negative: Any, clip_vision: Any, image: Tensor, fps: float, strength: float,
        latent: dict[str, Any] | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        values = {**_motion(fps, latent), STRENGTH_KEY: strength}
        # Mid grey is zero to the encoder.
        grey = torch.full_like(image[:1], 0.5)
        seen, nothing = image_features(clip_vision, image), image_features(clip_vision, grey)
        return io.NodeOutput(
            node_helpers.conditioning_set_values(positive, {**values, FEATURES_KEY: seen}),
            node_helpers.conditioning_set_values(negative, {**values, FEATURES_KEY: nothing}),
        )


def _motion(fps: float, latent: dict[str, Any] | None) -> dict[str, Any]:
    values: dict[str, Any] = {FPS_KEY: fps}
    if latent is not None:
        values[FRAMES_KEY] = frames_per_video(latent)
    return values
