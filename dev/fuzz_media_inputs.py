"""What the fuzz of media tries: each input is made from a number alone, and says what became of it."""

from __future__ import annotations

import io
import math
import os
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from harness import node_pack
from harness.images import apng, progressive_bomb, tiff
from vc_core.errors import VideoCrafterError
from vc_core.evaluation.image_fidelity import measure
from vc_core.media.formats import FORMATS
from vc_core.media.images import fit_image, read_image
from vc_core.media.video import SUFFIXES, read_video, save_video

#: Numbers that files rarely expect.
ODD_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
ODD_FLOATS = (0, -1, 0.001, 0.01, 0.5, 1, 7.5, 8, 24, 50, 51, 60, 90, 91, 1000, 1e9, math.nan, math.inf, -math.inf)
ODD_TEXTS = (
    "", ".", "..", "/", "//", "a/", "a//b", "../a", "a/../..", "a/../b", "take:1", "tcp://1.2.3.4:5", "concat:a|b", "a\0b", "a\x1b[31m",
    "a\nb", "\u202e", "\ud800", "\udcff", "%width%x%height%", "%year%-%month%", "%", "%d", "~", "-", "a b", "ü\u3042", "x" * 199, "x" * 200,
    "x" * 300, "a/" * 3000, "a/" * 40, "con", "a\\b", "*", "'\"", ".hidden", "a_00001_", "a_99999_", "NUL.mp4", " ", "a.", "é" * 100,
)
#: AUDIOs, of which some can't be used.
ODD_SOUNDS: tuple[Any, ...] = (
    {"waveform": torch.rand(1, 2, 5000) - 0.5, "sample_rate": 44100}, {"waveform": torch.rand(1, 1, 9), "sample_rate": 11},
    {"waveform": torch.rand(5000), "sample_rate": 8000}, {"waveform": torch.rand(2, 6, 50), "sample_rate": 48000},
    {"waveform": torch.full((1, 2, 500), math.nan), "sample_rate": 44100}, {"waveform": torch.rand(1, 2, 0), "sample_rate": 44100},
    {"waveform": torch.rand(1, 2, 50), "sample_rate": 0}, {"waveform": torch.rand(1, 1, 1, 5), "sample_rate": 8000}, {"waveform": None},
    "sound", 5,
)


class Fault(Exception):
    """An outcome that may not be."""


@cache
def images() -> list[bytes]:
    """Sound images of all formats, small."""
    generator = np.random.default_rng(0)
    colour = Image.fromarray((generator.random((24, 20, 3)) * 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x112], exif[0x10E] = 6, "described"
    found = [progressive_bomb(24, 3), apng(generator.integers(0, 256, (5, 4)))]
    found += [tiff(generator.integers(0, 200, (5, 4)).astype(kind)) for kind in ("<u1", ">u2", "<u2", "<i4", ">i4", "<f4", ">f4")]
    many = {"save_all": True, "append_images": [colour.rotate(90, expand=False), colour.rotate(180)]}
    for form, options in (
        ("PNG", {}), ("PNG", {"exif": exif}), ("PNG", many), ("JPEG", {}), ("JPEG", {"progressive": True, "exif": exif}), ("WEBP", {}),
        ("WEBP", {"lossless": True, "exif": exif}), ("WEBP", many), ("GIF", {}), ("GIF", many), ("BMP", {}), ("TIFF", {}), ("TIFF", many),
        ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}), ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"exif": exif}),
    ):
        found.append(_encoded(colour, form, **options))
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB"):
        for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
            try:
                found.append(_encoded(colour.convert("RGB").convert("L" if mode in ("I;16", "I", "F") else mode).convert(mode), form))
            except (OSError, ValueError):
                continue  # the format has no such mode
    return found


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@cache
def videos() -> list[bytes]:
    """Sound videos in all containers, small, and animated images."""
    found = []
    for codec, container, pixels in (
        ("libx264", "mp4", "yuv420p"), ("mpeg4", "mov", "yuv420p"), ("libvpx-vp9", "webm", "yuv420p"), ("libvpx", "webm", "yuv420p"),
        ("ffv1", "matroska", "yuv420p"), ("mpeg4", "avi", "yuv420p"), ("mjpeg", "avi", "yuvj420p"), ("rawvideo", "avi", "bgr24"),
        ("flv", "flv", "yuv420p"), ("mpeg2video", "mpegts", "yuv420p"), ("mpeg2video", "mpeg", "yuv420p"), ("wmv2", "asf", "yuv420p"),
    ):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.pix_fmt, stream.width, stream.height = pixels, 32, 32
            for index in range(4):
                frame = np.full((32, 32, 3), index * 60, np.uint8)
                frame[index : index + 9, 3:20] = (200, 30, 90)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(stream.encode())
        found.append(buffer.getvalue())
    return found + [image for image in images() if image[:4] in (b"GIF8", b"RIFF") or b"acTL" in image]


