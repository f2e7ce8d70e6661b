"""Images: reading a file, checking values, and fitting one to the size of a video."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from ..errors import InputError, VideoCrafterError
from .opening import Unsuitable, decoding, opened_image

#: Largest absolute value of an image in [-1, 1]; resizing can overshoot a little.
LARGEST = 1.5
#: How an image that a camera took at this EXIF orientation is turned upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageFileError(VideoCrafterError):
    """A file that can't be read as an image."""


def fit_image(images: Tensor, height: int, width: int) -> Tensor:
    """Images fitted to the size of a video: scaled to cover it, then cut at the centre.

    Where the authors' ``torchvision.transforms.Resize(min(height, width))`` and ``CenterCrop((height, width))`` leave no black
    bars, the result is theirs: the longer side is truncated to a whole number, and half of the rest rounded to an even one. Only
    what is left after the cut is computed, so that the memory doesn't depend on how long an image is.

    Args:
        images: ``[B, 3, H, W]``, in any range.

    Returns:
        ``[B, 3, height, width]`` in the same range; unchanged where the size is right already.
    """
    target, size = (height, width), (images.shape[2], images.shape[3])
    cut = 0 if size[0] * width >= size[1] * height else 1  # the side to cut
    kept, other = target[cut], target[1 - cut]
    scaled = max(kept, other * size[cut] // size[1 - cut])
    first = round((scaled - kept) / 2)  # as CenterCrop does, half to even
    if (scaled, other) == (size[cut], size[1 - cut]):
        return images.narrow(2 + cut, first, kept)
    weights, start = _window(size[cut], scaled, first, kept)
    part = images.narrow(2 + cut, start, weights.shape[1]).float()
    unscaled = (part.shape[2], width) if cut == 0 else (height, part.shape[3])
    part = torch.nn.functional.interpolate(part, size=unscaled, mode="bilinear", antialias=True)
    weights = weights.to(part)
    return weights @ part if cut == 0 else part @ weights.T


def fit_frames(frames: Tensor, height: int, width: int) -> Tensor:
    """:func:`fit_image` for each frame: ``[B, 3, T, H, W]`` -> ``[B, 3, T, height, width]``."""
    fitted = fit_image(frames.movedim(2, 1).flatten(0, 1), height, width)
    return fitted.unflatten(0, (frames.shape[0], frames.shape[2])).movedim(1, 2)


def last_images(first: Tensor, end_image: Tensor | None, loop: bool) -> Tensor | None:
    """The images that clips end with, ``[B, 3, H, W]``; None if they don't end with one.

    Args:
        first: those that they start with, ``[B, 3, H, W]``.
        end_image: ``[B, 3, H, W]`` or ``[3, H, W]`` in [-1, 1].
        loop: the clips end with those that they start with.

    Raises:
        InputError: both a loop and a last image, or the numbers of images differ.
    """
    if end_image is None:
        return first if loop else None
    if loop:
        raise InputError("A loop ends with the image it starts with: give loop=True or an end_image, not both.")
    last = end_image[None] if end_image.ndim == 3 else end_image
    check_images(last, "end_image")
    if len(last) != len(first):
        raise InputError(f"There are {len(first)} images to start from and {len(last)} to end with; give as many of both.")
    return last


def _window(size: int, scaled: int, first: int, count: int) -> tuple[Tensor, int]:
    """Weights ``[count, span]`` of an antialiased linear resize of ``size`` values to ``scaled``, for ``count`` from ``first`` on.

    Returns:
        The weights, and the first of the ``span`` values that they are of.
    """
    scale = torch.tensor(size) / scaled  # in float32, as torch does, whose rounding shifts the centres
    reach = scale.clamp(min=1)  # of the triangle, on either side
    centre = scale * (torch.arange(first, first + count) + 0.5)
    start = max(0, int(centre[0] - reach))
    stop = min(size, int(centre[-1] + reach) + 1)
    distance = torch.arange(start, stop) - centre[:, None] + 0.5
    weights = (1 - distance.abs() * (1 / reach)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True), start


def check_images(images: Tensor, name: str = "images", shape: str = "[B, 3, H, W]") -> None:
    """Check images or frames that are given to a model from Python.

    Args:
        images: of that shape, in [-1, 1].
        name: of the argument, for the message.

    Raises:
        InputError: another shape or type (such as 8 bits), values that are no numbers, or values of another range (such as 0 to 255).
    """
    expected = f"expected are floats {shape} in [-1, 1]"
    if images.ndim != shape.count(",") + 1 or images.shape[1] != 3 or not images.numel():
        raise InputError(f"{name} has the shape {list(images.shape)} of {images.dtype}; {expected}.")
    if not images.is_floating_point():
        raise InputError(f"{name} is of {images.dtype}; {expected}. For 8 bits: {name}.float() / 127.5 - 1.")
    low, high = value_range(images)
    if not np.isfinite((low, high)).all():
        raise InputError(f"{name} holds values that are no numbers (NaN or infinity); {expected}. Check what made it.")
    if max(-low, high) > LARGEST:
        raise InputError(f"{name} has values from {low:g} to {high:g}; {expected}. For 0 to 255: {name} / 127.5 - 1.")


def check_finite(frames: Iterable[Tensor], name: str = "frames") -> None:
    """Check that frames hold numbers, since others would become black.

    Args:
        frames: tensors of any shape, one a frame.
        name: of what they are, for the message.

    Raises:
        InputError: NaN or infinity in a frame.
    """
    wrong = [index for index, frame in enumerate(frames, 1) if not np.isfinite(value_range(frame)).all()]
    if wrong:
        which = f"{len(wrong)} of the {name}, the first of them number {wrong[0]}, hold" if name.endswith("s") else f"The {name} holds"
        raise InputError(
            f"{which} values that are no numbers (NaN or infinity). Numbers became too large on the way: compute in float32 "
            "(in ComfyUI: --fp32-vae, --force-fp32), or with a lower guidance scale."
        )


def value_range(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest value; NaN where any is NaN. Takes no memory beside the values."""
    low, high = values.detach().aminmax()
    return low.item(), high.item()


def read_image(path: Path) -> Tensor:
    """Read an image: rotated as its EXIF data says, the first frame of an animation, without the alpha channel.

    Args:
        path: a PNG, JPEG, WebP, GIF, BMP or TIFF file of at most 50 million pixels, including grey images, palettes, 16 bits per
            channel, and TIFF files of 32-bit integers or floats whose range is clear.

    Returns:
        ``[3, H, W]`` in [-1, 1].

    Raises:
        ImageFileError: there is no such file, it is not an image, it is damaged or too large, or the range of its values isn't known.
    """
    with decoding(path, "image", ImageFileError, "Use a PNG, JPEG or WebP file."), opened_image(path) as image:
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        pixels = rgb_array(image if turn is None else image.transpose(turn), image.format)
        scale = 127.5 if pixels.dtype == np.uint8 else 0.5
        return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(scale).sub_(1)


def _orientation(image: Image.Image) -> Any:
    """EXIF's orientation; a damaged EXIF part counts as none, as in browsers. Pillow has turned a TIFF when it loaded it."""
    try:
        return 1 if image.format == "TIFF" else image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's parser raises nearly anything
        return 1


def rgb_array(image: Image.Image, format: str | None) -> np.ndarray:
    """Pixels ``[H, W, 3]`` of a Pillow image: of 8 bits, or float32 in [0, 1] where it has more.

    Args:
        format: of the file, which the image may have lost when it was changed.

    Raises:
        Unsuitable: numbers of a range that isn't known.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float32)
        sixteen_bits = image.mode.startswith("I;16") or format == "PNG"  # older Pillows read 16 bits into 32
        grey = values / (65535 if sixteen_bits else _white(values, image.mode))
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "La":
        image = image.convert("LA")
    return np.array(image.convert("RGB"))


def _white(values: np.ndarray, mode: str) -> int:
    """The value that stands for white, in an image of 32-bit integers or floats, which doesn't say.

    Raises:
        Unsuitable: it isn't clear.
    """
    low, high = float(values.min()), float(values.max())
    if np.isfinite(low) and np.isfinite(high) and low >= 0:
        if mode == "F" and high <= 1:
            return 1
        if high <= 255 and high != 1 and (values == np.floor(values)).all():
            return 255
        if mode == "I" and 255 < high <= 65535:
            return 65535
    kind = "floats" if mode == "F" else "32-bit integers"
    raise Unsuitable(f"it holds {kind} from {low:g} to {high:g}, of which white isn't known; save it with 8 or 16 bits per channel")
