"""Nodes that save videos."""

from __future__ import annotations

import logging
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import InputImpl, Types, io, ui
from torch import Tensor

from ..vc_core.errors import VideoCrafterError
from ..vc_core.media.clip import MOST_PLAYS, Clip
from ..vc_core.media.formats import BY_TITLE, CRF, FORMATS, check_encoder, check_format
from ..vc_core.media.sound import read_audio
from ..vc_core.media.video import write_clip
from .bridge.images import rgb_frames
from .bridge.metadata import graph_tags
from .bridge.output import check_name, numbered
from .bridge.schema import checked_inputs, schema

#: The formats of the node; an animated PNG is what few programs know.
TITLES = [each.title for name, each in FORMATS.items() if name != "apng"]
DEFAULT = FORMATS["h264"].title
#: What is shown in the node for a format that browsers don't play.
PREVIEW, PREVIEW_CRF, PREVIEW_NAME = "h264", 23.0, "VideoCrafter_preview"

logger = logging.getLogger(__name__)


class VideoCrafterSaveVideo(io.ComfyNode):
    """Saves frames, with sound, in many formats, with a quality setting."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterSaveVideo",
            display_name="VideoCrafter Save Video",
            category="VideoCrafter",
            description=(
                "Saves frames as a video, an animated image or PNG frames, with sound if there is any. The default, MP4 (H.264), plays "
                "everywhere. The workflow is stored in the file: drop an MP4, WebM, MOV, WebP or PNG onto the canvas to load it. In "
                "MP4, WebM and MOV an odd width or height grows by one pixel."
            ),
            search_aliases=[
                "save video", "mp4", "h264", "h265", "hevc", "webm", "vp9", "av1", "prores", "ffv1", "gif", "webp", "crf", "export video",
                "video combine", "videocrafter",
            ],
            inputs=[
                io.Image.Input("images", tooltip="The frames, from VideoCrafter Decode or VAEDecode."),
                io.String.Input(
                    "filename_prefix", default="video/VideoCrafter",
                    tooltip="Subfolder of the output folder, and start of the file name. A number is added. "
                    "%date:yyyy-MM-dd% and the like work.",
                ),
                io.Float.Input(
                    "fps", default=8.0, min=1.0, max=120.0, step=1.0,
                    tooltip="Playback speed, in frames per second. The authors save at 8 to 10. The speed of the "
                    "motion is the other fps, in the conditioning.",
                ),
                io.Float.Input(
                    "crf", default=float(CRF), min=0.0, max=51.0, step=1.0,
                    tooltip="Quality. Lower is better, with larger files. 1: the best that plays everywhere; 0 is saved "
                    "as 1. 17: almost no visible loss. 23: the default of ComfyUI's SaveVideo. WebP: 0 is lossless. ProRes, FFV1, GIF and "
                    "PNG have no such setting.",
                ),
                io.Combo.Input(
                    "format", options=TITLES, default=DEFAULT, optional=True,
                    tooltip="MP4 (H.264): for all players. WebM: for the web, smaller. H.265 (10-bit): smoother gradients; for newer "
                    "devices. ProRes: for video editors. FFV1: lossless, for further processing.",
                ),
                io.Int.Input(
                    "loop_count", default=0, min=0, max=MOST_PLAYS, optional=True,
                    tooltip="How many times the clip is played. 0: without end in GIF and WebP, once in the others. In video formats and "
                    "PNG frames, 2 and more are written one after the other.",
                ),
                io.Boolean.Input(
                    "ping_pong", default=False, optional=True,
                    tooltip="Play forwards, then backwards. The first and the last frame are not repeated.",
                ),
                io.Audio.Input(
                    "audio", optional=True,
                    tooltip="Sound, for MP4, WebM, MOV and MKV. It is cut, or filled with silence, to the length of the video.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video",
                    tooltip="The frames, forwards and backwards with ping_pong, and the sound, for ComfyUI's video nodes.",
                )
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, format: str | None = DEFAULT, audio: Any = None) -> bool | str:
        """Refuse a format that this installation can't write, before the graph runs."""
        if format is not None and format not in BY_TITLE:
            return f"format is {format!r:.80}; possible are {', '.join(TITLES)}."
        try:
            check_encoder(BY_TITLE[format or DEFAULT])
        except VideoCrafterError as error:
            return str(error)
        return True

    @classmethod
    @checked_inputs
    def execute(
        cls,
        images: Tensor,
        filename_prefix: str,
        fps: float,
        crf: float,
        format: str = DEFAULT,
        loop_count: int = 0,
        ping_pong: bool = False,
        audio: Any = None,
    ) -> io.NodeOutput:
        if format not in TITLES:
            raise ValueError(f"format is {format!r:.80}; possible are {', '.join(TITLES)}.")
        name = BY_TITLE[format]
        sound = None if audio is None else read_audio(audio)
        clip = Clip(rgb_frames(images), fps, sound=sound, ping_pong=ping_pong is True, loop_count=loop_count)
        check_format(name, *clip.size, fps, crf)
        check_encoder(name, sound is not None)
        output = folder_paths.get_output_directory()
        prefix = check_name(filename_prefix, Path(output))
        tags = {} if args.disable_metadata else graph_tags(cls.hidden.extra_pnginfo, cls.hidden.prompt)
        with numbered(prefix, output, *clip.size, FORMATS[name].suffix) as (part, path):
            write_clip(clip, part, name, crf, tags)
        return io.NodeOutput(_video(clip), ui=_shown(clip, name, path, output))


def _video(clip: Clip) -> Any:
    """The clip as core's VIDEO, played once. Only backwards frames take memory."""
    frames = clip.frames[clip.order()] if clip.ping_pong else clip.frames
    audio = clip.sound.fitted(float(len(frames) / clip.rate)).as_audio() if clip.sound else None
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, audio=audio, frame_rate=Fraction(clip.rate)))


def _shown(clip: Clip, name: str, path: Path, output: str) -> dict[str, Any]:
    """What the node shows: the saved file, or a small one in the folder of temporary files where browsers can't show it.

    ``files`` has the saved one in any case.
    """
    if not FORMATS[name].suffix:
        return {"images": [_place(each, output, io.FolderType.output) for each in sorted(path.iterdir())]}
    saved = _place(path, output, io.FolderType.output)
    if FORMATS[name].in_browser:
        return ui.PreviewVideo([saved]).as_dict()
    temporary = folder_paths.get_temp_directory()
    try:
        with numbered(PREVIEW_NAME, temporary, *clip.size, FORMATS[PREVIEW].suffix) as (part, preview):
            write_clip(clip, part, PREVIEW, PREVIEW_CRF)
    except (VideoCrafterError, ValueError) as error:  # what matters is saved
        logger.warning(f"{path.name} is saved, but can't be shown: {error}")
        return {"files": [saved]}
    return {**ui.PreviewVideo([_place(preview, temporary, io.FolderType.temp)]).as_dict(), "files": [saved]}


def _place(path: Path, folder: str, kind: io.FolderType) -> ui.SavedResult:
    subfolder = os.path.relpath(path.parent, folder)
    return ui.SavedResult(path.name, "" if subfolder == os.curdir else subfolder, kind)
