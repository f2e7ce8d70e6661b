"""A node that gives the authors' settings of a model, so that a graph needs none of its own."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..vc_core.sampling import suggested_size
from .bridge.frames import LARGEST, size_problem
from .bridge.images import rgb_images
from .bridge.model import config_of
from .bridge.schema import checked_inputs, schema


class VideoCrafterModelSettings(io.ComfyNode):
    """The settings that a model was published with; what the user sets replaces them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterModelSettings",
            display_name="VideoCrafter Model Settings",
            category="VideoCrafter",
            description="Gives the authors' settings for the connected model: size, length, fps, steps, cfg. With another model the "
            "settings change by themselves. Where you enter a number other than 0, this number is used.",
            search_aliases=["defaults", "recommended settings", "resolution", "steps", "cfg", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="The VideoCrafter model that makes the video."),
                io.Int.Input("width", default=0, min=0, max=LARGEST, step=8, tooltip="Width in pixels, a multiple of 8. 0: the model's."),
                io.Int.Input("height", default=0, min=0, max=LARGEST, step=8, tooltip="Height in pixels, a multiple of 8. 0: the model's."),
                io.Int.Input("length", default=0, min=0, max=4096, tooltip="Frames of the video. 0: the model's, which is mostly 16."),
                io.Float.Input("fps", default=0.0, min=0.0, max=120.0, step=1.0, tooltip="Speed of the motion. 0: the model's."),
                io.Int.Input(
                    "steps", default=0, min=0, max=1000,
                    tooltip="Sampling steps: more steps, better quality, more time. 0: the model's, which is 50 for most published models.",
                ),
                io.Image.Input(
                    "image", optional=True,
                    tooltip="The image to make a video from. Width and height then have its aspect ratio, where they are 0.",
                ),
            ],
            outputs=[
                io.Int.Output(display_name="width", tooltip="Width in pixels, for Empty VideoCrafter Latent."),
                io.Int.Output(display_name="height", tooltip="Height in pixels, for Empty VideoCrafter Latent."),
                io.Int.Output(display_name="length", tooltip="Frames of the video, for Empty VideoCrafter Latent."),
                io.Float.Output(
                    display_name="fps", tooltip="The fps condition, for VideoCrafter Conditioning, Image to Video or Interpolation."
                ),
                io.Int.Output(display_name="steps", tooltip="Sampling steps, for VideoCrafter Sampler."),
                io.Float.Output(display_name="cfg", tooltip="CFG scale, for VideoCrafter Sampler."),
                io.Float.Output(display_name="guidance_rescale", tooltip="Guidance rescale, for VideoCrafter Sampler."),
                io.Float.Output(display_name="playback_fps", tooltip="Frames per second of the saved video, for VideoCrafter Save Video."),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, width: int, height: int, length: int, fps: float, steps: int, image: Tensor | None = None
    ) -> io.NodeOutput:
        config = config_of(model)
        sampling = config.sampling
        shape = (sampling.width, sampling.height)
        if image is not None:
            shape = suggested_size(sampling, *reversed(rgb_images(image).shape[2:]))
        size = _size(width, height, shape)
        if problem := size_problem(*size):
            raise ValueError(problem)
        if 0 < fps < 1:
            raise ValueError(f"fps is {fps:g}; it must be 0 (the model's), or 1 to 120.")
        return io.NodeOutput(
            *size, length or sampling.frames, fps or float(config.unet.default_fps), steps or sampling.steps, sampling.guidance_scale,
            sampling.guidance_rescale, float(sampling.playback_fps),
        )


def _size(width: int, height: int, own: tuple[int, int]) -> tuple[int, int]:
    """Width and height, where 0 is filled in: both from `own`, or one by the aspect ratio of `own`."""
    if width and not height:
        return width, max(8, round(width * own[1] / own[0] / 8) * 8)
    if height and not width:
        return max(8, round(height * own[0] / own[1] / 8) * 8), height
    return (width, height) if width else own
