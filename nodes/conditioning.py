"""Nodes that add fps, images and keyframes to a conditioning."""

from __future__ import annotations

from typing import Any

import node_helpers
import torch
from comfy_api.latest import io
from torch import Tensor

from .bridge.distilled import GUIDANCE_KEY, MOTION_KEY, MOTION_SHARE_KEY
from .bridge.frames import FRAMES_KEY, LARGEST, SMALLEST, empty_latent, frames_per_video, size_problem
from .bridge.images import check_count, image_features, keyframe_latents, one_batch
from .bridge.keyframes import FEATURES_KEY, KEYFRAMES_KEY, PLACE_KEY, ImagePlace
from .bridge.model import FPS_KEY, STRENGTH_KEY
from .bridge.schema import advanced, checked_inputs, schema

FPS_TOOLTIP = (
    "Speed of the motion, not of playback. Higher: less motion from frame to frame. Trained range: about 8 to 32. "
    "VideoCrafter2 and VideoCrafter1 text to video 1024: 28. T2V-Turbo v1: 16, v2: 8. VideoCrafter1 image to video: 8. "
    "DynamiCrafter 512: 24 (15 to 30). DynamiCrafter 1024: 10 (5 to 15). DynamiCrafter interpolation: 5 (5 to 30). "
    "Bundled models: 8. DynamiCrafter 256 takes a frame stride here, 3 (1 to 6): higher means more motion. VideoCrafter1 "
    "text to video 512 ignores fps."
)
CLIP_VISION_TOOLTIP = "The image encoder: CLIP_VISION of Load VideoCrafter Model, or OpenCLIP ViT-H/14 from CLIPVisionLoader."
#: Optional inputs of the keyframes node.
MORE_KEYFRAMES = ("keyframes_2", "keyframes_3", "keyframes_4")
LATENT_TOOLTIP = (
    "The latent to be sampled. Needed only for several videos in one batch: it gives the number of frames per video. "
    "VideoCrafter Sampler works without it."
)


def strength_input() -> io.Float.Input:
    return io.Float.Input(
        "strength", default=1.0, min=0.0, max=5.0, step=0.05, round=0.01,
        tooltip="Strength of the image in cross-attention. 1: as trained. 0: the image is not used in cross-attention.",
    )


def image_outputs() -> list[io.Conditioning.Output]:
    return [
        io.Conditioning.Output(display_name="positive", tooltip="The positive conditioning with the image and fps."),
        io.Conditioning.Output(
            display_name="negative",
            tooltip="The negative conditioning with an empty image and fps.",
        ),
    ]


