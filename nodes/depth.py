"""The node that adds depth maps to a conditioning."""

from __future__ import annotations

from typing import Any

import node_helpers
from comfy_api.latest import io
from torch import Tensor

from ..vc_core.media.depth import RANGES
from ..vc_core.number_schedule import numbers_over_time
from .bridge.depth import DEPTH_KEY, DepthMaps, check_rows
from .bridge.frames import FRAMES_KEY, frames_per_video
from .bridge.images import rgb_images
from .bridge.schema import advanced, checked_inputs, schema


class VideoCrafterDepthToVideo(io.ComfyNode):
    """Adds a depth map of each frame to a conditioning, for Make-Your-Video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterDepthToVideo",
            display_name="VideoCrafter Depth to Video",
            category="VideoCrafter",
            description=(
                "Adds a depth map of each frame, for Make-Your-Video: the video keeps the structure and the "
                "motion of the maps, and the prompt says what it shows. Any node that estimates depth can make them."
            ),
            search_aliases=["depth", "make-your-video", "structure", "video to video", "silhouette", "gen-1", "videocrafter"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt: what the video shows."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="The negative prompt. The authors leave it empty, or write: monochrome, lowres, worst quality, low quality.",
                ),
                io.Image.Input(
                    "depth",
                    tooltip="A depth map for each frame, near white, of any size: it is scaled to cover the video and cut at the centre.",
                ),
                io.Combo.Input(
                    "range", options=list(RANGES), default="clip",
                    tooltip="What becomes the nearest and the farthest point. clip: those of all frames, so that nothing flickers when a "
                    "thing leaves. frame: those of each frame by itself, as the authors do.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=1.0, step=0.05, round=0.01,
                    tooltip="1: as trained. Lower: flatter maps, which say less. 0: flat maps.",
                ),
                io.String.Input(
                    "strength_over_time", default="", optional=True, multiline=True,
                    tooltip='Strength by frame, multiplied with strength, such as "0": 1.0, "-1": 0.3: from 1 in the first frame to 0.3 in '
                    "the last. Empty: the same for all frames.",
                ),
                advanced(
                    io.Boolean.Input(
                        "invert", default=False, optional=True, tooltip="For maps in which near is black, such as those of distances."
                    )
                ),
                io.Latent.Input(
                    "latent", optional=True,
                    tooltip="The latent to be sampled. It is needed for several videos in one batch, and checks sizes and counts early.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The positive conditioning with the depth maps."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative conditioning with the depth maps."),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, positive: Any, negative: Any, depth: Tensor, range: str, strength: float, strength_over_time: str = "", invert: bool = False,
        latent: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        if isinstance(depth, Tensor) and depth.ndim == 4 and not len(depth):
            raise ValueError("There are 0 depth maps: connect a depth map for each frame of the video.")
        maps = rgb_images(depth).mean(dim=1, keepdim=True)
        rows, values, size = len(maps), dict[str, Any](), None
        frames = rows
        if latent is not None:
            samples, frames = latent["samples"], frames_per_video(latent)
            check_rows(rows, len(samples), frames)
            size = tuple(samples.shape[-2:])
            if frames < len(samples):
                values[FRAMES_KEY] = frames
        over_time = numbers_over_time(strength_over_time.strip() or "1", frames, 0.0, 1.0, "strength_over_time")
        strengths = tuple(strength * each for each in over_time) * (rows // frames)
        values[DEPTH_KEY] = DepthMaps(-maps if invert else maps, range, strengths, size)
        return io.NodeOutput(
            node_helpers.conditioning_set_values(positive, values), node_helpers.conditioning_set_values(negative, values)
        )
