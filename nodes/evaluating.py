"""Nodes that evaluate videos by EvalCrafter's and VBench's measures."""

from __future__ import annotations

import os
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..vc_core.evaluation.charts import curves
from ..vc_core.evaluation.evaluator import title
from ..vc_core.evaluation.measures import chosen
from ..vc_core.evaluation.results import Row, means
from ..vc_core.evaluation.score import Measure
from .bridge.evaluation import clip_of, divided, rows_of, side_by_side, table_of, tools_of
from .bridge.schema import checked_inputs, schema

#: Measures that take long, which are made only where the user chooses all.
SLOW = ("brisque", "text_rendering")
CHOICES = ("fast", "all")
OpticalFlow = io.Custom("OPTICAL_FLOW")


def _measures(which: str) -> list[Measure]:
    if which not in CHOICES:
        raise ValueError(f"measures is {which!r:.40}; it must be fast or all.")
    return [each for each in chosen([]) if which == "all" or each.name not in SLOW]


def _shared_inputs() -> list[Any]:
    return [
        io.String.Input("prompt", default="", multiline=True, tooltip="What the video was to show. Empty: text alignment is not measured."),
        io.Float.Input("fps", default=8.0, min=0.1, max=240.0, step=0.1, tooltip="Frames per second, for the measures of motion."),
        io.Combo.Input(
            "measures", options=list(CHOICES), default="fast",
            tooltip="fast: all but BRISQUE and the reading of text, which take seconds and need the packages brisque and rapidocr.",
        ),
        io.Clip.Input("clip", optional=True, tooltip="The text encoder of an image-to-video model, for text alignment."),
        io.ClipVision.Input("clip_vision", optional=True, tooltip="The image encoder of the same model, for alignment and consistency."),
        io.Image.Input("image", optional=True, tooltip="The source image, for image fidelity."),
        OpticalFlow.Input("optical_flow", optional=True, tooltip="RAFT of Load Optical Flow Model. Not connected: OpenCV's DIS is used."),
    ]


def _plot_folder() -> None:
    # matplotlib's cache goes into ComfyUI's folders, unless the user set another folder.
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder_paths.get_user_directory(), "matplotlib"))


class VideoCrafterEvaluate(io.ComfyNode):
    """Measures one or several videos."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterEvaluate",
            display_name="VideoCrafter Evaluate",
            category="VideoCrafter",
            description=(
                "Measures videos as EvalCrafter and VBench do: text alignment, consistency, flicker, motion, sharpness. Values with "
                "another model than theirs have its name in parentheses."
            ),
            search_aliases=["measure", "metrics", "vbench", "evalcrafter", "clip score", "optical flow", "quality", "videocrafter"],
            inputs=[
                io.Image.Input("images", tooltip="The frames of a video, or of several of the same length after each other."),
                *_shared_inputs(),
                io.Int.Input(
                    "videos", default=1, min=1, max=64, optional=True,
                    tooltip="How many videos the frames are: a column for each, and the mean.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="The values as a Markdown table."),
                io.Image.Output(display_name="plot", tooltip="The values of each frame or pair of frames."),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, images: Tensor, prompt: str, fps: float, measures: str, clip: Any = None, clip_vision: Any = None,
        image: Tensor | None = None, optical_flow: Any = None, videos: int = 1,
    ) -> io.NodeOutput:
        made = _measures(measures)
        clips = {label: clip_of(frames, fps, prompt, image) for label, frames in divided(images, videos).items()}
        rows = rows_of(clips, made, tools_of(made, clip, clip_vision, optical_flow))
        _plot_folder()
        plot = curves(rows)[None].to(torch.float32)
        mean = {"mean": Row("mean", values=means(rows.values()))} if len(rows) > 1 else {}
        return io.NodeOutput(table_of(rows | mean, title), plot)


class VideoCrafterCompare(io.ComfyNode):
    """Measures two videos and shows them side by side."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterCompare",
            display_name="VideoCrafter Compare",
            category="VideoCrafter",
            description="Measures two videos of one prompt, and puts them side by side above the values of their frames.",
            search_aliases=["measure", "metrics", "side by side", "difference", "a/b", "quality", "videocrafter"],
            inputs=[
                io.Image.Input("images_a", tooltip="The frames of the first video."),
                io.Image.Input("images_b", tooltip="The frames of the second video."),
                *_shared_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="video", tooltip="Both videos side by side above the curves."),
                io.String.Output(display_name="table", tooltip="The values of both as a Markdown table."),
                io.Image.Output(display_name="plot", tooltip="The curves alone."),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, images_a: Tensor, images_b: Tensor, prompt: str, fps: float, measures: str, clip: Any = None, clip_vision: Any = None,
        image: Tensor | None = None, optical_flow: Any = None,
    ) -> io.NodeOutput:
        made = _measures(measures)
        clips = {label: clip_of(each, fps, prompt, image) for label, each in (("A", images_a), ("B", images_b))}
        rows = rows_of(clips, made, tools_of(made, clip, clip_vision, optical_flow))
        _plot_folder()
        plot = curves(rows).to(torch.float32)
        return io.NodeOutput(side_by_side(images_a, images_b, plot), table_of(rows, title), plot[None])
