"""Convolutions with fewer multiplications: a quarter of those of 3 x 3, half of those over time.

Lavin and Gray (arXiv:1509.09308), F(4x4, 3x3) and F(4, 3). An output tile of 4 x 4 comes from an input tile of 6 x 6. Both, and the
kernel, are transformed by small constant matrices, between which the convolution is one product of matrices over the channels for each
of the 36 places: 36 multiplications where 144 were. The transforms are products of matrices as well, of the Kronecker square of the
one-dimensional ones, over all tiles at once. Over time a tile is 4 frames of one position, from 6: 6 multiplications where 12 were.

For processors in float32. Rounding errors of 3 x 3 are some ten times those of the direct form, about 1e-6 of the largest value; those
over time are no larger.
"""

from __future__ import annotations

from collections.abc import Iterator

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
AT_ONCE = 2**21
#: Outputs whose kernels are transformed at once where a kernel has more numbers than the input, all in the same memory: fresh memory
#: costs a processor more than the arithmetic on it.
OUTPUTS_AT_ONCE = 128
#: It pays where there are so many positions for each input channel at least: the kernel's transform costs as much as so many.
POSITIONS_PER_CHANNEL = 1 / 3
#: The same over time, where the kernel grows to twice its size and not to four times.
TIMED_POSITIONS_PER_CHANNEL = 0.5


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether this form is faster for an input ``[n, c, h, w]`` and a kernel ``[o, c, 3, 3]``, of stride 1 and padding 1."""
    _, channels, height, width = x.shape
    rows, columns = _tiled(height, width)
    filled = 16 * rows * columns <= 2 * height * width  # no more than half of the tiles hangs over
    return _usable(x, weight) and filled and POSITIONS_PER_CHANNEL * channels**2 <= x.numel()


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
    out = x.new_empty(len(x), len(weight), *x.shape[2:])
    # The larger of the two, which grows by its transform, is taken in pieces against the whole of the other.
    if x.numel() > weight.numel():
        _convolve_by_pictures(x, weight, bias, out)
    else:
        _convolve_by_outputs(x, weight, bias, out)
    return out


def _convolve_by_pictures(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    channels, (rows, columns) = x.shape[1], _tiled(*x.shape[2:])
    kernel = _transformed_kernel(weight)
    row = 16 * columns * channels
    pictures, tall = max(1, AT_ONCE // (row * rows)), min(rows, max(1, AT_ONCE // row))
    for piece, place in zip(x.split(pictures), out.split(pictures), strict=True):
        padded = _padded(piece)
        for top in range(0, 4 * rows, 4 * tall):
            strip = padded[:, top : top + 4 * tall + 2]
            _put(kernel @ _transformed_tiles(strip), bias, place[:, :, top : top + 4 * tall])


def _convolve_by_outputs(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    tiles = _transformed_tiles(_padded(x))
    memory = weight.new_empty(36 * OUTPUTS_AT_ONCE * x.shape[1])
    for piece, piece_bias, place in _by_outputs(weight, bias, out):
        _put(_transformed_kernel(piece, memory) @ tiles, piece_bias, place)


def _by_outputs(weight: Tensor, bias: Tensor | None, out: Tensor) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Pieces of a kernel, of its bias, and of where their results go, ``[n, o, ...]``."""
    size = OUTPUTS_AT_ONCE
    biases = [None] * -(-len(weight) // size) if bias is None else bias.split(size)
    return zip(weight.split(size), biases, out.split(size, 1), strict=True)


def _tiled(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles."""
    return -(-height // 4), -(-width // 4)


def _padded(x: Tensor) -> Tensor:
    """``[n, c, h, w]`` -> ``[n, 4 rows + 2, 4 columns + 2, c]``: in this order neighbours stay neighbours where tiles are cut out."""
    count, channels, height, width = x.shape
    rows, columns = _tiled(height, width)
    padded = x.new_zeros(count, 4 * rows + 2, 4 * columns + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    return padded


def _transformed_tiles(padded: Tensor) -> Tensor:
    """``[n, 4 rows + 2, 4 columns + 2, c]`` -> ``[36, c, (n rows columns)]``"""
    tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3).reshape(36, -1)
    return (_square(INPUT) @ tiles).view(36, -1, padded.shape[-1]).transpose(1, 2)


def _transformed_kernel(weight: Tensor, memory: Tensor | None = None) -> Tensor:
    """``[o, c, 3, 3]`` -> ``[36, o, c]``, or of ``[o, c, 3, 1]`` -> ``[6, o, c]``, in memory that is given."""
    transform = _square(KERNEL) if weight.shape[3] == 3 else _matrix(KERNEL)
    kernels = weight.numel() // transform.shape[1]
    into = None if memory is None else memory[: len(transform) * kernels].view(-1, kernels)
    return torch.mm(transform, weight.reshape(kernels, -1).t(), out=into).view(-1, *weight.shape[:2])


def _put(products: Tensor, bias: Tensor | None, place: Tensor) -> None:
    """Products ``[36, o, (n rows columns)]``, transformed back, to where they belong, ``[n, o, h, w]``."""
    count, outputs, height, width = place.shape
    rows, columns = _tiled(height, width)
    out = (_square(OUTPUT) @ products.view(36, -1)).view(4, 4, outputs, count, rows, columns)
    if bias is not None:
        out += bias[:, None, None, None]
    place.copy_(out.permute(3, 2, 4, 0, 5, 1).reshape(count, outputs, 4 * rows, 4 * columns)[:, :, :height, :width])


def convolve_over_time(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``[b, c, t, l]``, kernel ``[o, c, 3, 1]`` -> ``[b, o, t, l]``, with a padding of 1 in t."""
    count, channels, frames, positions = x.shape
    out = x.new_empty(count, len(weight), frames, positions)
    if x.numel() > weight.numel():
        kernel, size = _transformed_kernel(weight), max(1, AT_ONCE // (count * channels * frames))
        for piece, place in zip(x.split(size, 3), out.split(size, 3), strict=True):
            _put_over_time(kernel @ _transformed_times(piece), bias, place)
    else:
        tiles, memory = _transformed_times(x), weight.new_empty(6 * OUTPUTS_AT_ONCE * channels)
        for piece, piece_bias, place in _by_outputs(weight, bias, out):
            _put_over_time(_transformed_kernel(piece, memory) @ tiles, piece_bias, place)
    return out


def _transformed_times(x: Tensor) -> Tensor:
    """``[b, c, t, l]`` -> ``[6, c, (b tall l)]``, tall being the tiles over t."""
    _, channels, frames, _ = x.shape
    padded = nn.functional.pad(x, (0, 0, 1, 4 * -(-frames // 4) - frames + 1))
    return (_matrix(INPUT) @ padded.unfold(2, 6, 4).permute(4, 1, 0, 2, 3).reshape(6, -1)).view(6, channels, -1)


def _put_over_time(products: Tensor, bias: Tensor | None, place: Tensor) -> None:
    """Products ``[6, o, (b tall l)]``, transformed back, to where they belong, ``[b, o, t, l]``."""
    count, outputs, frames, positions = place.shape
    tall = -(-frames // 4)
    out = (_matrix(OUTPUT) @ products.view(6, -1)).view(4, outputs, count, tall, positions)
    if bias is not None:
        out += bias[:, None, None, None]
    place.copy_(out.permute(2, 1, 3, 0, 4).reshape(count, outputs, 4 * tall, positions)[:, :, :frames])


def _matrix(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.tensor(transform, dtype=torch.float32)


def _square(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.kron(_matrix(transform), _matrix(transform))
