"""Nodes that tell the model what to make."""

from __future__ import annotations

from typing import Any

import node_helpers
import torch
from comfy_api.latest import io
from torch import Tensor

from .bridge.encoders import image_features, keyframe_latents
from .bridge.frames import FRAMES_KEY, LARGEST, SMALLEST, empty_latent, frames_per_video, size_problem
from .bridge.model import FEATURES_KEY, FPS_KEY, KEYFRAMES_KEY, STRENGTH_KEY
from .bridge.schema import schema

FPS_TOOLTIP = (
    "High: small steps from frame to frame. Low: large ones. The authors use 28 for VideoCrafter2 and 8 for image to video; trained were "
    "about 8 to 32. DynamiCrafter: 24 at 512 (15 to 30), 10 at 1024 (5 to 15), 5 for interpolation, and at 256 it is the stride between "
    "frames, 3 (1 to 6): there low is slow. VideoCrafter1 at 512 has no such input and ignores it."
)
CLIP_VISION_TOOLTIP = "The image encoder: the loader's, or OpenCLIP ViT-H/14's from CLIPVisionLoader."
LATENT_TOOLTIP = "The latent to be sampled, where it holds several videos: it says how many frames each has."


def _strength() -> io.Float.Input:
    return io.Float.Input(
        "strength", default=1.0, min=0.0, max=5.0, step=0.05, round=0.01,
        tooltip="How strongly the picture's tokens are seen: 1 as trained, 0 not at all.",
    )  # fmt: skip


