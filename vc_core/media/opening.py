"""What a file is, before a library decodes it: an ordinary file, of a known kind by its content, and no larger than can be worked with."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from ..errors import VideoCrafterError, printable

#: Pillow's names of the image formats that are read. Others can start programs (PostScript) or are no images from cameras or the web.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
#: Most pixels of an image, or of a frame of a video.
MAX_PIXELS = 50_000_000
#: Most pixels of all frames of a video together, which take 12 bytes each: 40 frames of 4096x4096, or 4000 of 512x320.
MAX_VIDEO_PIXELS = 700_000_000
#: Most scans of a progressive JPEG of :data:`MAX_PIXELS`, of a smaller one accordingly more: encoders write about 10, and each takes
#: the time of a whole image.
MAX_SCANS = 40
#: FFmpeg's demuxers of the containers that are read, by the bytes at an offset that begin such a file.
CONTAINERS = (
    (4, (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof"), "mov"),
    (0, (b"\x1aE\xdf\xa3",), "matroska"),
    (8, (b"AVI ",), "avi"),
    (0, (b"FLV",), "flv"),
    (0, (b"OggS",), "ogg"),
    (0, (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",), "asf"),
    (0, (b"\0\0\1\xba",), "mpeg"),
    (0, (b"G",), "mpegts"),
    (4, (b"G",), "mpegts"),
)
#: Bytes of a packet of an MPEG transport stream, with and without a time stamp; each begins alike.
TRANSPORT_PACKETS = (188, 192)
IMAGE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Unsuitable(VideoCrafterError):
    """Why a file is not read; :func:`decoding` adds which file."""


def container_of(path: Path) -> str | None:
    """FFmpeg's name for a video file's container, by its content; None where it is none that is read."""
    with path.open("rb") as file:
        head = file.read(4 + max(TRANSPORT_PACKETS) + 1)
    for offset, magics, name in CONTAINERS:
        if not head.startswith(magics, offset) or (name == "avi" and not head.startswith(b"RIFF")):
            continue
        if name != "mpegts" or any(head[offset + length : offset + length + 1] == b"G" for length in TRANSPORT_PACKETS):
            return name
    return None


def is_image(path: Path) -> bool:
    """Whether a file's content begins as that of an image does, animated ones included."""
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(IMAGE_MAGIC) or (head.startswith(b"RIFF") and head.startswith(b"WEBP", 8))


def check_ordinary(path: Path, what: str, error: type[VideoCrafterError]) -> None:
    """Refuse what is no file at once: a pipe would be waited for, and a device has no end.

    Raises:
        error: there is no such file, or it is a folder, a pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as failure:  # a name too long, or with a null in it
        raise error(f"There is no {what} {path}: check the path.") from failure
    if not stat.S_ISREG(mode):
        raise error(f"{path} is no {what}: it is a folder, a pipe or a device. Give the path of a file.")


@contextmanager
def decoding(path: Path, what: str, error: type[VideoCrafterError], advice: str) -> Iterator[None]:
    """While a library decodes a file: whatever it raises becomes an error of ours that names the file.

    Libraries raise nearly everything for damaged files: KeyError, struct.error, ZeroDivisionError, MemoryError, and so on.

    Raises:
        error: there is no such file, or something was raised. Errors of ours pass through.
    """
    check_ordinary(path, what, error)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of parts of a file that don't matter here, in the file's words
            yield
    except Exception as failure:
        if isinstance(failure, VideoCrafterError) and not isinstance(failure, Unsuitable):
            raise
        raise error(f"{path} can't be read as {_article(what)}: {_reason(failure)}. {advice}") from failure


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """An image file opened by Pillow, not decoded yet; of a known format and at most :data:`MAX_PIXELS` large.

    Raises:
        Unsuitable: it is larger, or a JPEG of too many scans. Pillow raises others.
    """
    # Not by its name: Pillow would map it into memory, where a file that shrinks kills the process.
    with path.open("rb") as file, Image.open(file, formats=IMAGE_FORMATS) as image:
        check_pixels(*image.size)
        if image.format in ("JPEG", "MPO"):
            _check_scans(file, image.size[0] * image.size[1])
        yield image


def check_pixels(width: int, height: int) -> None:
    """
    Raises:
        Unsuitable: more than :data:`MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise Unsuitable(f"it is {width}x{height}; at most {MAX_PIXELS // 10**6} million pixels are possible")


def check_video_pixels(width: int, height: int, frames: int) -> None:
    """
    Raises:
        Unsuitable: a frame of more than :data:`MAX_PIXELS`, or more than :data:`MAX_VIDEO_PIXELS` in all.
    """
    check_pixels(width, height)
    if width * height * frames > MAX_VIDEO_PIXELS:
        most = MAX_VIDEO_PIXELS // (width * height)
        raise Unsuitable(f"it has {frames} frames or more of {width}x{height}; of this size at most {most} are possible")


def _check_scans(file: BinaryIO, pixels: int) -> None:
    at = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")
    file.seek(at)
    most = MAX_SCANS * MAX_PIXELS // pixels
    if scans > most:
        raise Unsuitable(f"it has {scans} scans; of this size at most {most} are possible")


def _article(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"


def _reason(failure: Any) -> str:
    """What a library said, short and printable, or what it means where the library's words don't tell."""
    if isinstance(failure, MemoryError):
        return "it needs more memory than there is"
    text = printable(str(getattr(failure, "strerror", None) or failure)).rstrip(".")
    if isinstance(failure, Image.DecompressionBombError):
        return f"it is larger than Pillow takes; at most {MAX_PIXELS // 10**6} million pixels are possible"
    if "MAX_TEXT" in text:
        return "its texts (metadata) are larger than any image's should be; save it again without them"
    if "cannot identify image file" in text:
        return "it is damaged, or none of " + ", ".join(IMAGE_FORMATS)
    return text[:200] or type(failure).__name__
