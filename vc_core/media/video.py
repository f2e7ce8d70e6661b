"""Saving a clip as a file, and reading one."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageSequence
from torch import Tensor

from ..errors import InputError, VideoCrafterError

#: What can be written: MP4 by PyAV, animated images by Pillow.
SUFFIXES = (".mp4", ".webp", ".gif", ".png")
#: Default quality of an MP4: almost no visible loss.
CRF = 17


class VideoFileError(VideoCrafterError):
    """A video file that can't be written or read."""


def check_target(path: Path) -> None:
    """
    Raises:
        VideoFileError: a clip can't be written there: another suffix, no such folder, or a folder of that name.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise VideoFileError(f"{path} should end in one of {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise VideoFileError(f"There is no folder {path.parent}: make it first.")
    if path.is_dir():
        raise VideoFileError(f"{path} is a folder: give the name of a file.")


def save_video(frames: Tensor, path: Path, fps: float) -> None:
    """Write a clip. The suffix decides the form: H.264 in an MP4, or an animated WebP, GIF or PNG.

    Args:
        frames: ``[3, T, H, W]`` in [-1, 1].
        fps: playback speed in frames per second.

    Raises:
        VideoFileError: another suffix, no such folder, PyAV is missing for an MP4, or the file can't be written.
        InputError: ``fps`` is not more than 0.
    """
    check_target(path)
    suffix = path.suffix.lower()
    if fps <= 0:
        raise InputError(f"fps is {fps}; it must be more than 0.")
    pixels = rearrange(((frames + 1) * 127.5).round().clamp(0, 255).byte().cpu(), "c t h w -> t h w c").numpy()
    try:
        if suffix == ".mp4":
            save_mp4(pixels, path, fps)
        else:
            images = [Image.fromarray(frame) for frame in pixels]
            lossless: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
            images[0].save(path, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0, **lossless)
    except OSError as error:  # PyAV's file errors derive from it
        raise VideoFileError(f"{path} can't be written: {error}.") from error


def read_video(path: Path) -> Tensor:
    """All frames of a video or animated image, ``[3, T, H, W]`` in [-1, 1].

    Raises:
        VideoFileError: no such file, it can't be read, or PyAV is missing for a video.
    """
    if not path.is_file():
        raise VideoFileError(f"There is no video {path}: check the path.")
    if path.suffix.lower() in (".webp", ".gif", ".png"):
        try:
            with Image.open(path) as file:
                frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(file)]
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's for damaged files
            raise VideoFileError(f"{path} can't be read as an animated image: {error}.") from error
    else:
        av = _pyav("Reading a video")
        try:
            with av.open(str(path)) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        except (av.FFmpegError, IndexError) as error:
            raise VideoFileError(f"{path} can't be read as a video: {error}.") from error
    return rearrange(torch.from_numpy(np.stack(frames)).float() / 127.5 - 1, "t h w c -> c t h w")


def _pyav(what: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise VideoFileError(f"{what} needs PyAV: pip install av, or use a .webp.") from error
    return av


def save_mp4(pixels: np.ndarray, path: Path, fps: float, crf: float = CRF, tags: Mapping[str, str] | None = None) -> None:
    """Write H.264 that all players can play.

    Args:
        pixels: ``[T, H, W, 3]`` of 8 bits.
        fps: playback speed in frames per second.
        crf: x264's quality, 0 (lossless) to 51; 6 more halve the size, roughly.
        tags: metadata of the file, texts by name.

    Raises:
        VideoFileError: there is no PyAV.
    """
    av = _pyav("Writing an MP4")
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": f"{crf:g}"})
        # 4:2:0 halves both sides, so odd ones need 4:4:4.
        stream.pix_fmt = "yuv420p" if pixels.shape[1] % 2 == 0 and pixels.shape[2] % 2 == 0 else "yuv444p"
        stream.height, stream.width = pixels.shape[1:3]
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
