"""Convolutions with fewer multiplications: a quarter for 3x3 kernels, half for kernels over three frames.

Winograd's minimal filtering, after Lavin and Gray, "Fast algorithms for convolutional neural networks" (arXiv:1509.09308). An output
tile of, say, 4x4 is computed from an input tile of 6x6. Input tile and kernel are each transformed by small constant matrices. Between
the transforms the convolution is, for each of the 36 elements of a tile, one matrix product over the channels: 36 multiplications
where the direct form has 16 * 9 = 144. The transforms are matrix products too, by the Kronecker product of the matrices of the two
dimensions, over all tiles at once. Over time a tile is a few frames of one position.

Smaller tiles save fewer multiplications, but fit the image's edges better and have smaller transformed kernels: which size is best
depends on the shapes.

For CPUs in float32. Rounding errors with 4x4 tiles are some ten times those of the direct form, about 1e-6 of the largest value;
those of smaller tiles and over time are no larger than the direct form's.

This file can be deleted, with its test and its two lines in :mod:`.operations`; the layers are then torch's own. That costs
6 to 9 % of a UNet step in float32 on a CPU (one stage of VideoCrafter2, 8 frames, on one thread with AVX512: 1.40 s instead of 1.29 s
with 320 channels of 24x40, 1.17 s instead of 1.10 s with 1280 of 6x10), and more in the decoder, which is nearly all convolutions (one
3x3 convolution of 320 channels: 64 ms instead of 36 ms, of 640: 66 instead of 52, of 1280: 266 instead of 181). GPUs don't use it.

In the shapes, e is the number of elements of an input tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, reduce
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from . import onednn

#: Points at which polynomials are evaluated, in this order and then at infinity: a convolution is a product of polynomials.
POINTS = (0, 1, -1, 2, -2)
#: Sizes that an output tile may have in each dimension.
TILE_SIZES = (4, 3, 2)
#: Input elements that are transformed in one chunk: whole images, or rows of tiles of one image, or positions.
CHUNK_ELEMENTS = 2**21
#: Outputs whose kernels are transformed in one chunk where the kernel is larger than the input. The chunks share one buffer, since
#: writing to fresh memory costs a CPU more than the arithmetic.
CHUNK_OUTPUTS = 192
#: Cost model in GEMM multiply-adds: 50 per transformed kernel element, 70 + 2 * e per transformed element of input and output.
#: Measured on CPUs with AVX2 and AVX512.
COST_PER_KERNEL_ELEMENT, COST_PER_ELEMENT = 50, 70
#: Use Winograd only if its estimated cost is at most 85 % of the direct form's.
MAX_RELATIVE_COST = 0.85


class WinogradConv2d(nn.Conv2d):
    """Base class, before a Conv2d's own class: where that is cheaper, 3x3 convolutions of stride 1 and padding 1 use :func:`conv2d`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        fits = self.kernel_size == (3, 3) and self.stride == self.padding == (1, 1)
        if fits and (tile := tile_for_conv2d(input, weight)):
            return conv2d(input, weight, bias, tile)
        return super()._conv_forward(input, weight, bias)