def mutated(content: bytes, other: bytes, pick: random.Random) -> bytes:
    """A file with a few changes: of bits, of numbers, of the order of its parts, or its end cut off."""
    data = bytearray(content)
    for _ in range(pick.choice((1, 1, 1, 2, 3, 8, 30))):
        if len(data) < 8:
            break
        place = pick.randrange(len(data)) if pick.random() < 0.5 else pick.randrange(min(len(data), 200))
        how = pick.randrange(8)
        if how == 0:
            data[place] ^= 1 << pick.randrange(8)
        elif how == 1:
            data[place] = pick.randrange(256)
        elif how == 2:
            number = pick.choice(ODD_NUMBERS) & (0xFFFFFFFF, 0xFFFF)[pick.randrange(2)]
            packed = struct.pack(pick.choice("<>") + ("H" if number < 65536 and pick.random() < 0.5 else "I"), number)
            data[place : place + len(packed)] = packed
        elif how == 3:
            del data[place:]
        elif how == 4:
            del data[place : place + pick.randrange(1, 40)]
        elif how == 5:
            start = pick.randrange(len(data))
            data[place:place] = data[start : start + pick.randrange(1, 200)] * pick.choice((1, 1, 2, 50))
        elif how == 6:
            data[place:] = other[pick.randrange(len(other)) :]
        else:
            data[place : place + pick.randrange(1, 30)] = pick.choice((b"\0", b"\xff")) * pick.randrange(1, 30)
    return _with_checksums(bytes(data)) if pick.random() < 0.7 else bytes(data)


