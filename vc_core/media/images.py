"""Pictures: reading a file, and fitting one to the size of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import VideoCrafterError


def fit_picture(pictures: Tensor, height: int, width: int) -> Tensor:
    """Pictures in the size of a video: as large as covers it, and of that the middle.

    Args:
        pictures: ``[B, 3, H, W]``, in any range.

    Returns:
        ``[B, 3, height, width]`` in the same range; unchanged where the size is right already.
    """
    scale = max(height / pictures.shape[2], width / pictures.shape[3])
    size = max(height, round(pictures.shape[2] * scale)), max(width, round(pictures.shape[3] * scale))
    if size != tuple(pictures.shape[2:]):
        pictures = torch.nn.functional.interpolate(pictures.float(), size=size, mode="bilinear", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pictures[:, :, top : top + height, left : left + width]


class ImageFileError(VideoCrafterError):
    """A file that can't be read as an image."""


def read_picture(path: Path) -> Tensor:
    """A picture as the models take it: upright, of an animation the first frame, without its alpha.

    Args:
        path: any file that Pillow reads; grey, with a palette, and of 16 bits a channel too.

    Returns:
        ``[3, H, W]`` in [-1, 1].

    Raises:
        ImageFileError: there is no such file, or it is not an image.
    """
    if not path.is_file():
        raise ImageFileError(f"There is no image {path}.")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits, which older Pillows read into 32
                grey = np.asarray(picture, dtype=np.float32).clip(0, 65535) / 65535
                pixels = np.repeat(grey[..., None], 3, axis=2)
            else:
                pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:  # Pillow's for damaged files
        raise ImageFileError(f"{path} can't be read as an image: {error}. Use a PNG, JPEG or WebP file.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1) * 2 - 1