class VideoCrafterConditioning(io.ComfyNode):
    """Adds fps, a distilled model's scales of guidance, and the number of frames per video, to a conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterConditioning",
            display_name="VideoCrafter Conditioning",
            category="VideoCrafter",
            description=(
                "Sets fps for a text-to-video model. fps controls how much things move from one frame to the next. "
                "The playback speed is set where the video is saved. For distilled models such as T2V-Turbo it also "
                "sets the scale of guidance."
            ),
            search_aliases=["fps", "frame rate", "motion", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt: what the video shows and how it moves."),
                io.Conditioning.Input("negative", tooltip="The negative prompt. The authors leave it empty."),
                io.Float.Input("fps", default=28.0, min=1.0, max=120.0, step=1.0, tooltip=FPS_TOOLTIP),
                io.Latent.Input("latent", optional=True, tooltip=LATENT_TOOLTIP),
                io.Float.Input(
                    "guidance", default=0.0, min=0.0, max=100.0, step=0.5, round=0.01, optional=True,
                    tooltip="For distilled models only, in place of CFG: the scale of guidance that the model reads. "
                    "T2V-Turbo: 7.5 (2 to 15). 0: that of FluxGuidance before this node, or else the model's own.",
                ),
                advanced(
                    io.Float.Input(
                        "motion_guidance", default=0.05, min=-1.0, max=1.0, step=0.01, round=0.001, optional=True,
                        tooltip="For T2V-Turbo v2 only: the scale of motion guidance that the model reads. Its "
                        "authors: 0.05. -1: without it.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "motion_share", default=0.5, min=0.0, max=1.0, step=0.05, round=0.01, optional=True,
                        tooltip="For T2V-Turbo v2 only: share of the run, from its start on, in which motion guidance "
                        "is not 0. Its authors: 0.3 or 0.5.",
                    )
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The positive conditioning with fps."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative conditioning with fps."),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, positive: Any, negative: Any, fps: float, latent: dict[str, Any] | None = None, guidance: float = 0.0,
        motion_guidance: float = 0.05, motion_share: float = 0.5,
    ) -> io.NodeOutput:
        values = {**motion(fps, latent), MOTION_KEY: motion_guidance, MOTION_SHARE_KEY: motion_share}
        if guidance:
            values[GUIDANCE_KEY] = guidance
        return io.NodeOutput(
            node_helpers.conditioning_set_values(positive, values), node_helpers.conditioning_set_values(negative, values)
        )


class VideoCrafterImageToVideo(io.ComfyNode):
    """Adds an image and fps to a conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterImageToVideo",
            display_name="VideoCrafter Image to Video",
            category="VideoCrafter",
            description=(
                "Adds the image to the conditioning of an image-to-video model. The image encoder always sees the "
                "full image, in any aspect ratio. The negative conditioning gets an empty (grey) image, as in the "
                "authors' code."
            ),
            search_aliases=["i2v", "image to video", "picture", "start image", "clip vision", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt: what the video shows and how it moves."),
                io.Conditioning.Input("negative", tooltip="The negative prompt. The authors leave it empty."),
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                io.Image.Input(
                    "image",
                    tooltip="The image, of any size and aspect ratio. A batch of images gives one video per image.",
                ),
                io.Float.Input("fps", default=8.0, min=1.0, max=120.0, step=1.0, tooltip=FPS_TOOLTIP),
                strength_input(),
                io.Latent.Input(
                    "latent", optional=True,
                    tooltip="The latent to be sampled. DynamiCrafter needs it. Other models need it only for several "
                    "videos in one batch.",
                ),
                io.Vae.Input(
                    "vae", optional=True,
                    tooltip="The model's VAE. DynamiCrafter needs it to encode the image.",
                ),
            ],
            outputs=image_outputs(),
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, positive: Any, negative: Any, clip_vision: Any, image: Tensor, fps: float, strength: float,
        latent: dict[str, Any] | None = None, vae: Any = None,
    ) -> io.NodeOutput:
        values = {**motion(fps, latent), STRENGTH_KEY: strength, PLACE_KEY: ImagePlace("first")}
        if latent is not None:
            check_count(image, latent)
        if vae is not None and latent is not None:
            values[KEYFRAMES_KEY] = keyframe_latents(vae, image, None, latent)
        return with_images(positive, negative, clip_vision, image, values)


