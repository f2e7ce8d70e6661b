"""Saving a clip as a file, and reading one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ImageSequence
from torch import Tensor

from ..errors import InputError
from ..files import check_output, replacing, replacing_folder
from .animations import write_animation, write_images
from .clip import Clip
from .containers import write_container
from .formats import BY_SUFFIX, FORMATS, VideoFileError, check_format, format_of, pyav
from .images import check_finite, rgb_array
from .opening import MAX_PIXELS, Unsuitable, check_video_pixels, container_of, decoding, is_image, opened_image

#: Endings of the names of files that can be written.
SUFFIXES = tuple(BY_SUFFIX)
#: The value of white in arrays of whole numbers; it is 1 in others.
WHITE = {"uint8": 255, "uint16": 65535}

logger = logging.getLogger(__name__)


def check_target(
    path: Path,
    width: int | None = None,
    height: int | None = None,
    fps: float | None = None,
    format: str | None = None,
    crf: float | None = None,
) -> None:
    """Check all that can be known before a clip is made, so that no work is lost.

    Args:
        width, height, fps: of the clip, as far as known.
        format: as for :func:`save_video`.
        crf: likewise.

    Raises:
        VideoFileError: another suffix, or there is no PyAV or no encoder for the format.
        FileWriteError: no such folder, a folder of that name, or the file can't be written.
        InputError: a size, speed or quality that the format doesn't have.
    """
    name = format_of(path, format)
    check_output(path, folder=not FORMATS[name].suffix)
    check_format(name, width or 0, height or 0, 1 if fps is None else fps, crf)


def save_video(
    frames: Tensor,
    path: Path,
    fps: float,
    format: str | None = None,
    crf: float | None = None,
    ping_pong: bool = False,
    loop_count: int = 0,
) -> None:
    """Write a clip.

    The file is complete or not there: an older one of that name stays as it is until then.

    Args:
        frames: ``[3, T, H, W]`` in [-1, 1].
        path: of the file, or for the format ``png`` of a folder that isn't there yet.
        fps: playback speed in frames per second. The frames of a GIF differ by 10 ms where the whole could not last as long otherwise.
        format: a name of :data:`.formats.FORMATS`; None: by the file name's ending (:data:`.formats.BY_SUFFIX`).
        crf: quality, 0 (best) to 51, for the formats that have one. None: 17, and lossless for WebP.
        ping_pong, loop_count: see :class:`.clip.Clip`.

    Raises:
        VideoFileError, FileWriteError: as :func:`check_target`, or the file can't be written.
        InputError: frames of another shape, or that hold no numbers, or a size, speed or quality that the format doesn't have.
    """
    if frames.ndim != 4 or frames.shape[0] != 3 or not frames.numel():
        raise InputError(f"The frames are {list(frames.shape)}; expected are [3, T, H, W], at least one.")
    check_target(path, frames.shape[3], frames.shape[2], fps, format, crf)
    check_finite(frames.unbind(1))
    name = format_of(path, format)
    clip = Clip(frames.movedim(0, -1), fps, black=-1.0, ping_pong=ping_pong, loop_count=loop_count)
    with (replacing if FORMATS[name].suffix else replacing_folder)(path) as part:
        write_clip(clip, part, name, crf)


def write_clip(clip: Clip, path: Path, name: str, crf: float | None = None, tags: Mapping[str, str] | None = None) -> None:
    """Write a clip in a format. A warning is logged where something of the clip has to be changed or left out for it.

    Args:
        path: of the file, which is written directly, or of an empty folder for images.
        name: of a format of :data:`.formats.FORMATS`.
        crf: quality, see :func:`save_video`.
        tags: metadata, JSON by name; PNG images have them in the first one.

    Raises:
        InputError: a size, speed or quality that the format doesn't have.
        VideoFileError: a library is missing or can't write the file. What the system says is an OSError.
    """
    check_format(name, *clip.size, clip.fps, crf)
    if clip.sound is not None and not FORMATS[name].sound:
        logger.warning(f"{FORMATS[name].title} has no sound: saved without it.")
    if FORMATS[name].encoder:
        write_container(clip, path, name, crf, tags or {})
    elif FORMATS[name].suffix:
        write_animation(clip, path, name, crf, tags or {})
    else:
        write_images(clip, path, tags or {})


def read_video(path: Path, max_frames: int | None = None) -> Tensor:
    """The frames of a video or animated image, ``[3, T, H, W]`` in [-1, 1].

    The content decides what it is: MP4, MOV, WebM, MKV, AVI and other containers, or an image of :data:`.opening.IMAGE_FORMATS`. A
    video that a phone noted to be turned is upright, and one of more than 8 bits a channel keeps them.

    Args:
        max_frames: most frames to decode; None for all.

    Raises:
        VideoFileError: no such file, it can't be read or is too large, or PyAV is missing for a video.
    """
    with decoding(path, "video", VideoFileError, "Use an MP4, WebM or MKV, or an animated WebP, GIF or PNG."):
        frames = list(islice(_image_frames(path) if is_image(path) else _container_frames(path, max_frames), max_frames))
        if not frames:
            raise Unsuitable("it has no frames")
        video = torch.empty(3, len(frames), *frames[0].shape[:2])
        scale = WHITE.get(frames[0].dtype.name, 1) / 2
        for index in range(len(frames)):
            video[:, index] = torch.from_numpy(frames[index].astype(np.float32)).permute(2, 0, 1)
            frames[index] = frames[0][:0]  # its memory is needed
        return video.div_(scale).sub_(1)


def stream_frames(path: Path, most: int) -> Iterator[np.ndarray]:
    """The first ``most`` frames of a video or (animated) image, one after the other, each ``[H, W, 3]`` of 8 or 16 bits or in [0, 1].

    Unlike in :func:`read_video`, all frames together can have any number of pixels. The errors are the same.
    """
    with decoding(path, "video", VideoFileError, "Use an MP4, WebM or MKV, or an image."):
        frames = _image_frames(path) if is_image(path) else map(upright_pixels, decoded(path, kept=1))
        yield from islice(frames, most)


def average_fps(path: Path) -> float:
    """The frames per second of a video or animated image, over all of it; 0 for a still image.

    Raises:
        VideoFileError: as :func:`read_video`, or it doesn't say.
    """
    with decoding(path, "video", VideoFileError, "Use an MP4, WebM or MKV, or an image."):
        if is_image(path):
            with opened_image(path) as image:
                count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
                durations = [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(image)] if count > 1 else []
            return 1000 * count / sum(durations) if sum(durations) else float(count > 1) * 10
        with _opened_container(path) as (_, stream):
            rate = stream.average_rate or stream.guessed_rate
            if not rate:
                raise Unsuitable("it doesn't say how many frames a second has")
            return float(rate)


def _image_frames(path: Path) -> Iterator[np.ndarray]:
    with opened_image(path) as image:
        count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # an MPO is a JPEG with further views
        size = image.size
        check_video_pixels(*size, count)
        for number, frame in enumerate(ImageSequence.Iterator(image), 1):
            if number > count:
                return
            if frame.size != size:
                raise Unsuitable(f"frame {number} is {frame.size[0]}x{frame.size[1]} and the first {size[0]}x{size[1]}")
            yield rgb_array(frame, image.format)


def _container_frames(path: Path, max_frames: int | None) -> Iterator[np.ndarray]:
    for number, frame in enumerate(decoded(path, max_frames), 1):
        check_video_pixels(frame.width, frame.height, number)
        yield upright_pixels(frame)


def decoded(path: Path, kept: int | None = None) -> Iterator[Any]:
    """PyAV's frames of a video file, decoded when they are asked for.

    Args:
        kept: how many of them will be in memory together; None for all.

    Raises:
        Unsuitable: it can't be read, a frame is of another size than the first, or they are too large. PyAV raises others.
    """
    with _opened_container(path) as (container, stream):
        check_video_pixels(stream.width, stream.height, max(1, stream.frames if kept is None else min(kept, stream.frames)))
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        size = None
        for number, frame in enumerate(container.decode(stream), 1):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise Unsuitable(f"frame {number} is {frame.width}x{frame.height} and the first {size[0]}x{size[1]}")
            yield frame


@contextmanager
def _opened_container(path: Path) -> Iterator[tuple[Any, Any]]:
    """A video file opened by PyAV, and its stream of pictures."""
    name = container_of(path)
    if name is None:
        raise Unsuitable("it is damaged, or of a kind that isn't read")
    av = pyav("Reading a video")
    # A name with a colon is no protocol, and nothing in the file can open another address or kind of file.
    options = {"protocol_whitelist": "file", "format_whitelist": av.ContainerFormat(name, "r").name}
    with av.open(f"file:{os.fspath(path)}", format=name, options=options) as container:
        stream = next(iter(container.streams.video), None)
        if stream is None or stream.codec_context is None:
            raise Unsuitable("it has no pictures, or of an unknown codec")
        yield container, stream


def upright_pixels(frame: Any) -> np.ndarray:
    """The pixels ``[H, W, 3]`` of a frame of PyAV, of 8 or 16 bits, turned by what its file says (phones write it)."""
    deep = max(component.bits for component in frame.format.components) > 8
    pixels: np.ndarray = frame.to_ndarray(format="rgb48le" if deep else "rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counterclockwise; PyAV before 14 doesn't tell
    return np.rot90(pixels, turns) if turns else pixels
