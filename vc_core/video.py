"""Saving a clip as a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from einops import rearrange
from PIL import Image
from torch import Tensor

#: What can be written: a video by PyAV, animated pictures by Pillow.
SUFFIXES = (".mp4", ".webp", ".gif", ".png")


class VideoFileError(ValueError):
    """A clip that can't be saved under that name, or not on this machine."""


def save_video(frames: Tensor, path: Path, fps: int) -> None:
    """Write a clip. The suffix decides the form: H.264 in an MP4, or an animated WebP, GIF or PNG.

    Args:
        frames: ``[3, T, H, W]`` in [-1, 1].
        fps: frames a second at which it plays.

    Raises:
        VideoFileError: another suffix, no such folder, or an MP4 without PyAV.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise VideoFileError(f"{path} should end in one of {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise VideoFileError(f"There is no folder {path.parent}: make it first.")
    pixels = rearrange(((frames + 1) * 127.5).round().clamp(0, 255).byte().cpu(), "c t h w -> t h w c").numpy()
    if suffix == ".mp4":
        _save_mp4(pixels, path, fps)
    else:
        pictures = [Image.fromarray(frame) for frame in pixels]
        lossless = {"lossless": True} if suffix == ".webp" else {}
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, **lossless)


def _save_mp4(pixels, path: Path, fps: int) -> None:  # type: ignore[no-untyped-def]
    try:
        import av
    except ImportError as error:
        raise VideoFileError("Writing an MP4 needs PyAV (pip install av); a .webp needs nothing more.") from error
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "17"})
        # 4:2:0 halves both sides, so odd ones need 4:4:4.
        stream.pix_fmt = "yuv420p" if pixels.shape[1] % 2 == 0 and pixels.shape[2] % 2 == 0 else "yuv444p"
        stream.height, stream.width = pixels.shape[1:3]
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