class VideoCrafterInterpolation(io.ComfyNode):
    """Adds a first and a last image to a conditioning; without a last image, the video is a loop."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterInterpolation",
            display_name="VideoCrafter Interpolation",
            category="VideoCrafter",
            description=(
                "Sets the first and the last image of a video, for DynamiCrafter's interpolation model. Without "
                "end_image, the video ends with its first image: a loop."
            ),
            search_aliases=["interpolation", "first last frame", "loop", "start end", "dynamicrafter", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt: what happens between the two images."),
                io.Conditioning.Input("negative", tooltip="The negative prompt. The authors leave it empty."),
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                io.Vae.Input("vae", tooltip="The model's VAE, or any VAE for Stable Diffusion 1 or 2."),
                io.Latent.Input(
                    "latent",
                    tooltip="The latent to be sampled. It sets the size and the number of frames.",
                ),
                io.Image.Input("image", tooltip="The first image. A batch of images gives one video per image."),
                io.Image.Input(
                    "end_image", optional=True,
                    tooltip="The last image; for a batch, as many as in image. Not connected: a loop.",
                ),
                io.Float.Input("fps", default=5.0, min=1.0, max=120.0, step=1.0, tooltip=FPS_TOOLTIP),
                strength_input(),
            ],
            outputs=image_outputs(),
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, positive: Any, negative: Any, clip_vision: Any, vae: Any, latent: dict[str, Any], image: Tensor, fps: float, strength: float,
        end_image: Tensor | None = None,
    ) -> io.NodeOutput:
        end = image if end_image is None else end_image
        if len(end) != len(image):
            raise ValueError(
                f"image and end_image have {len(image)} and {len(end)} images; connect the same number to both."
            )
        values = {**motion(fps, latent), STRENGTH_KEY: strength, **_ends(vae, image, end, latent)}
        return with_images(positive, negative, clip_vision, image, values)


class VideoCrafterKeyframes(io.ComfyNode):
    """Adds a sequence of keyframes to the conditioning of a chain of clips."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterKeyframes",
            display_name="VideoCrafter Keyframes",
            category="VideoCrafter",
            description=(
                "Prepares a chain of clips through several images: each clip starts with one image and ends with the "
                "next. All clips are sampled as one batch. After decoding, VideoCrafter Join Clips joins them into "
                "one video."
            ),
            search_aliases=["keyframes", "interpolation", "chain", "multiple images", "storyboard", "dynamicrafter", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt, used for all clips."),
                io.Conditioning.Input("negative", tooltip="The negative prompt. The authors leave it empty."),
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                io.Vae.Input("vae", tooltip="The model's VAE, or any VAE for Stable Diffusion 1 or 2."),
                io.Image.Input(
                    "keyframes",
                    tooltip="The first image, or several as one batch, in order. At least two images are needed in all.",
                ),
                io.Int.Input(
                    "width", default=512, min=SMALLEST, max=LARGEST, step=8,
                    tooltip="Width of the video, a multiple of 8.",
                ),
                io.Int.Input(
                    "height", default=320, min=SMALLEST, max=LARGEST, step=8,
                    tooltip="Height of the video, a multiple of 8.",
                ),
                io.Int.Input(
                    "length", default=16, min=2, max=4096,
                    tooltip="Frames per clip, including its first and last image.",
                ),
                io.Boolean.Input("loop", default=False, tooltip="Add a clip from the last image back to the first."),
                io.Float.Input("fps", default=5.0, min=1.0, max=120.0, step=1.0, tooltip=FPS_TOOLTIP),
                strength_input(),
                *(io.Image.Input(name, optional=True, tooltip="More images, after those of the inputs above.") for name in MORE_KEYFRAMES),
            ],
            outputs=[*image_outputs(), io.Latent.Output(display_name="latent", tooltip="The empty clips, for the sampler.")],
        )

    @classmethod
    def validate_inputs(cls, width: int | None, height: int | None) -> bool | str:
        """Refuse sizes that the autoencoder cannot make, before the graph runs."""
        return size_problem(width, height) or True

    @classmethod
    @checked_inputs
    def execute(
        cls, positive: Any, negative: Any, clip_vision: Any, vae: Any, keyframes: Tensor, width: int, height: int, length: int, loop: bool,
        fps: float, strength: float, **more: Tensor,
    ) -> io.NodeOutput:
        keyframes = one_batch([keyframes, *(more[name] for name in MORE_KEYFRAMES if more.get(name) is not None)])
        if len(keyframes) < 2:
            raise ValueError(
                f"keyframes has {len(keyframes)} image; at least 2 are needed. Connect another one to {MORE_KEYFRAMES[0]}, or use Batch "
                "Images to combine them."
            )
        ends = torch.cat([keyframes[1:], keyframes[:1]]) if loop else keyframes[1:]
        starts = keyframes[: len(ends)]
        latent = empty_latent(width, height, length, len(starts))
        values = {**motion(fps, latent), STRENGTH_KEY: strength, **_ends(vae, starts, ends, latent)}
        return io.NodeOutput(*with_images(positive, negative, clip_vision, starts, values).result, latent)


def with_images(positive: Any, negative: Any, clip_vision: Any, image: Tensor, values: dict[str, Any]) -> io.NodeOutput:
    """Both conditionings with these values; the positive gets the images' features, the negative those of an empty image."""
    empty = torch.full_like(image[:1], 0.5)  # grey, which is 0 to the encoder
    return io.NodeOutput(
        node_helpers.conditioning_set_values(positive, {**values, FEATURES_KEY: image_features(clip_vision, image)}),
        node_helpers.conditioning_set_values(negative, {**values, FEATURES_KEY: image_features(clip_vision, empty)}),
    )


def _ends(vae: Any, first: Tensor, last: Tensor, latent: dict[str, Any]) -> dict[str, Any]:
    """The conditioning's values for images at both ends of each video."""
    return {PLACE_KEY: ImagePlace("ends", frames_per_video(latent)), KEYFRAMES_KEY: keyframe_latents(vae, first, last, latent)}


def motion(fps: float, latent: dict[str, Any] | None) -> dict[str, Any]:
    """The conditioning's values for fps and, if there are several videos, for the frames of each; one video can have any length."""
    values: dict[str, Any] = {FPS_KEY: fps}
    if latent is not None and (frames := frames_per_video(latent)) < len(latent["samples"]):
        values[FRAMES_KEY] = frames
    return values