class WinogradTemporalConv(nn.Conv3d):
    """Base class, before a Conv3d's own class: adds what :class:`vc_core.models.layers.TemporalConvAs2d` runs over time."""

    def conv_over_time(self, input: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
        """As ``torch.nn.functional.conv2d`` on ``[b, c, t, l]`` with a kernel ``[o, c, 3, 1]``; ``padding`` is (1, 0) or (0, 0)."""
        if padding[0] and (tile := tile_over_time(input, weight)):
            return conv_over_time(input, weight, bias, tile)
        return nn.functional.conv2d(input, weight, bias, padding=padding)


def tile_for_conv2d(x: Tensor, weight: Tensor) -> tuple[int, ...] | None:
    """Height and width of the cheapest output tile for an input ``[n, c, h, w]`` and a kernel ``[o, c, 3, 3]``.

    None where the direct form is cheaper or Winograd isn't meant for the input.
    """
    return _cheapest_tile(x, weight, len(x), (x.shape[2], x.shape[3]))


def tile_over_time(x: Tensor, weight: Tensor) -> tuple[int, ...] | None:
    """As :func:`tile_for_conv2d` for an input ``[b, c, t, l]`` and a kernel ``[o, c, 3, 1]``: a number of frames, or None."""
    return _cheapest_tile(x, weight, len(x) * x.shape[3], (x.shape[2],))


def _cheapest_tile(x: Tensor, weight: Tensor, count: int, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """For ``count`` images (or positions) of these sizes."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    outputs, inputs = weight.shape[:2]

    def cost(tile: tuple[int, ...]) -> float:
        """GEMM multiply-adds per pair of an input and an output channel, see :data:`COST_PER_ELEMENT`."""
        elements, tiles = _elements(tile), count * prod(_tile_counts(sizes, tile))
        transforms = (COST_PER_ELEMENT + 2 * elements) * (1 / inputs + 1 / outputs)
        return elements * (COST_PER_KERNEL_ELEMENT + tiles * (1 + transforms))

    best = min(product(TILE_SIZES, repeat=len(sizes)), key=cost)
    direct = 3 ** len(sizes) * count * prod(sizes)
    return best if cost(best) <= MAX_RELATIVE_COST * direct else None


def _elements(tile: tuple[int, ...]) -> int:
    """Elements of an input tile (output tile plus a one-element halo)."""
    return prod(size + 2 for size in tile)


def _tile_counts(sizes: tuple[int, ...], tile: tuple[int, ...]) -> tuple[int, ...]:
    """Tiles in each dimension."""
    return tuple(-(-size // tile_size) for size, tile_size in zip(sizes, tile, strict=True))


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, tile: tuple[int, ...] = (4, 4)) -> Tensor:
    """``[n, c, h, w]``, kernel ``[o, c, 3, 3]`` -> ``[n, o, h, w]``, with stride 1 and padding 1.

    Args:
        tile: height and width of the output tiles, each of :data:`TILE_SIZES`.
    """
    out = x.new_empty(len(x), len(weight), *x.shape[2:])
    # The transform makes both larger. The larger one is processed in chunks against all of the other.
    if x.numel() > weight.numel():
        _conv2d_by_images(x, weight, bias, tile, out)
    else:
        _conv2d_by_outputs(x, weight, bias, tile, out)
    return out


def _conv2d_by_images(x: Tensor, weight: Tensor, bias: Tensor | None, tile: tuple[int, ...], out: Tensor) -> None:
    (rows, columns), height = _tile_counts(x.shape[2:], tile), tile[0]
    kernel = _transform_kernel(weight, tile)
    row_elements = prod(tile) * columns * x.shape[1]
    chunk_images = max(1, CHUNK_ELEMENTS // (row_elements * rows))
    chunk_rows = min(rows, max(1, CHUNK_ELEMENTS // row_elements))
    for images, images_out in zip(x.split(chunk_images), out.split(chunk_images), strict=True):
        padded = _pad(images, tile)
        for top in range(0, height * rows, height * chunk_rows):
            bottom = top + height * chunk_rows
            tiles = _transform_input(padded[:, top : bottom + 2], tile)
            _write_output(kernel @ tiles, bias, tile, images_out[:, :, top:bottom])


def _conv2d_by_outputs(x: Tensor, weight: Tensor, bias: Tensor | None, tile: tuple[int, ...], out: Tensor) -> None:
    tiles = _transform_input(_pad(x, tile), tile)
    buffer = _kernel_buffer(weight, tile)
    for chunk, chunk_bias, chunk_out in _split_outputs(weight, bias, out):
        _write_output(_transform_kernel(chunk, tile, buffer) @ tiles, chunk_bias, tile, chunk_out)


def _kernel_buffer(weight: Tensor, tile: tuple[int, ...]) -> Tensor:
    """Memory for the transformed kernels of one chunk of outputs."""
    return weight.new_empty(_elements(tile) * min(CHUNK_OUTPUTS, len(weight)) * weight.shape[1])


def _split_outputs(weight: Tensor, bias: Tensor | None, out: Tensor) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Chunks of a kernel, of its bias and of its result ``[n, o, ...]``."""
    size = CHUNK_OUTPUTS
    biases = [None] * -(-len(weight) // size) if bias is None else bias.split(size)
    return zip(weight.split(size), biases, out.split(size, 1), strict=True)


def _pad(x: Tensor, tile: tuple[int, ...]) -> Tensor:
    """``[n, c, h, w]`` -> ``[n, tile height * rows + 2, tile width * columns + 2, c]``: channels last, so that tiles are cut out
    as runs of neighbouring elements."""
    count, channels, *sizes = x.shape
    padded_sizes = (size * tiles + 2 for size, tiles in zip(tile, _tile_counts(x.shape[2:], tile), strict=True))
    padded = x.new_zeros(count, *padded_sizes, channels)
    padded[:, 1 : sizes[0] + 1, 1 : sizes[1] + 1] = x.permute(0, 2, 3, 1)
    return padded


def _transform_input(padded: Tensor, tile: tuple[int, ...]) -> Tensor:
    """What :func:`_pad` returns -> ``[e, c, (n rows columns)]``"""
    height, width = tile
    tiles = padded.unfold(1, height + 2, height).unfold(2, width + 2, width)
    tiles = tiles.permute(4, 5, 0, 1, 2, 3).reshape(_elements(tile), -1)
    return _transform(_input_matrix(tile), tiles).view(_elements(tile), -1, padded.shape[-1]).transpose(1, 2)


def _transform_kernel(weight: Tensor, tile: tuple[int, ...], buffer: Tensor | None = None) -> Tensor:
    """``[o, c, 3, 3]``, or over time ``[o, c, 3, 1]`` -> ``[e, o, c]``, written to the buffer if there is one."""
    matrix = _kernel_matrix(tile)
    kernels = weight.numel() // matrix.shape[1]
    out = None if buffer is None else buffer[: len(matrix) * kernels].view(-1, kernels)
    return torch.mm(matrix, weight.reshape(kernels, -1).t(), out=out).view(-1, *weight.shape[:2])


def _write_output(products: Tensor, bias: Tensor | None, tile: tuple[int, ...], out: Tensor) -> None:
    """Transform products ``[e, o, (n rows columns)]`` back, add the bias and write them to ``out``, ``[n, o, h, w]``."""
    (count, outputs, height, width), (tile_height, tile_width) = out.shape, tile
    rows, columns = _tile_counts(out.shape[2:], tile)
    tiles = _transform(_output_matrix(tile), products.view(len(products), -1))
    tiles = tiles.view(tile_height, tile_width, outputs, count, rows, columns)
    if bias is not None:
        tiles += bias[:, None, None, None]
    images = tiles.permute(3, 2, 4, 0, 5, 1).reshape(count, outputs, tile_height * rows, tile_width * columns)
    out.copy_(images[:, :, :height, :width])


def conv_over_time(x: Tensor, weight: Tensor, bias: Tensor | None, tile: tuple[int, ...] = (4,)) -> Tensor:
    """``[b, c, t, l]``, kernel ``[o, c, 3, 1]`` -> ``[b, o, t, l]``, with a padding of 1 in t.

    Args:
        tile: frames of an output tile, of :data:`TILE_SIZES`.
    """
    count, channels, frames, positions = x.shape
    out = x.new_empty(count, len(weight), frames, positions)
    if x.numel() > weight.numel():
        kernel, size = _transform_kernel(weight, tile), max(1, CHUNK_ELEMENTS // (count * channels * frames))
        for chunk, chunk_out in zip(x.split(size, 3), out.split(size, 3), strict=True):
            products = onednn.bmm(kernel, _transform_input_over_time(chunk, tile))
            _write_output_over_time(products, bias, tile, chunk_out)
    else:
        tiles, buffer = _transform_input_over_time(x, tile), _kernel_buffer(weight, tile)
        for chunk, chunk_bias, chunk_out in _split_outputs(weight, bias, out):
            products = onednn.bmm(_transform_kernel(chunk, tile, buffer), tiles)
            _write_output_over_time(products, chunk_bias, tile, chunk_out)
    return out


def _transform_input_over_time(x: Tensor, tile: tuple[int, ...]) -> Tensor:
    """``[b, c, t, l]`` -> ``[e, c, (b tiles l)]``"""
    (_, channels, frames, _), (size,) = x.shape, tile
    padded = nn.functional.pad(x, (0, 0, 1, -frames % size + 1))
    tiles = padded.unfold(2, size + 2, size).permute(4, 1, 0, 2, 3).reshape(size + 2, -1)
    return _transform(_input_matrix(tile), tiles).view(size + 2, channels, -1)


def _write_output_over_time(products: Tensor, bias: Tensor | None, tile: tuple[int, ...], out: Tensor) -> None:
    """Transform products ``[e, o, (b tiles l)]`` back, add the bias and write them to ``out``, ``[b, o, t, l]``."""
    (count, outputs, frames, positions), (size,) = out.shape, tile
    (number,) = _tile_counts((frames,), tile)
    tiles = _transform(_output_matrix(tile), products.view(len(products), -1)).view(size, outputs, count, number, positions)
    if bias is not None:
        tiles += bias[:, None, None, None]
    out.copy_(tiles.permute(2, 1, 3, 0, 4).reshape(count, outputs, size * number, positions)[:, :, :frames])


def _transform(matrix: Tensor, elements: Tensor) -> Tensor:
    """``[i, j]``, ``[j, n]`` -> ``[i, n]``, for a large n, for which MKL is slowest."""
    return onednn.linear(matrix, elements.t())


def _input_matrix(tile: tuple[int, ...]) -> Tensor:
    """Transform of an input tile, ``[e, e]``."""
    return reduce(torch.kron, (torch.tensor(_matrices(size)[0]) for size in tile))


def _kernel_matrix(tile: tuple[int, ...]) -> Tensor:
    """Transform of a kernel, ``[e, 9]``, or over time ``[e, 3]``."""
    return reduce(torch.kron, (torch.tensor(_matrices(size)[1]) for size in tile))


def _output_matrix(tile: tuple[int, ...]) -> Tensor:
    """Transform of the products to an output tile, ``[output tile's elements, e]``."""
    return reduce(torch.kron, (torch.tensor(_matrices(size)[2]) for size in tile))


Matrix = tuple[tuple[float, ...], ...]


@cache
def _matrices(size: int) -> tuple[Matrix, Matrix, Matrix]:
    """Transforms of input, kernel and output in one dimension, for an output tile of that size (Toom-Cook; section 4 of the paper).

    The kernel's evaluates a polynomial at the points, the output's transposed is such an evaluation, too. The input's is a transposed
    interpolation: its row for a point holds the coefficients of the polynomial that is zero at all other points.
    """
    points = POINTS[: size + 1]
    others = [[other for other in points if other != point] for point in points]
    scales = [prod(point - other for other in rest) for point, rest in zip(points, others, strict=True)]
    kernel = [[point**power / scale for power in range(3)] for point, scale in zip(points, scales, strict=True)]
    rows = [[*_polynomial(rest), 0.0] for rest in others] + [_polynomial(points)]
    output = [[float(point**power) for point in points] + [float(power == size - 1)] for power in range(size)]
    return _matrix(rows), _matrix([*kernel, [0.0, 0.0, 1.0]]), _matrix(output)


def _polynomial(roots: tuple[int, ...] | list[int]) -> list[float]:
    """Coefficients of the polynomial with these roots, from the constant term to that of the highest power, which is 1."""
    coefficients = [1.0]
    for root in roots:
        coefficients = [lower - root * same for lower, same in zip([0.0, *coefficients], [*coefficients, 0.0], strict=True)]
    return coefficients


def _matrix(rows: list[list[float]]) -> Matrix:
    return tuple(tuple(row) for row in rows)