def _pictured_outputs() -> list[io.Conditioning.Output]:
    return [
        io.Conditioning.Output(display_name="positive", tooltip="Positive with the picture and fps."),
        io.Conditioning.Output(display_name="negative", tooltip="Negative with the empty picture and fps."),
    ]


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
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                io.Image.Input("image", tooltip="The picture, of any size and shape. A batch of pictures makes a video of each."),
                io.Float.Input("fps", default=8.0, min=1.0, max=120.0, step=1.0, tooltip=FPS_TOOLTIP),
                _strength(),
                io.Latent.Input(
                    "latent", optional=True,
                    tooltip="The latent to be sampled. DynamiCrafter needs it; others only where it holds several videos.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="The model's VAE. DynamiCrafter needs it, for the picture's latent."),
            ],  # fmt: skip
            outputs=_pictured_outputs(),
        )

    @classmethod
    def execute(
        cls, positive: Any, negative: Any, clip_vision: Any, image: Tensor, fps: float, strength: float,
        latent: dict[str, Any] | None = None, vae: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        values = {**_motion(fps, latent), STRENGTH_KEY: strength}
        if vae is not None and latent is not None:
            values[KEYFRAMES_KEY] = keyframe_latents(vae, image, None, latent)
        return _with_pictures(positive, negative, clip_vision, image, values)


class VideoCrafterInterpolation(io.ComfyNode):
    """Two pictures, or one to come back to, into a conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterInterpolation",
            display_name="VideoCrafter Interpolation",
            category="VideoCrafter",
            description=(
                "Tells an interpolation model of DynamiCrafter which pictures the video is to begin and to end with. Without an end image "
                "it ends as it begins: a loop."
            ),
            search_aliases=["interpolation", "first last frame", "loop", "start end", "dynamicrafter", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What happens between the pictures."),
                io.Conditioning.Input("negative", tooltip="What is not to be seen; the authors use the empty prompt."),
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                io.Vae.Input("vae", tooltip="The model's VAE, or any of Stable Diffusion 1 or 2."),
                io.Latent.Input("latent", tooltip="The latent to be sampled: its size and its frames are those of the pictures' latents."),
                io.Image.Input("image", tooltip="What the video begins with. A batch of pictures makes a video of each."),
                io.Image.Input("end_image", optional=True, tooltip="What it ends with, as many as there are images. Left out: a loop."),
                io.Float.Input("fps", default=5.0, min=1.0, max=120.0, step=1.0, tooltip=FPS_TOOLTIP),
                _strength(),
            ],
            outputs=_pictured_outputs(),
        )

    @classmethod
    def execute(
        cls, positive: Any, negative: Any, clip_vision: Any, vae: Any, latent: dict[str, Any], image: Tensor, fps: float, strength: float,
        end_image: Tensor | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        end = image if end_image is None else end_image
        if len(end) != len(image):
            raise ValueError(f"There are {len(image)} images to begin with and {len(end)} to end with; give as many of both.")
        values = {**_motion(fps, latent), STRENGTH_KEY: strength, KEYFRAMES_KEY: keyframe_latents(vae, image, end, latent)}
        return _with_pictures(positive, negative, clip_vision, image, values)


class VideoCrafterKeyframes(io.ComfyNode):
    """Many pictures into the conditioning of a chain of clips."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterKeyframes",
            display_name="VideoCrafter Keyframes",
            category="VideoCrafter",
            description=(
                "Makes a chain of clips through many pictures: each clip begins with one and ends with the next. The clips are sampled as "
                "one batch; VideoCrafter Join Clips makes one video of them after decoding."
            ),
            search_aliases=["keyframes", "interpolation", "chain", "multiple images", "storyboard", "dynamicrafter", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What happens, in all clips."),
                io.Conditioning.Input("negative", tooltip="What is not to be seen; the authors use the empty prompt."),
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                io.Vae.Input("vae", tooltip="The model's VAE, or any of Stable Diffusion 1 or 2."),
                io.Image.Input("keyframes", tooltip="Two pictures or more, in order (ImageBatch makes one batch of several)."),
                io.Int.Input("width", default=512, min=SMALLEST, max=LARGEST, step=8, tooltip="Of the video, a multiple of 8."),
                io.Int.Input("height", default=320, min=SMALLEST, max=LARGEST, step=8, tooltip="Of the video, a multiple of 8."),
                io.Int.Input("length", default=16, min=2, max=4096, tooltip="Frames a clip, both of its pictures among them."),
                io.Boolean.Input("loop", default=False, tooltip="A last clip leads from the last picture back to the first."),
                io.Float.Input("fps", default=5.0, min=1.0, max=120.0, step=1.0, tooltip=FPS_TOOLTIP),
                _strength(),
            ],
            outputs=[*_pictured_outputs(), io.Latent.Output(display_name="latent", tooltip="The empty clips, to be sampled.")],
        )

    @classmethod
    def validate_inputs(cls, width: int | None, height: int | None) -> bool | str:
        """Refuse, before the graph runs, what the autoencoder can't make."""
        return size_problem(width, height) or True

    @classmethod
    def execute(
        cls, positive: Any, negative: Any, clip_vision: Any, vae: Any, keyframes: Tensor, width: int, height: int, length: int, loop: bool,
        fps: float, strength: float,
    ) -> io.NodeOutput:  # fmt: skip
        if len(keyframes) < 2:
            raise ValueError(f"keyframes has {len(keyframes)} picture; a chain needs at least 2. ImageBatch puts pictures together.")
        ends = torch.cat([keyframes[1:], keyframes[:1]]) if loop else keyframes[1:]
        starts = keyframes[: len(ends)]
        latent = empty_latent(width, height, length, len(starts))
        values = {**_motion(fps, latent), STRENGTH_KEY: strength, KEYFRAMES_KEY: keyframe_latents(vae, starts, ends, latent)}
        return io.NodeOutput(*_with_pictures(positive, negative, clip_vision, starts, values).result, latent)


def _with_pictures(positive: Any, negative: Any, clip_vision: Any, image: Tensor, values: dict[str, Any]) -> io.NodeOutput:
    """Both conditionings with these values, the positive with the pictures' features and the negative with the empty one's."""
    grey = torch.full_like(image[:1], 0.5)  # zero to the encoder
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