def _with_checksums(content: bytes) -> bytes:
    """A PNG's chunks with their right checksums again, or what was changed would be refused before it is read."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    data, place = bytearray(content), 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if place + 12 + length > len(data):
            break
        data[place + 8 + length : place + 12 + length] = struct.pack(">I", zlib.crc32(data[place + 4 : place + 8 + length]))
        place += 12 + length
    return bytes(data)


def _said(error: BaseException, needs: str = "") -> str:
    """An error of ours, which must be printable and name what it is about."""
    text = str(error)
    if not all(line.isprintable() for line in text.split("\n")) or needs not in text or len(text) < 20:
        raise Fault(f"the message {text!r}") from error
    return "said"


def try_image(number: int, folder: Path) -> str:
    """A damaged image is read and fitted, or refused."""
    pick = random.Random(number)
    path = folder / "damaged.png"
    path.write_bytes(mutated(pick.choice(images()), pick.choice(images()), pick))
    try:
        image = read_image(path)
    except VideoCrafterError as error:
        return _said(error, str(path))
    fitted = fit_image(image[None], *pick.choice(((64, 48), (8, 128))))
    if not (fitted.abs() <= 1.0001).all():
        raise Fault(f"values from {fitted.min()} to {fitted.max()}")
    return "read"


def try_video(number: int, folder: Path) -> str:
    """A damaged video is read, or refused."""
    pick = random.Random(number)
    path = folder / "damaged.mp4"
    path.write_bytes(mutated(pick.choice(videos()), pick.choice(videos()), pick))
    try:
        video = read_video(path)
    except VideoCrafterError as error:
        return _said(error, str(path))
    if video.ndim != 4 or not video.shape[1] or not (video.abs() <= 1).all():
        raise Fault(f"a video {list(video.shape)}")
    return "read"


def try_measuring(number: int, folder: Path) -> str:
    """A damaged video and a damaged image are compared, or refused."""
    pick = random.Random(number)
    sound = pick.random() < 0.4
    (folder / "video").write_bytes(pick.choice(videos()) if sound else mutated(pick.choice(videos()), pick.choice(videos()), pick))
    (folder / "image").write_bytes(mutated(pick.choice(images()), pick.choice(images()), pick))
    try:
        frames, image = read_video(folder / "video"), read_image(folder / "image")
        fidelity = measure(frames[:, :5], image, lambda each: each.mean((2, 3)))
    except VideoCrafterError as error:
        return _said(error)
    if not all(torch.isfinite(values).all() for values in (*fidelity.to_image.values(), *fidelity.to_previous.values())):
        raise Fault("no numbers")
    fidelity.table()
    return "measured"


def try_saving(number: int, folder: Path) -> str:
    """Odd frames under odd names are saved whole, or nothing is changed."""
    pick = random.Random(number)
    sides = [pick.choice((1, 2, 3, 8, 16, 33, 64, 64, 64, 0)) for _ in range(2)]
    frames = torch.rand(pick.choice((3,) * 9 + (1, 4)), pick.choice((1, 2, 5, 5, 5, 0)), *sides) * pick.choice((1, 2, 1e30)) - 1
    if pick.random() < 0.1 and frames.numel():
        frames.flatten()[pick.randrange(frames.numel())] = pick.choice((math.nan, math.inf))
    name = "".join(pick.choice(ODD_TEXTS) for _ in range(pick.choice((1, 1, 2))))
    target = folder / (name.lstrip("/") + pick.choice((*SUFFIXES, ".MP4", ".avi", "")))
    before = _contents(folder)
    try:
        save_video(frames, target, pick.choice((8, pick.choice(ODD_FLOATS))))
    except VideoCrafterError as error:
        if _contents(folder) != before:
            raise Fault(f"files were changed by what was refused: {error}") from error
        return _said(error)
    height, width = sides
    if target.suffix.lower() in (".mp4", ".webm", ".mov"):
        height, width = height + height % 2, width + width % 2
    if read_video(target).shape[2:] != (height, width):
        raise Fault(f"{target} was saved with another size")
    target.unlink()
    return "saved"


def try_node(number: int, folder: Path) -> str:
    """The node Save Video with what strangers' graphs may hold: a new file, or a ValueError with nothing changed."""
    pick = random.Random(number)
    prefix: Any = "".join(pick.choice(ODD_TEXTS) for _ in range(pick.choice((1, 1, 2, 3))))
    prefix = pick.choice((None, 5)) if pick.random() < 0.03 else prefix
    odd = pick.random() < 0.3
    values = {"fps": pick.choice((*ODD_FLOATS, "8", None, True, [8])) if odd else 8.0, "crf": pick.choice(ODD_FLOATS) if odd else 30.0}
    if pick.random() < 0.5:  # else as graphs made before there were these
        values |= {"format": pick.choice([each.title for each in FORMATS.values()]), "ping_pong": pick.random() < 0.3}
        values |= {"loop_count": pick.choice((0, 0, 1, 3))}
        values |= {"audio": pick.choice((None, *ODD_SOUNDS))}
    frames = torch.rand(pick.choice((1, 2)), *(pick.choice((1, 16, 17)) for _ in range(2)), pick.choice((1, 3, 3, 3, 4, 2)))
    circle: dict[str, Any] = {}
    circle["a"] = circle
    extra = pick.choice((
        None, {}, {"workflow": {"a": 1}}, [1], "text", {"a": {1}}, {5: 5}, {"a": circle}, {"a\x1b": 1}, {"a": math.nan}, {"": 1},
        {"title": "\0\x1b", "x=;#\\": "\ud800"}, {"k" * 9999: 0}, {"workflow": "x" * 100_000},
    ))
    before = _contents(folder)
    try:
        node_pack.run("VideoCrafterSaveVideo", extra, pick.choice((None, {"1": {}})), images=frames, filename_prefix=prefix, **values)
    except ValueError as error:
        if _contents(folder) != before:
            raise Fault(f"files were changed by what was refused: {error}") from error
        return _said(error)
    after = _contents(folder)
    new = sorted(set(after) - set(before))
    single = values.get("format") != FORMATS["png"].title
    if not new or (single and len(new) > 1) or any(after.get(name) != content for name, content in before.items()):
        raise Fault(f"not exactly one new file: {set(after) ^ set(before)}")
    if Path(new[0]).suffix == ".mp4" and not values.get("ping_pong"):
        with av.open(io.BytesIO(after[new[0]])) as file:
            if len(list(file.decode(video=0))) != len(frames) * max(1, values.get("loop_count", 1)):
                raise Fault(f"{new} has another number of frames")
    if len(after) > 40:
        for name in sorted(after)[::2]:
            os.unlink(os.path.join(folder, name))
    return "saved"


def _contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder, by their paths in it."""
    paths = [Path(top) / name for top, _, names in os.walk(folder) for name in names]
    return {os.path.relpath(path, folder): path.read_bytes() for path in paths}


KINDS: dict[str, Callable[[int, Path], str]] = {
    "image": try_image, "video": try_video, "measure": try_measuring, "saving": try_saving, "node": try_node,
}
