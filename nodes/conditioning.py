"""Nodes that tell the model what to make."""

from __future__ import annotations

from typing import Any, Optional

import node_helpers
from comfy_api.latest import io

from .bridge.frames import frames_per_video
from .bridge.model import FPS_KEY, FRAMES_KEY


class VideoCrafterConditioning(io.ComfyNode):
    """Frames a second, and frames a video, into a conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
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
                io.Float.Input(
                    "fps",
                    default=28.0,
                    min=1.0,
                    max=120.0,
                    step=1.0,
                    tooltip="High: small steps from frame to frame. Low: large ones. The authors use 28 for VideoCrafter2 and 8 for "
                    "image to video; trained were about 8 to 32. VideoCrafter1 at 512 has no such input and ignores it.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The latent to be sampled, where it holds several videos: it says how many frames each has.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="Positive with fps."),
                io.Conditioning.Output(display_name="negative", tooltip="Negative with fps."),
            ],
        )

    @classmethod
    def execute(cls, positive: Any, negative: Any, fps: float, latent: Optional[dict[str, Any]] = None) -> io.NodeOutput:
        values: dict[str, Any] = {FPS_KEY: fps}
        if latent is not None:
            values[FRAMES_KEY] = frames_per_video(latent)
        return io.NodeOutput(
            node_helpers.conditioning_set_values(positive, values), node_helpers.conditioning_set_values(negative, values)
        )
