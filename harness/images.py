"""Image files that Pillow does not write, made by hand for the tests of reading."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def tiff(values: np.ndarray, width: int | None = None, height: int | None = None) -> bytes:
    """An uncompressed grey TIFF of any type and byte order, which can claim another size."""
    order = ">" if values.dtype.byteorder == ">" else "<"
    rows, columns = values.shape
    data = values.tobytes()
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = [
        (256, 4, width or columns), (257, 4, height or rows), (258, 3, values.dtype.itemsize * 8), (259, 3, 1), (262, 3, 1),
        (273, 4, 8), (277, 3, 1), (278, 4, height or rows), (279, 4, len(data)), (339, 3, sample_format),
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    directory = struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, 1) + packed
    return head + data + directory + struct.pack(order + "I", 0)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def apng(values: np.ndarray) -> bytes:
    """An animated grey PNG of one frame, whose default image (the same) is not part of the animation."""
    height, width = values.shape
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values.astype(np.uint8)))
    frame = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 8, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join((
        png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        png_chunk(b"acTL", struct.pack(">II", 1, 0)),
        png_chunk(b"IDAT", data),
        png_chunk(b"fcTL", frame),
        png_chunk(b"fdAT", struct.pack(">I", 1) + data),
        png_chunk(b"IEND", b""),
    ))


def progressive_bomb(size: int = 64, scans: int = 1000) -> bytes:
    """A progressive JPEG whose last scan is repeated: each takes a decoder the time of a whole image."""
    buffer = io.BytesIO()
    Image.new("L", (size, size), 100).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    at = content.rindex(b"\xff\xda")
    return content[:at] + content[at:-2] * scans + content[-2:]
