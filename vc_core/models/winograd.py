"""Convolutions with fewer multiplications: a quarter of those of 3 x 3, half of those over time.

Lavin and Gray (arXiv:1509.09308), F(4x4, 3x3) and F(4, 3). An output tile of 4 x 4 comes from an input tile of 6 x 6. Both, and the
kernel, are transformed by small constant matrices, between which the convolution is one product of matrices over the channels for each
of the 36 places: 36 multiplications where 144 were. The transforms are products of matrices as well, of the Kronecker square of the
one-dimensional ones, over all tiles at once. Over time a tile is 4 frames of one position, from 6: 6 multiplications where 12 were.

For processors in float32. Rounding errors of 3 x 3 are some ten times those of the direct form, about 1e-6 of the largest value; those
over time are no larger.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: The transforms in one dimension, of the input, of the kernel and of the output (section 4.3 there).
INPUT = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
)  # fmt: skip
KERNEL = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
#: Numbers of the input that are transformed at once: whole pictures, else rows of tiles of one, or positions.
AT_ONCE = 2**20
#: It pays where there are at least so many positions to each input channel: the kernel's transform costs as much as so many.
POSITIONS_PER_CHANNEL = 4
#: The same over time, where the kernel grows to twice its size and not to four times.
TIMED_POSITIONS_PER_CHANNEL = 0.5


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether this form is faster for an input ``[n, c, h, w]`` and a kernel ``[o, c, 3, 3]``, of stride 1 and padding 1."""
    _, channels, height, width = x.shape
    return _usable(x, weight) and min(height, width) >= 8 and POSITIONS_PER_CHANNEL * channels**2 <= x.numel()


def pays_over_time(x: Tensor, weight: Tensor) -> bool:
    """The same for an input ``[b, c, t, l]`` and a kernel ``[o, c, 3, 1]`` over t."""
    _, channels, frames, _ = x.shape
    filled = 3 * frames >= 8 * -(-frames // 4)  # three quarters of the direct form's multiplications or fewer: not 1, 2 or 5 frames
    return _usable(x, weight) and filled and TIMED_POSITIONS_PER_CHANNEL * channels**2 <= x.numel()


def _usable(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return min(weight.shape[:2]) >= 128


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``[n, c, h, w]``, kernel ``[o, c, 3, 3]`` -> ``[n, o, h, w]``, with stride 1 and padding 1."""
    count, channels, height, width = x.shape
    rows, columns, outputs = -(-height // 4), -(-width // 4), len(weight)  # rows and columns of tiles
    kernel = (_square(KERNEL) @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(36, outputs, channels)
    out = x.new_empty(count, outputs, height, width)
    row = 4 * width * channels
    pictures, tall = max(1, AT_ONCE // (row * rows)), min(rows, max(1, AT_ONCE // row))
    for piece, place in zip(x.split(pictures), out.split(pictures), strict=True):
        padded = nn.functional.pad(piece, (1, 4 * columns - width + 1, 1, 4 * rows - height + 1))
        for top in range(0, 4 * rows, 4 * tall):
            strip = place[:, :, top : top + 4 * tall]
            strip.copy_(_convolved(padded[:, :, top : top + 4 * tall + 2], kernel, bias)[:, :, : strip.shape[2], :width])
    return out


def _convolved(padded: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """``[n, c, 4 rows + 2, 4 columns + 2]``, kernel ``[36, o, c]`` -> ``[n, o, 4 rows, 4 columns]``."""
    count, channels, height, width = padded.shape
    rows, columns = height // 4, width // 4
    tiles = padded.unfold(2, 6, 4).unfold(3, 6, 4).permute(4, 5, 1, 0, 2, 3).reshape(36, -1)  # '36 (c n rows columns)'
    products = kernel @ (_square(INPUT) @ tiles).view(36, channels, -1)
    out = (_square(OUTPUT) @ products.view(36, -1)).view(4, 4, -1, count, rows, columns)
    if bias is not None:
        out += bias[:, None, None, None]
    return out.permute(3, 2, 4, 0, 5, 1).reshape(count, -1, 4 * rows, 4 * columns)


def convolve_over_time(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``[b, c, t, l]``, kernel ``[o, c, 3, 1]`` -> ``[b, o, t, l]``, with a padding of 1 in t."""
    (count, channels, frames, positions), outputs = x.shape, len(weight)
    kernel = (_matrix(KERNEL) @ weight.permute(2, 3, 0, 1).reshape(3, -1)).view(6, outputs, channels)
    out = x.new_empty(count, outputs, frames, positions)
    size = max(1, AT_ONCE // (count * channels * frames))
    for piece, place in zip(x.split(size, 3), out.split(size, 3), strict=True):
        place.copy_(_convolved_over_time(piece, kernel, bias))
    return out


def _convolved_over_time(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    count, channels, frames, positions = x.shape
    tall = -(-frames // 4)
    padded = nn.functional.pad(x, (0, 0, 1, 4 * tall - frames + 1))
    tiles = padded.unfold(2, 6, 4).permute(4, 1, 0, 2, 3).reshape(6, -1)  # '6 (c b tall l)'
    products = kernel @ (_matrix(INPUT) @ tiles).view(6, channels, -1)
    out = (_matrix(OUTPUT) @ products.view(6, -1)).view(4, -1, count, tall, positions)
    if bias is not None:
        out += bias[:, None, None, None]
    return out.permute(2, 1, 3, 0, 4).reshape(count, -1, 4 * tall, positions)[:, :, :frames]


def _matrix(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.tensor(transform, dtype=torch.float32)


def _square(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.kron(_matrix(transform), _matrix(transform))
