"""The resizing of the authors' code (``kornia.geometry.resize``) in time and memory proportional to an image's size.

kornia blurs the whole image before it takes a few of its pixels, with a kernel that grows with the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The parameter of PyTorch's cubic interpolation.
CUBIC = -0.75


def resize_cubic(images: Tensor, height: int, width: int) -> Tensor:
    """Images resized cubically with the corners aligned, after a Gaussian blur where they shrink.

    The same numbers as ``kornia.geometry.resize(images, (height, width), interpolation="bicubic", align_corners=True,
    antialias=True)``, up to rounding.

    Args:
        images: ``[B, C, H, W]`` of floats, in any range.

    Returns:
        ``[B, C, height, width]`` in float32; values can leave the range a little.
    """
    images = images.float()
    old, new = images.shape[2:], (height, width)
    blur = any(before > after for before, after in zip(old, new, strict=True))
    for axis in sorted((0, 1), key=lambda each: new[each] / old[each]):  # first the one that leaves less to do
        images = _resize_axis(images, 2 + axis, new[axis], blur)
    return images


def _resize_axis(images: Tensor, dim: int, size: int, blur: bool) -> Tensor:
    """One dimension resized: each new row is a weighted sum of a few old ones."""
    old = images.shape[dim]
    kernel = _gaussian(old, size) if blur else torch.ones(1)
    offsets = torch.arange(len(kernel)) - len(kernel) // 2
    step = torch.tensor(old - 1.0) / max(size - 1, 1)  # in float32, as torch does
    out = images.new_empty([size if each == dim else length for each, length in enumerate(images.shape)])
    for index in range(size):
        position = step * index if size > 1 else torch.tensor(0.0)
        first = int(position)
        taps = torch.arange(first - 1, first + 3).clamp(0, old - 1)
        places = (taps[:, None] + offsets).abs()  # reflected at the first row, and at the last one
        places = torch.where(places >= old, 2 * (old - 1) - places, places)
        start, stop = int(places.min()), int(places.max()) + 1
        parts = _cubic(position - first)[:, None] * kernel
        weights = torch.zeros(stop - start).index_add_(0, (places - start).flatten(), parts.flatten())
        out.select(dim, index).copy_(torch.tensordot(images.narrow(dim, start, stop - start), weights.to(images.device), ([dim], [0])))
    return out


def _gaussian(old: int, new: int) -> Tensor:
    """The blur before ``old`` pixels become ``new``; of an odd number of pixels."""
    sigma = max((old / new - 1) / 2, 0.001)
    size = 1 if old == 1 else int(max(4 * sigma, 3)) // 2 * 2 + 1
    weights = torch.exp(-((torch.arange(size, dtype=torch.float64) - size // 2) ** 2) / (2 * sigma**2))
    return (weights / weights.sum()).float()


def _cubic(fraction: Tensor) -> Tensor:
    """Weights of the four pixels around a position between the second and the third."""
    distance = torch.stack([fraction + 1, fraction, 1 - fraction, 2 - fraction])
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance**2 + 1
    far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return torch.where(distance <= 1, near, far)
