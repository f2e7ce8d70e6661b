"""Reading a picture file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


class PictureError(ValueError):
    """A file that can't be read as a picture."""


def read_picture(path: Path) -> Tensor:
    """A picture as the models take it: upright, of an animation the first frame, without its alpha.

    Args:
        path: any file that Pillow reads; grey, with a palette, and of 16 bits a channel too.

    Returns:
        ``[3, H, W]`` in [-1, 1].

    Raises:
        PictureError: no such file, or no picture in it.
    """
    if not path.is_file():
        raise PictureError(f"There is no picture {path}.")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I;16"):
                grey = np.asarray(picture, dtype=np.float32) / 65535
                pixels = np.repeat(grey[..., None], 3, axis=2)
            else:
                pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise PictureError(f"{path} can't be read as a picture: {error}. A PNG, JPEG or WebP can.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1) * 2 - 1
