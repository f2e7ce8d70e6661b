"""Nodes that save videos."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io, ui
from torch import Tensor

from ..vc_core.media.video import CRF, save_mp4
from .bridge.images import rgb_images
from .bridge.schema import schema

#: Most bytes of a part of the path: file systems allow 255, and a number and a suffix are added.
LONGEST_NAME = 200


def check_name(prefix: str, output: Path) -> None:
    """Check a file name prefix from a graph, which may come from a stranger.

    Args:
        output: the folder that files go into.

    Raises:
        ValueError: the file would be outside of the folder, or the name is not valid.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in prefix):
        raise ValueError(
            f"filename_prefix is {prefix[:100]!r}; it has characters that file names cannot have. Use letters, "
            "digits and - _ . %"
        )
    if any(len(part.encode()) > LONGEST_NAME for part in Path(prefix).parts):
        raise ValueError(
            f"filename_prefix {prefix[:40]!r}... has a part longer than {LONGEST_NAME} bytes. Use a shorter name."
        )
    if not (output / prefix).resolve().is_relative_to(output.resolve()):
        raise ValueError(
            f"filename_prefix is {prefix!r}, which leads out of the output folder {output}. Use a name inside this "
            "folder."
        )


class VideoCrafterSaveVideo(io.ComfyNode):
    """Saves frames as an MP4 with a quality setting, which only the newest releases of ComfyUI have in SaveVideo."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterSaveVideo",
            display_name="VideoCrafter Save Video",
            category="VideoCrafter",
            description=(
                "Saves frames as an MP4 that plays everywhere (H.264, yuv420p). The workflow is stored in the file: "
                "drop the file onto the canvas to load it. For WebM, WebP or PNG use ComfyUI's own nodes."
            ),
            search_aliases=["save video", "mp4", "h264", "crf", "export video", "videocrafter"],
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
                    tooltip="Quality. Lower is better, with larger files. 0: lossless. 17: almost no visible loss. "
                    "23: the default of ComfyUI's SaveVideo.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str, fps: float, crf: float) -> io.NodeOutput:
        frames = rgb_images(images).movedim(1, -1)
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
