"""The formats that clips are saved in: what each can hold, who plays it, and which encoder of PyAV writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, VideoCrafterError

#: Default quality: almost no visible loss.
CRF = 17
#: The best H.264 that is not lossless: x264 writes all below 1 in a profile (High 4:4:4 Predictive) that browsers don't play.
BEST_CRF = 1
WORST_CRF = 51
#: The scale of VP9's and AV1's crf, onto which x264's is stretched.
WORST_CRF_OF_WEBM = 63
#: Slowest and fastest playback in frames per second.
SPEEDS = 0.01, 1000
#: The colours as FFmpeg's encoders note them in the stream and the file.
COLOURS = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709", "color_range": "tv"}


class VideoFileError(VideoCrafterError):
    """A video file that can't be written or read."""


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        title: for people, unique.
        suffix: of the file; empty for a folder of images.
        largest, smallest: sides in pixels, the latter after sides became even.
        fastest: playback in frames per second.
        container, encoder, pixels, sound: FFmpeg's names of the container, the encoder, its pixel format and the sound's encoder; all
            empty for what Pillow writes.
        bits: of the pixels that the encoder is given, 8 or 16.
        even: whether the sides must be even, since the colours have half the pixels of the brightness.
        options: of the encoder.
        tag: four letters by which players tell the codec, where FFmpeg's own choice is not the one that all know.
        in_browser: whether browsers play it whatever the machine.
    """

    title: str
    suffix: str
    largest: int
    smallest: int = 1
    fastest: float = SPEEDS[1]
    container: str = ""
    encoder: str = ""
    pixels: str = ""
    sound: str = ""
    bits: int = 8
    even: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    tag: str = ""
    in_browser: bool = True


#: Browsers show a frame of an animated image that lasts 10 ms or less for 100 ms.
FORMATS = {
    "h264": Format(
        "MP4 (H.264)", ".mp4", 16384, container="mp4", encoder="libx264", pixels="yuv420p", sound="aac", even=True, options=COLOURS
    ),
    "h265": Format(
        "MP4 (H.265, 10-bit)", ".mp4", 8192, smallest=64, container="mp4", encoder="libx265", pixels="yuv420p10le", sound="aac", bits=16,
        even=True, options={**COLOURS, "x265-params": "log-level=error"}, tag="hvc1", in_browser=False,
    ),
    "vp9": Format(
        "WebM (VP9)", ".webm", 16384, container="webm", encoder="libvpx-vp9", pixels="yuv420p", sound="libopus", even=True,
        options={**COLOURS, "b": "0", "row-mt": "1"},
    ),
    "av1": Format(
        "WebM (AV1)", ".webm", 8704, smallest=4, container="webm", encoder="libsvtav1", pixels="yuv420p10le", sound="libopus", bits=16,
        even=True, options={**COLOURS, "preset": "6"},
    ),
    "prores": Format(
        "MOV (ProRes 422 HQ)", ".mov", 16384, container="mov", encoder="prores_ks", pixels="yuv422p10le", sound="pcm_s16le", bits=16,
        even=True, options={**COLOURS, "profile": "hq", "vendor": "apl0"}, in_browser=False,
    ),
    "ffv1": Format(
        "MKV (FFV1, lossless)", ".mkv", 16384, container="matroska", encoder="ffv1", pixels="gbrp16le", sound="flac", bits=16,
        options={"level": "3", "slicecrc": "1"}, in_browser=False,
    ),
    "webp": Format("WebP", ".webp", 16383, fastest=90),
    "gif": Format("GIF", ".gif", 65535, fastest=50),
    "apng": Format("animated PNG", ".png", 65535, fastest=90),
    "png": Format("PNG frames", "", 65535),
}
BY_TITLE = {each.title: name for name, each in FORMATS.items()}
#: The format of a file name's ending.
BY_SUFFIX = {".mp4": "h264", ".webm": "vp9", ".mov": "prores", ".mkv": "ffv1", ".webp": "webp", ".gif": "gif", ".png": "apng"}


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


def format_of(path: Path, name: str | None = None) -> str:
    """The name of the format that a file is to have.

    Args:
        name: of the format, where the ending of the file's name is not to decide.

    Raises:
        InputError: no such format.
        VideoFileError: the file's name has another ending.
    """
    if name is None:
        if path.suffix.lower() not in BY_SUFFIX:
            raise VideoFileError(f"{path} should end in one of {', '.join(BY_SUFFIX)}.")
        return BY_SUFFIX[path.suffix.lower()]
    if name not in FORMATS:
        raise InputError(f"The format is {name!r:.80}; possible are {', '.join(FORMATS)}.")
    suffix = FORMATS[name].suffix
    if suffix and path.suffix.lower() != suffix:
        raise VideoFileError(f"{path} should end in {suffix}, as {FORMATS[name].title} files do.")
    return name


def check_encoder(name: str, sound: bool = False) -> None:
    """Check that this PyAV can write a format.

    Args:
        sound: whether there is sound to be written, too.

    Raises:
        VideoFileError: there is no PyAV, or it lacks an encoder; the message names the formats that can be written.
    """
    form = FORMATS[name]
    if not form.encoder:
        return
    known = pyav(f"Writing {form.title}").codecs_available
    for encoder in (form.encoder, form.sound) if sound else (form.encoder,):
        if encoder not in known:
            possible = [each.title for each in FORMATS.values() if not each.encoder or each.encoder in known]
            raise VideoFileError(
                f"{form.title} needs a PyAV with the encoder {encoder}, which this one lacks: pip install --upgrade av, or use one of "
                f"{', '.join(possible)}."
            )


def check_format(name: str, width: int = 0, height: int = 0, fps: float = 1, crf: float | None = None) -> None:
    """Check what can be known before a clip is written.

    Args:
        width, height: in pixels; 0 where they aren't known yet.
        crf: quality, None for the format's own.

    Raises:
        InputError: a size, speed or quality that the format doesn't have.
        VideoFileError: as :func:`check_encoder`.
    """
    form = FORMATS[name]
    shown = form.suffix or form.title
    largest, smallest = max(width, height), min(width, height)
    if largest > form.largest:
        raise InputError(
            f"The video is {width}x{height}; the sides of a {shown} have at most {form.largest} pixels. Make it smaller, or use another "
            "format."
        )
    if smallest and smallest + smallest % 2 * form.even < form.smallest:
        raise InputError(
            f"The video is {width}x{height}; the sides of {form.title} have at least {form.smallest} pixels. Use MP4 (H.264) or PNG frames."
        )
    if not (math.isfinite(fps) and SPEEDS[0] <= fps <= form.fastest):
        advice = " Use an .mp4 for more." if form.fastest < fps < math.inf or (fps == math.inf and form.fastest < SPEEDS[1]) else ""
        raise InputError(
            f"The playback speed is {fps:g} frames per second; a {shown} can have {SPEEDS[0]:g} to {form.fastest:g}.{advice}"
        )
    if crf is not None and not (math.isfinite(crf) and 0 <= crf <= WORST_CRF):
        raise InputError(f"crf is {crf:g}; it must be 0 to {WORST_CRF}.")
    check_encoder(name)
