"""Writing animated images and folders of images with Pillow."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from .clip import Clip
from .formats import FORMATS, VideoFileError
from .gif import write_gif

#: Milliseconds in which a format counts the time of a frame.
UNITS = {"webp": 1, "gif": 10, "apng": 1}
#: EXIF's numbers for texts, where ComfyUI's page looks for them: a name, a colon and the text. Others than these two follow.
EXIF_TAGS = {"prompt": 0x0110, "workflow": 0x010F}
FIRST_EXIF_TAG = 0xE000
#: Longest name of a text in a PNG.
LONGEST_KEYWORD = 79
#: zlib's level, ComfyUI's: higher ones take much longer and save little.
PNG_LEVEL = 4

logger = logging.getLogger(__name__)


def write_animation(clip: Clip, path: Path, name: str, crf: float | None, tags: Mapping[str, str]) -> None:
    """Write an animated WebP, GIF or PNG. Equal frames that follow each other become one that lasts longer.

    Args:
        path: of the file, which is written directly.
        name: ``webp``, ``gif`` or ``apng``.
        crf: quality of a WebP, which is 100 less crf; None or 0: lossless. Others have none.
        tags: texts by name, each of them JSON: in a WebP as EXIF, in a GIF as a comment, in a PNG as texts.

    Raises:
        VideoFileError: Pillow can't write it. What the system says is an OSError.
    """
    order = clip.order()
    unit = UNITS[name]
    ends = [round(1000 * index / (clip.fps * unit)) * unit for index in range(len(order) + 1)]  # so that the rounding doesn't add up
    durations = [end - start for start, end in zip(ends, ends[1:], strict=False)]
    suffix = FORMATS[name].suffix
    try:
        if name == "gif":  # which counts repetitions
            frames = zip(clip.shown(), (duration // unit for duration in durations), strict=True)
            loops = None if clip.loop_count == 1 else max(0, clip.loop_count - 1)
            write_gif(frames, path, clip.size, loops, _comment(tags) if tags else b"")
            return
        options: dict[str, Any] = {"duration": durations if len(order) > 1 else durations[0], "loop": clip.loop_count}
        if name == "webp":
            options |= {"exif": _exif(tags), **({"quality": round(100 - crf)} if crf else {"lossless": True})}
        else:
            options |= {"pnginfo": _texts(tags)}
        _sequence(clip, order).save(path, suffix[1:].upper(), save_all=True, **options)
    except (ValueError, OverflowError, RuntimeError) as error:  # equal frames become one, which can last too long for the format
        raise VideoFileError(f"{path.name} can't be written as a {suffix}: {error}. Use an .mp4.") from error


def write_images(clip: Clip, folder: Path, tags: Mapping[str, str]) -> None:
    """Write each frame as ``00001.png`` and so on, with the tags in the first."""
    for number, pixels in enumerate(clip.shown(max(1, clip.loop_count)), 1):
        Image.fromarray(pixels).save(folder / f"{number:05}.png", pnginfo=_texts(tags if number == 1 else {}), compress_level=PNG_LEVEL)


def _sequence(clip: Clip, order: list[int]) -> Image.Image:
    """An image of several frames, as Pillow has them of files: each is made when it is sought."""
    image = Image.new("RGB", clip.size)

    def seek(number: int) -> None:
        if number >= len(order):
            raise EOFError
        image.paste(Image.fromarray(clip.pixels(order[number])))

    vars(image).update(n_frames=len(order), is_animated=True, seek=seek)
    seek(0)
    return image


def _exif(tags: Mapping[str, str]) -> Image.Exif:
    exif = Image.Exif()
    others = [name for name in tags if name not in EXIF_TAGS]
    for name, text in tags.items():
        exif[EXIF_TAGS[name] if name in EXIF_TAGS else FIRST_EXIF_TAG + others.index(name)] = f"{name}:{text}"
    return exif


def _comment(tags: Mapping[str, str]) -> bytes:
    """One JSON object of all."""
    return ("{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in tags.items()) + "}").encode()


def _texts(tags: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    for name, text in tags.items():
        if len(name) <= LONGEST_KEYWORD and name.isascii():
            texts.add_text(name, text)
        else:
            logger.warning(f"A PNG has no texts of the name {name!r:.100}: it is left out.")
    return texts
