"""Saving a clip as a file, and reading one."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from ..errors import InputError
from ..files import check_output, replacing
from .images import check_finite, rgb_array
from .mp4 import LARGEST_MP4_SIDE, SPEEDS, VideoFileError, check_mp4, pyav, save_mp4
from .opening import MAX_PIXELS, Unsuitable, check_video_pixels, container_of, decoding, is_image, opened_image

#: Largest side in pixels of each form that can be written: MP4 by PyAV, animated images by Pillow.
LARGEST_SIDES = {".mp4": LARGEST_MP4_SIDE, ".webp": 16383, ".gif": 65535, ".png": 65535}
SUFFIXES = tuple(LARGEST_SIDES)
#: Fastest playback of each form in frames per second. Browsers show a frame of an animated image that lasts 10 ms or less for 100 ms.
FASTEST = {".mp4": SPEEDS[1], ".webp": 90, ".gif": 50, ".png": 90}
#: Milliseconds in which a form counts the time of a frame.
UNITS = {".webp": 1, ".gif": 10, ".png": 1}


def check_target(path: Path, width: int | None = None, height: int | None = None, fps: float | None = None) -> None:
    """Check all that can be known before a clip is made, so that no work is lost.

    Args:
        width, height, fps: of the clip, as far as known.

    Raises:
        VideoFileError: another suffix, or there is no PyAV for an MP4.
        FileWriteError: no such folder, a folder of that name, or the file can't be written.
        InputError: a size or speed that the form doesn't have.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise VideoFileError(f"{path} should end in one of {', '.join(SUFFIXES)}.")
    check_output(path)
    width, height, fps = width or 1, height or 1, 1 if fps is None else fps
    largest = LARGEST_SIDES[suffix]
    if max(width, height) > largest:
        raise InputError(f"The video is {width}x{height}; the sides of a {suffix} have at most {largest} pixels. Make it smaller.")
    if not (math.isfinite(fps) and SPEEDS[0] <= fps <= FASTEST[suffix]):
        advice = " Use an .mp4 for more." if fps > FASTEST[suffix] and suffix != ".mp4" else ""
        bounds = f"{SPEEDS[0]:g} to {FASTEST[suffix]:g}"
        raise InputError(f"The playback speed is {fps:g} frames per second; a {suffix} can have {bounds}.{advice}")
    if suffix == ".mp4":
        check_mp4(width, height, fps)


def save_video(frames: Tensor, path: Path, fps: float) -> None:
    """Write a clip. The suffix decides the form: H.264 in an MP4, or an animated WebP, GIF or PNG.

    The file is complete or not there: an older one of that name stays as it is until then.

    Args:
        frames: ``[3, T, H, W]`` in [-1, 1].
        fps: playback speed in frames per second. The frames of a GIF differ by 10 ms where the whole could not last as long otherwise.

    Raises:
        VideoFileError, FileWriteError: as :func:`check_target`, or the file can't be written.
        InputError: frames of another shape, or that hold no numbers, or a size or speed that the form doesn't have.
    """
    if frames.ndim != 4 or frames.shape[0] != 3 or not frames.numel():
        raise InputError(f"The frames are {list(frames.shape)}; expected are [3, T, H, W], at least one.")
    check_target(path, frames.shape[3], frames.shape[2], fps)
    check_finite(frames.unbind(1))
    pixels = torch.stack([((frame.float() + 1) * 127.5).round().clamp(0, 255).byte().cpu() for frame in frames.unbind(1)])
    with replacing(path) as part:
        if path.suffix.lower() == ".mp4":
            save_mp4(pixels.permute(0, 2, 3, 1).numpy(), part, fps)
        else:
            _save_animation(pixels.permute(0, 2, 3, 1).numpy(), part, path.suffix.lower(), fps)


def read_video(path: Path) -> Tensor:
    """All frames of a video or animated image, ``[3, T, H, W]`` in [-1, 1].

    The content decides what it is: MP4, MOV, WebM, MKV, AVI and other containers, or an image of :data:`.opening.IMAGE_FORMATS`.

    Raises:
        VideoFileError: no such file, it can't be read or is too large, or PyAV is missing for a video.
    """
    with decoding(path, "video", VideoFileError, "Use an MP4, WebM or MKV, or an animated WebP, GIF or PNG."):
        frames = list(_image_frames(path) if is_image(path) else _container_frames(path))
        if not frames:
            raise Unsuitable("it has no frames")
        video = torch.empty(3, len(frames), *frames[0].shape[:2])
        scale = 127.5 if frames[0].dtype == np.uint8 else 0.5
        for index in range(len(frames)):
            video[:, index] = torch.from_numpy(frames[index]).permute(2, 0, 1)
            frames[index] = frames[0][:0]  # its memory is needed
        return video.div_(scale).sub_(1)


def stream_frames(path: Path, most: int) -> Iterator[np.ndarray]:
    """The first ``most`` frames of a video or (animated) image, one after the other, each ``[H, W, 3]`` of 8 bits or in [0, 1].

    Unlike in :func:`read_video`, all frames together can have any number of pixels. The errors are the same.
    """
    with decoding(path, "video", VideoFileError, "Use an MP4, WebM or MKV, or an image."):
        frames = _image_frames(path) if is_image(path) else _container_frames(path, most)
        yield from itertools.islice(frames, most)


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


def _container_frames(path: Path, most: int | None = None) -> Iterator[np.ndarray]:
    """All frames; of a clip whose first ``most`` frames are wanted, the number of frames is not limited here."""
    with _opened_container(path) as (container, stream):
        check_video_pixels(stream.width, stream.height, max(stream.frames, 1) if most is None else 1)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        size = None
        for number, frame in enumerate(container.decode(stream), 1):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise Unsuitable(f"frame {number} is {frame.width}x{frame.height} and the first {size[0]}x{size[1]}")
            check_video_pixels(*size, number if most is None else 1)
            yield frame.to_ndarray(format="rgb24")


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


def _save_animation(pixels: np.ndarray, path: Path, suffix: str, fps: float) -> None:
    images = [Image.fromarray(frame) for frame in pixels]
    unit = UNITS[suffix]
    ends = [round(1000 * index / (fps * unit)) * unit for index in range(len(images) + 1)]  # so that the rounding doesn't add up
    durations: Any = [end - start for start, end in zip(ends, ends[1:], strict=False)]
    if len(images) == 1:
        durations = durations[0]
    lossless: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    try:
        images[0].save(path, suffix[1:].upper(), save_all=True, append_images=images[1:], duration=durations, loop=0, **lossless)
    except (ValueError, OverflowError, RuntimeError) as error:  # equal frames become one, which can last too long for the form
        raise VideoFileError(f"{path.name} can't be written as a {suffix}: {error}. Use an .mp4.") from error
