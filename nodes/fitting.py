"""Nodes that fit clips of other programs to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..vc_core.media.fitting import Fitted, Wanted, fit_file, fit_frames
from ..vc_core.media.sound import read_audio
from .bridge.clips import file_of
from .bridge.frames import LARGEST, SMALLEST, size_problem
from .bridge.images import rgb_frames
from .bridge.progress_text import show
from .bridge.schema import checked_inputs, schema


class VideoCrafterFitVideo(io.ComfyNode):
    """Fits a clip of a loading node to a model: number of frames, frame rate and size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterFitVideo",
            display_name="VideoCrafter Fit Video",
            category="VideoCrafter",
            description=(
                "Fits a clip of ComfyUI's Load Video, or of VideoHelperSuite, to a model: number of frames, frame rate and size. The node "
                "shows what was done. Of a video file, no more than needed is decoded."
            ),
            search_aliases=["load video", "resample video", "frame rate", "video to video", "resize video", "trim video", "videocrafter"],
            inputs=[
                io.Int.Input(
                    "width", default=512, min=SMALLEST, max=LARGEST, step=8,
                    tooltip="Width in pixels, a multiple of 8. The frames are scaled to cover the size, and cut at the centre.",
                ),
                io.Int.Input("height", default=320, min=SMALLEST, max=LARGEST, step=8, tooltip="Height in pixels, a multiple of 8."),
                io.Int.Input(
                    "length", default=16, min=0, max=4096,
                    tooltip="Number of frames. The models were trained on 16. 0: all frames of the clip; sample them in context windows of "
                    "16.",
                ),
                io.Float.Input(
                    "fps", default=8.0, min=0.0, max=120.0, step=1.0,
                    tooltip="Frames per second to take from the clip. 0: all of its frames. If the clip is too short for the length, its "
                    "frames are spread evenly, and the fps output tells their rate.",
                ),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=86400.0, step=0.1, tooltip="Where to begin in the clip, in seconds."
                ),
                io.Float.Input(
                    "source_fps", default=24.0, min=0.01, max=1000.0, step=1.0,
                    tooltip="Frame rate of images, as their loading node tells it. A video has its own.",
                ),
                io.Video.Input("video", optional=True, tooltip="The clip, from Load Video."),
                io.Image.Input("images", optional=True, tooltip="Or its frames, from VideoHelperSuite's Load Video or another node."),
                io.Audio.Input("audio", optional=True, tooltip="Sound of the images. A video has its own."),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames, for VAE Encode and the other nodes."),
                io.Audio.Output(display_name="audio", tooltip="Their sound, for VideoCrafter Save Video; nothing if there is none."),
                io.Float.Output(display_name="fps", tooltip="Frame rate of the frames, for VideoCrafter Save Video."),
                io.String.Output(display_name="summary", tooltip="What was done, as text."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, width: int | None, height: int | None) -> bool | str:
        """Refuse sizes that the autoencoder cannot make, before the graph runs."""
        return size_problem(width, height) or True

    @classmethod
    @checked_inputs
    def execute(
        cls,
        width: int,
        height: int,
        length: int,
        fps: float,
        start: float,
        source_fps: float,
        video: Any = None,
        images: Tensor | None = None,
        audio: Any = None,
    ) -> io.NodeOutput:
        if (video is None) == (images is None):
            raise ValueError("Connect a video, or images: one of the two.")
        wanted = Wanted(width, height, length, fps, start)
        fitted = _fit_images(images, source_fps, audio, wanted) if images is not None else _fit_video(video, wanted)
        show(cls, fitted.told)
        sound = None if fitted.sound is None else fitted.sound.as_audio()
        return io.NodeOutput(fitted.frames, sound, fitted.fps, fitted.told)


def _fit_video(video: Any, wanted: Wanted) -> Fitted:
    """Fit a VIDEO, by its file where it is the whole of one."""
    path = file_of(video)
    if path is not None:
        return fit_file(Path(path), wanted)
    parts = video.get_components()
    return _fit_images(parts.images, float(parts.frame_rate), parts.audio, wanted)


def _fit_images(images: Tensor, fps: float, audio: Any, wanted: Wanted) -> Fitted:
    return fit_frames(rgb_frames(images), fps, wanted, None if audio is None else read_audio(audio))
