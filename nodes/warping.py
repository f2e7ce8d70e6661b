"""The node whose noise moves with a clip."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .bridge.images import rgb_frames
from .bridge.schema import checked_inputs, schema
from .bridge.warped_noise import MotionNoise


class VideoCrafterWarpedNoise(io.ComfyNode):
    """The core's noise as a NOISE that moves with a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterWarpedNoise",
            display_name="VideoCrafter Warped Noise",
            category="VideoCrafter",
            description="Motion from a clip: the noise that a video starts from moves with the clip's optical flow. For VideoCrafter "
            "Sampler or SamplerCustomAdvanced, alone or with the clip as input video and denoise below 1.",
            search_aliases=["motion transfer", "optical flow", "go with the flow", "noise warp", "edit video", "videocrafter"],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The clip, with a frame for each frame of the video. Its size is fitted: scaled to cover, cut at the centre.",
                ),
                io.Int.Input(
                    "noise_seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Seed of the noise. In a batch, the second video uses noise_seed + 1, and so on.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=1.0, step=0.05, round=0.01,
                    tooltip="The share of the noise that moves with the clip. 0: the usual noise of the seed.",
                ),
                io.Custom("OPTICAL_FLOW").Input(
                    "optical_flow", optional=True,
                    tooltip="An optical flow model of ComfyUI's Load Optical Flow Model. Without it: OpenCV's DIS, which needs no file.",
                ),
            ],
            outputs=[io.Noise.Output(tooltip="The noise, for VideoCrafter Sampler or SamplerCustomAdvanced.")],
        )

    @classmethod
    @checked_inputs
    def execute(cls, images: Tensor, noise_seed: int, strength: float, optical_flow: Any = None) -> io.NodeOutput:
        return io.NodeOutput(MotionNoise(noise_seed, rgb_frames(images), strength, optical_flow))
