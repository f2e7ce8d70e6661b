"""Nodes for prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..vc_core.prompt_schedule import INTERPOLATIONS, encode_prompt, read_schedule
from .bridge.frames import frames_per_video
from .bridge.schedule_plot import plot
from .bridge.schema import advanced, checked_inputs, schema

EXAMPLE = '"0": "a red circle moving right",\n"-1": "a blue circle moving right"'


class VideoCrafterPromptSchedule(io.ComfyNode):
    """A prompt for each frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterPromptSchedule",
            display_name="VideoCrafter Prompt Schedule",
            category="VideoCrafter",
            description="Prompts over time: each frame of the video gets a prompt of its own, mixed between the keys. For any sampler, "
            "context windows included.",
            search_aliases=["prompt travel", "batch prompt schedule", "fizznodes", "prompt scheduling", "keyframes", "videocrafter"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP output of Load VideoCrafter Model."),
                io.String.Input(
                    "schedule", default=EXAMPLE, multiline=True,
                    tooltip='A line for each key: "frame": "prompt". "-1" is the last frame, "0.5" the middle of the video. "0:12" keeps a '
                    'prompt from frame 0 to 11, "8:" from frame 8 to the next key.',
                ),
                io.Int.Input("length", default=16, min=1, max=4096, tooltip="Frames of the video. A connected latent decides instead."),
                io.Combo.Input(
                    "interpolation", options=list(INTERPOLATIONS), default="linear",
                    tooltip="How prompts are mixed between two keys. none: each prompt stays until the next key.",
                ),
                advanced(io.String.Input("before", default="", optional=True, tooltip="Put before every prompt.")),
                advanced(io.String.Input("after", default="", optional=True, tooltip="Put after every prompt.")),
                io.Latent.Input("latent", optional=True, tooltip="The latent that is sampled: its number of frames is taken."),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="A prompt for each frame, for VideoCrafter Conditioning or any node that takes it."),
                io.Image.Output("plot", tooltip="A picture of the schedule: which frame has how much of which prompt."),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, clip: Any, schedule: str, length: int, interpolation: str, before: str = "", after: str = "",
        latent: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        prompts, frames, videos = read_schedule(schedule, before, after, interpolation), length, 1
        if latent is not None:
            frames = frames_per_video(latent)
            videos = len(latent["samples"]) // frames
        values: dict[str, Any] = {}

        def encode(texts: list[str]) -> Any:
            """As CLIPTextEncode: what else a conditioning holds (hooks of the CLIP) is the same for all texts."""
            [[tokens, more], *later] = clip.encode_from_tokens_scheduled(clip.tokenize(texts[0]))
            if later:
                raise ValueError("This CLIP changes during sampling (Set CLIP Hooks with schedule_clip): turn schedule_clip off.")
            values.update(more)
            return tokens

        rows = encode_prompt(encode, prompts, videos, frames).flatten(0, 1)
        return io.NodeOutput([[rows, values]], plot(prompts, frames))
