"""Nodes that save videos, where core's don't do what is wanted."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io, ui
from torch import Tensor

from ..vc_core.media.video import CRF, save_mp4
from .bridge.encoders import rgb_pictures
from .bridge.schema import schema

#: Bytes of a part of a path: file systems take 255, and a number and an ending follow.
LONGEST_NAME = 200


def check_name(prefix: str, output: Path) -> None:
    """A name comes with a graph, and graphs come from anywhere.

    Args:
        output: the folder that files go into.

    Raises:
        ValueError: the file would lie elsewhere, or no file can be called so.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in prefix):
        raise ValueError(f"filename_prefix is {prefix[:100]!r}, with characters that no file's name has. Use letters, digits and - _ . %")
    if any(len(part.encode()) > LONGEST_NAME for part in Path(prefix).parts):
        raise ValueError(f"filename_prefix has a part of more than {LONGEST_NAME} bytes: {prefix[:40]!r}... Use a shorter name.")
    if not (output / prefix).resolve().is_relative_to(output.resolve()):
        raise ValueError(f"filename_prefix is {prefix!r}, which leads out of the output folder {output}. Use a name inside of it.")


class VideoCrafterSaveVideo(io.ComfyNode):
    """Frames to an MP4 of good quality, which core's Save Video offers on its newest releases only."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterSaveVideo",
            display_name="VideoCrafter Save Video",
            category="VideoCrafter",
            description=(
                "Saves frames as an MP4 that plays everywhere (H.264, yuv420p) in a quality of your choice, with the graph inside: drop "
                "the file onto the canvas and the graph is back. For WebM, WebP or PNG use core's saving nodes."
            ),
            search_aliases=["save video", "mp4", "h264", "crf", "export video", "videocrafter"],
            inputs=[
                io.Image.Input("images", tooltip="The frames, from VideoCrafter Decode or VAEDecode."),
                io.String.Input(
                    "filename_prefix", default="video/VideoCrafter",
                    tooltip="Folder and beginning of the name in ComfyUI's output folder; a number follows. %date:yyyy-MM-dd% works.",
                ),
                io.Float.Input(
                    "fps", default=8.0, min=1.0, max=120.0, step=1.0,
                    tooltip="How fast the clip is played. What the model is told of motion is the other fps, of the conditioning.",
                ),
                io.Float.Input(
                    "crf", default=float(CRF), min=0.0, max=51.0, step=1.0,
                    tooltip="Lower is better and larger: 17 can hardly be told from the frames, 23 is what core's Save Video takes.",
                ),
            ],  # fmt: skip
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str, fps: float, crf: float) -> io.NodeOutput:
        frames = rgb_pictures(images).movedim(1, -1)
        _, height, width, _ = frames.shape
        output = folder_paths.get_output_directory()
        check_name(filename_prefix, Path(output))
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, output, width, height)
        graph = {**(cls.hidden.extra_pnginfo or {}), "prompt": cls.hidden.prompt}
        tags = {} if args.disable_metadata else {key: json.dumps(value) for key, value in graph.items() if value is not None}
        pixels = (frames * 255).round().clamp(0, 255).byte().cpu().numpy()
        file = f"{name}_{counter:05}_.mp4"
        save_mp4(pixels, Path(folder) / file, fps, crf, tags)
        return io.NodeOutput(ui=ui.PreviewVideo([ui.SavedResult(file, subfolder, io.FolderType.output)]))
