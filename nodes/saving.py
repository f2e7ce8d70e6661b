"""Nodes that save videos."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io, ui
from torch import Tensor

from ..vc_core.files import replacing
from ..vc_core.media.mp4 import CRF, check_mp4, save_mp4
from .bridge.images import rgb_images
from .bridge.schema import checked_inputs, schema

#: Most bytes of a part of the path: file systems allow 255, and a number and a suffix are added.
LONGEST_NAME = 200
#: Most bytes of a prefix, and most folders in it.
LONGEST_PREFIX, MOST_PARTS = 1000, 32
#: Name of a file whose prefix has none.
DEFAULT_NAME = "VideoCrafter"


def check_name(prefix: str, output: Path) -> str:
    """Check a file name prefix from a graph, which may come from a stranger.

    Args:
        output: the folder that files go into.

    Returns:
        The prefix with a name at its end: ``video/`` becomes ``video``, and an empty one :data:`DEFAULT_NAME`.

    Raises:
        ValueError: the file would be outside of the folder, or the name is not valid.
    """
    shown = f"{prefix!r:.100}"
    if not isinstance(prefix, str):
        raise ValueError(f"filename_prefix is {shown}; it must be a text, such as video/VideoCrafter.")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in prefix):
        raise ValueError(
            f"filename_prefix is {shown}; it has characters that file names cannot have. Use letters, digits and - _ . %"
        )
    parts = Path(prefix).parts
    if any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise ValueError(
            f"filename_prefix {shown}... has a part longer than {LONGEST_NAME} bytes. Use a shorter name."
        )
    if len(prefix.encode()) > LONGEST_PREFIX or len(parts) > MOST_PARTS:
        raise ValueError(
            f"filename_prefix {shown}... has {len(prefix.encode())} bytes and {len(parts)} parts; at most {LONGEST_PREFIX} bytes and "
            f"{MOST_PARTS} parts are possible. Use a shorter one."
        )
    try:
        inside = (output / prefix).resolve().is_relative_to(output.resolve())
    except (OSError, RuntimeError):  # links that lead to each other
        inside = False
    if not inside:
        raise ValueError(
            f"filename_prefix is {shown}, which leads out of the output folder {output}. Use a name inside this "
            "folder."
        )
    normal = os.path.normpath(prefix)
    return DEFAULT_NAME if normal == os.curdir else normal


@contextmanager
def numbered(prefix: str, output: str, width: int, height: int) -> Iterator[tuple[Path, Path]]:
    """A new file under the next free number, which belongs to it from the first moment on, whatever other programs save.

    Args:
        prefix: see :func:`check_name`; core's variables in it, such as ``%width%``, are filled in.
        output: the folder that files go into.

    Yields:
        The path to write to, and the path of the file, to which the former is renamed when the block ends. If it fails, nothing is
        left of the file.

    Raises:
        ValueError: the file can't be written.
    """
    try:
        folder, name, number, _, _ = folder_paths.get_save_image_path(prefix, output, width, height)
        path = _claimed(Path(folder), name, number)
    except OSError as error:
        where = error.filename or prefix
        raise ValueError(
            f"filename_prefix is {prefix!r:.100}, but the file can't be made: {error.strerror or error} ({where!r:.200}). Use another "
            "prefix, or check the output folder."
        ) from error
    try:
        with replacing(path) as part:
            yield part, path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _claimed(folder: Path, name: str, number: int) -> Path:
    """Create an empty file with the first free number from ``number`` on. No two programs get the same one."""
    for each in count(number):
        path = folder / f"{name}_{each:05}_.mp4"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return path
    raise AssertionError("count() has no end")


def graph_tags(extra_pnginfo: Any, prompt: Any) -> dict[str, str]:
    """The graph as metadata of a file: JSON by name.

    Args:
        extra_pnginfo: what the interface sends along, such as the workflow.

    Raises:
        ValueError: one of them is not what an interface sends.
    """
    if extra_pnginfo is not None and not isinstance(extra_pnginfo, Mapping):
        raise ValueError(f"extra_pnginfo is of the type {type(extra_pnginfo).__name__}; it must be a mapping of names to JSON values.")
    tags = {}
    for name, value in {**(extra_pnginfo or {}), "prompt": prompt}.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(f"extra_pnginfo has the name {name!r:.100}; names must be texts of printable characters.")
        if value is not None:
            try:
                tags[name] = json.dumps(value)
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"{name} can't be stored in the file as JSON: {error}. Start ComfyUI with --disable-metadata.") from error
    return tags


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
                "drop the file onto the canvas to load it. An odd width or height grows by one pixel. For WebM, WebP or PNG use "
                "ComfyUI's own nodes."
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
                    tooltip="Quality. Lower is better, with larger files. 1: the best that plays everywhere; 0 is saved "
                    "as 1. 17: almost no visible loss. 23: the default of ComfyUI's SaveVideo.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    @checked_inputs
    def execute(cls, images: Tensor, filename_prefix: str, fps: float, crf: float) -> io.NodeOutput:
        frames = rgb_images(images).movedim(1, -1)
        _, height, width, _ = frames.shape
        check_mp4(width, height, fps, crf)
        output = folder_paths.get_output_directory()
        prefix = check_name(filename_prefix, Path(output))
        tags = {} if args.disable_metadata else graph_tags(cls.hidden.extra_pnginfo, cls.hidden.prompt)
        pixels = (frames * 255).round_().clamp_(0, 255).byte().cpu().numpy()
        with numbered(prefix, output, width, height) as (part, path):
            save_mp4(pixels, part, fps, crf, tags)
        subfolder = os.path.relpath(path.parent, output)
        place = ui.SavedResult(path.name, "" if subfolder == os.curdir else subfolder, io.FolderType.output)
        return io.NodeOutput(ui=ui.PreviewVideo([place]))
