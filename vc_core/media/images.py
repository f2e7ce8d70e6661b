"""Images: reading a file, and fitting one to the size of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import VideoCrafterError


def fit_image(images: Tensor, height: int, width: int) -> Tensor:
    """Images fitted to the size of a video: scaled to cover it, then cut at the centre.

    Args:
        images: ``[B, 3, H, W]``, in any range.

    Returns:
        ``[B, 3, height, width]`` in the same range; unchanged where the size is right already.
    """
    scale = max(height / images.shape[2], width / images.shape[3])
    size = max(height, round(images.shape[2] * scale)), max(width, round(images.shape[3] * scale))
    if size != tuple(images.shape[2:]):
        images = torch.nn.functional.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return images[:, :, top : top + height, left : left + width]


class ImageFileError(VideoCrafterError):
    """A file that can't be read as an image."""


def read_image(path: Path) -> Tensor:
    """Read an image: rotated as its EXIF data says, the first frame of an animation, without the alpha channel.

    Args:
        path: any file that Pillow reads, including grey images, palettes and 16 bits per channel.

    Returns:
        ``[3, H, W]`` in [-1, 1].

    Raises:
        ImageFileError: there is no such file, or it is not an image.
    """
    if not path.is_file():
        raise ImageFileError(f"There is no image {path}: check the path.")
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits, which older Pillows read into 32
                grey = np.asarray(image, dtype=np.float32).clip(0, 65535) / 65535
                pixels = np.repeat(grey[..., None], 3, axis=2)
            else:
                pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:  # Pillow's for damaged files
        raise ImageFileError(f"{path} can't be read as an image: {error}. Use a PNG, JPEG or WebP file.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1) * 2 - 1
