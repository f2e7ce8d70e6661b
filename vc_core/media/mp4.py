"""Writing an MP4 that all players can play: H.264 in its High profile, 4:2:0, with the colours of BT.709 and tags that say so."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, VideoCrafterError

#: Default quality: almost no visible loss.
CRF = 17
#: The best quality that is not lossless: x264 writes all below 1 in a profile (High 4:4:4 Predictive) that browsers don't play.
BEST_CRF = 1
WORST_CRF = 51
#: Largest side in pixels that x264 takes.
LARGEST_MP4_SIDE = 16384
#: Slowest and fastest playback in frames per second.
SPEEDS = 0.01, 1000
#: The colours as FFmpeg's encoders note them in the stream and the file.
COLOURS = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709", "color_range": "tv"}

logger = logging.getLogger(__name__)


class VideoFileError(VideoCrafterError):
    """A video file that can't be written or read."""


def pyav(what: str) -> Any:
    """The package PyAV.

    Args:
        what: it is needed for, for the message.

    Raises:
        VideoFileError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VideoFileError(f"{what} needs PyAV: pip install av, or use a .webp.") from error
    return av


def check_mp4(width: int, height: int, fps: float, crf: float = CRF) -> None:
    """
    Raises:
        VideoFileError: there is no PyAV, or it has no H.264 encoder.
        InputError: a side, speed or quality that can't be written.
    """
    av = pyav("Writing an MP4")
    if "libx264" not in av.codecs_available:
        raise VideoFileError("Writing an MP4 needs a PyAV with the encoder libx264: pip install av, or use a .webp.")
    if max(width, height) > LARGEST_MP4_SIDE:
        raise InputError(f"The video is {width}x{height}; an MP4's sides have at most {LARGEST_MP4_SIDE} pixels.")
    for name, value, low, high in (("fps", fps, *SPEEDS), ("crf", crf, 0, WORST_CRF)):
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"{name} is {value:g}; it must be {low:g} to {high:g}.")


def save_mp4(pixels: np.ndarray, path: Path, fps: float, crf: float = CRF, tags: Mapping[str, str] | None = None) -> None:
    """Write H.264 that all players can play. A warning is logged where that needs a change.

    Args:
        pixels: ``[T, H, W, 3]`` of 8 bits. An odd height or width gets its last row or column twice, since 4:2:0 halves both.
        path: of the file, which is written directly; whatever its name is, it is a file's and no protocol's.
        fps: playback speed in frames per second.
        crf: x264's quality, 1 (best) to 51; 6 more halve the size, roughly. Below 1 the best is written.
        tags: metadata of the file, texts by name.

    Raises:
        InputError: no frames, or a size, speed or quality that can't be written.
        VideoFileError: there is no PyAV, or FFmpeg can't write the file. What the system says is an OSError.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise InputError(f"The frames are {list(pixels.shape)} of {pixels.dtype}; expected are [T, H, W, 3] of 8 bits.")
    height, width = pixels.shape[1:3]
    check_mp4(width, height, fps, crf)
    even = (height % 2, width % 2)
    if any(even):
        logger.warning(
            f"The frames are {width}x{height}; an MP4 that plays everywhere has even sides: saved as {width + even[1]}x{height + even[0]}, "
            "with the last row or column repeated."
        )
    if crf < BEST_CRF:
        logger.warning(f"crf {crf:g} would be lossless, which browsers don't play: saved with crf {BEST_CRF}.")
        crf = BEST_CRF
    av = pyav("Writing an MP4")
    try:
        _write(av, pixels, even, path, fps, crf, tags or {})
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise VideoFileError(f"{path} can't be written as an MP4: {error}.") from error


def _write(av: Any, pixels: np.ndarray, even: tuple[int, int], path: Path, fps: float, crf: float, tags: Mapping[str, str]) -> None:
    from av.video.reformatter import Colorspace

    options = {"movflags": "use_metadata_tags"}
    with av.open(f"file:{os.fspath(path)}", "w", format="mp4", options=options) as container:
        container.metadata.update(tags)
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": f"{crf:g}", **COLOURS})
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = pixels.shape[1] + even[0], pixels.shape[2] + even[1]
        for frame in pixels:
            padded = np.pad(frame, ((0, even[0]), (0, even[1]), (0, 0)), mode="edge") if any(even) else np.ascontiguousarray(frame)
            picture = av.VideoFrame.from_ndarray(padded, format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        container.mux(stream.encode())
