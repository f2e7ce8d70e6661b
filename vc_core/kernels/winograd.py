"""Convolutions with fewer multiplications: a quarter of those of 3 x 3, half of those over time.

Winograd's minimal filtering, as Lavin and Gray have it (arXiv:1509.09308). An output tile of, say, 4 x 4 comes from an input tile of
6 x 6. Both, and the kernel, are transformed by small constant matrices, between which the convolution is one product of matrices over
the channels for each of the 36 places: 36 multiplications where 144 were. The transforms are products of matrices as well, of the
Kronecker product of those of each dimension, over all tiles at once. Over time a tile is some frames of one position.

Small tiles take more multiplications, but hang over the picture's edge less, and their kernels are smaller when transformed: what is
best depends on the sizes.

For processors in float32. Rounding errors of 4 x 4 are some ten times those of the direct form, about 1e-6 of the largest value; those
of smaller tiles and over time are no larger than the direct form's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, reduce
from itertools import product
from math import prod

import torch
from torch import Tensor, nn

from . import onednn

#: Where polynomials are evaluated, the last of them at infinity: a convolution multiplies polynomials.
POINTS = (0, 1, -1, 2, -2)
#: Sides that an output tile may have.
SIDES = (4, 3, 2)
#: Numbers of the input that are transformed at once: whole pictures, else rows of tiles of one, or positions.
AT_ONCE = 2**21
#: Outputs whose kernels are transformed at once where a kernel has more numbers than the input, all in the same memory: fresh memory
#: costs a processor more than the arithmetic on it.
OUTPUTS_AT_ONCE = 192
#: What else takes time, in multiplications that a product of matrices does meanwhile, as measured on processors with AVX2 and AVX512:
#: to transform a number of the kernel, and to move one of the input or output, which is transformed by two for each place beside that.
KERNEL, MOVED = 50, 70
#: It must save so much of the direct form, whose multiplications are a little quicker.
MOST = 0.85


def tile_over_space(x: Tensor, weight: Tensor) -> tuple[int, ...] | None:
    """Height and width of the best tiles for an input ``[n, c, h, w]`` and a kernel ``[o, c, 3, 3]``, of stride 1 and padding 1.

    None if torch's own form is quicker.
    """
    return _best_tile(x, weight, len(x), (x.shape[2], x.shape[3]))


def tile_over_time(x: Tensor, weight: Tensor) -> tuple[int, ...] | None:
    """The same for an input ``[b, c, t, l]`` and a kernel ``[o, c, 3, 1]`` over t: a number of frames."""
    return _best_tile(x, weight, len(x) * x.shape[3], (x.shape[2],))


def _best_tile(x: Tensor, weight: Tensor, count: int, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    outputs, inputs = weight.shape[:2]

    def cost(tile: tuple[int, ...]) -> float:
        """Multiplications, and what takes as long, for each pair of an input and an output."""
        places, tiles = _places(tile), count * prod(_tiled(sizes, tile))
        return places * (KERNEL + tiles * (1 + (MOVED + 2 * places) * (1 / inputs + 1 / outputs)))

    best = min(product(SIDES, repeat=len(sizes)), key=cost)
    return best if cost(best) <= MOST * 3 ** len(sizes) * count * prod(sizes) else None


def _places(tile: tuple[int, ...]) -> int:
    """Of an input tile, which reaches over the output's by one at each edge."""
    return prod(side + 2 for side in tile)


def _tiled(sizes: tuple[int, ...], tile: tuple[int, ...]) -> tuple[int, ...]:
    """Tiles in each dimension."""
    return tuple(-(-size // side) for size, side in zip(sizes, tile, strict=True))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, tile: tuple[int, ...] = (4, 4)) -> Tensor:
    """``[n, c, h, w]``, kernel ``[o, c, 3, 3]`` -> ``[n, o, h, w]``, with stride 1 and padding 1."""
    out = x.new_empty(len(x), len(weight), *x.shape[2:])
    # The larger of the two, which grows by its transform, is taken in pieces against the whole of the other.
    if x.numel() > weight.numel():
        _convolve_by_pictures(x, weight, bias, tile, out)
    else:
        _convolve_by_outputs(x, weight, bias, tile, out)
    return out


def _convolve_by_pictures(x: Tensor, weight: Tensor, bias: Tensor | None, tile: tuple[int, ...], out: Tensor) -> None:
    (rows, columns), height = _tiled(x.shape[2:], tile), tile[0]
    kernel = _transformed_kernel(weight, tile)
    row = prod(tile) * columns * x.shape[1]
    pictures, tall = max(1, AT_ONCE // (row * rows)), min(rows, max(1, AT_ONCE // row))
    for piece, place in zip(x.split(pictures), out.split(pictures), strict=True):
        padded = _padded(piece, tile)
        for top in range(0, height * rows, height * tall):
            strip = padded[:, top : top + height * tall + 2]
            _put(kernel @ _transformed_tiles(strip, tile), bias, tile, place[:, :, top : top + height * tall])


def _convolve_by_outputs(x: Tensor, weight: Tensor, bias: Tensor | None, tile: tuple[int, ...], out: Tensor) -> None:
    tiles = _transformed_tiles(_padded(x, tile), tile)
    memory = _memory_for_kernels(weight, tile)
    for piece, piece_bias, place in _by_outputs(weight, bias, out):
        _put(_transformed_kernel(piece, tile, memory) @ tiles, piece_bias, tile, place)


def _memory_for_kernels(weight: Tensor, tile: tuple[int, ...]) -> Tensor:
    return weight.new_empty(_places(tile) * min(OUTPUTS_AT_ONCE, len(weight)) * weight.shape[1])


def _by_outputs(weight: Tensor, bias: Tensor | None, out: Tensor) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Pieces of a kernel, of its bias, and of where their results go, ``[n, o, ...]``."""
    size = OUTPUTS_AT_ONCE
    biases = [None] * -(-len(weight) // size) if bias is None else bias.split(size)
    return zip(weight.split(size), biases, out.split(size, 1), strict=True)


def _padded(x: Tensor, tile: tuple[int, ...]) -> Tensor:
    """``[n, c, h, w]`` -> ``[n, tall rows + 2, wide columns + 2, c]``: so, neighbours stay neighbours where tiles are cut out."""
    count, channels, *sizes = x.shape
    covered = (side * tiles + 2 for side, tiles in zip(tile, _tiled(x.shape[2:], tile), strict=True))
    padded = x.new_zeros(count, *covered, channels)
    padded[:, 1 : sizes[0] + 1, 1 : sizes[1] + 1] = x.permute(0, 2, 3, 1)
    return padded


def _transformed_tiles(padded: Tensor, tile: tuple[int, ...]) -> Tensor:
    """As :func:`_padded` gives it -> ``[places, c, (n rows columns)]``"""
    tall, wide = tile
    tiles = padded.unfold(1, tall + 2, tall).unfold(2, wide + 2, wide).permute(4, 5, 0, 1, 2, 3).reshape(_places(tile), -1)
    return _transformed(_of_input(tile), tiles).view(_places(tile), -1, padded.shape[-1]).transpose(1, 2)


def _transformed_kernel(weight: Tensor, tile: tuple[int, ...], memory: Tensor | None = None) -> Tensor:
    """``[o, c, 3, 3]``, or over time ``[o, c, 3, 1]`` -> ``[places, o, c]``, in memory that is given."""
    transform = _of_kernel(tile)
    kernels = weight.numel() // transform.shape[1]
    into = None if memory is None else memory[: len(transform) * kernels].view(-1, kernels)
    return torch.mm(transform, weight.reshape(kernels, -1).t(), out=into).view(-1, *weight.shape[:2])


def _put(products: Tensor, bias: Tensor | None, tile: tuple[int, ...], place: Tensor) -> None:
    """Products ``[places, o, (n rows columns)]``, transformed back, to where they belong, ``[n, o, h, w]``."""
    (count, outputs, height, width), (tall, wide) = place.shape, tile
    rows, columns = _tiled(place.shape[2:], tile)
    out = _transformed(_of_output(tile), products.view(len(products), -1)).view(tall, wide, outputs, count, rows, columns)
    if bias is not None:
        out += bias[:, None, None, None]
    place.copy_(out.permute(3, 2, 4, 0, 5, 1).reshape(count, outputs, tall * rows, wide * columns)[:, :, :height, :width])


def convolve_over_time(x: Tensor, weight: Tensor, bias: Tensor | None, tile: tuple[int, ...] = (4,)) -> Tensor:
    """``[b, c, t, l]``, kernel ``[o, c, 3, 1]`` -> ``[b, o, t, l]``, with a padding of 1 in t."""
    count, channels, frames, positions = x.shape
    out = x.new_empty(count, len(weight), frames, positions)
    if x.numel() > weight.numel():
        kernel, size = _transformed_kernel(weight, tile), max(1, AT_ONCE // (count * channels * frames))
        for piece, place in zip(x.split(size, 3), out.split(size, 3), strict=True):
            _put_over_time(onednn.products(kernel, _transformed_times(piece, tile)), bias, tile, place)
    else:
        tiles, memory = _transformed_times(x, tile), _memory_for_kernels(weight, tile)
        for piece, piece_bias, place in _by_outputs(weight, bias, out):
            _put_over_time(onednn.products(_transformed_kernel(piece, tile, memory), tiles), piece_bias, tile, place)
    return out


def _transformed_times(x: Tensor, tile: tuple[int, ...]) -> Tensor:
    """``[b, c, t, l]`` -> ``[places, c, (b tall l)]``, tall being the tiles over t."""
    (_, channels, frames, _), (side,) = x.shape, tile
    padded = nn.functional.pad(x, (0, 0, 1, -frames % side + 1))
    tiles = padded.unfold(2, side + 2, side).permute(4, 1, 0, 2, 3).reshape(side + 2, -1)
    return _transformed(_of_input(tile), tiles).view(side + 2, channels, -1)


def _put_over_time(products: Tensor, bias: Tensor | None, tile: tuple[int, ...], place: Tensor) -> None:
    """Products ``[places, o, (b tall l)]``, transformed back, to where they belong, ``[b, o, t, l]``."""
    (count, outputs, frames, positions), (side,) = place.shape, tile
    (tall,) = _tiled((frames,), tile)
    out = _transformed(_of_output(tile), products.view(len(products), -1)).view(side, outputs, count, tall, positions)
    if bias is not None:
        out += bias[:, None, None, None]
    place.copy_(out.permute(2, 1, 3, 0, 4).reshape(count, outputs, side * tall, positions)[:, :, :frames])


def _transformed(transform: Tensor, places: Tensor) -> Tensor:
    """``[i, j]``, ``[j, n]`` -> ``[i, n]``, for a great n. That is where MKL is slowest."""
    return onednn.linear(transform, places.t())


def _of_input(tile: tuple[int, ...]) -> Tensor:
    """The transform of an input tile, ``[places, places]``."""
    return reduce(torch.kron, (torch.tensor(_matrices(side)[0]) for side in tile))


def _of_kernel(tile: tuple[int, ...]) -> Tensor:
    """The kernel's, ``[places, 3 or 9]``."""
    return reduce(torch.kron, (torch.tensor(_matrices(side)[1]) for side in tile))


def _of_output(tile: tuple[int, ...]) -> Tensor:
    """From the places to an output tile, ``[tile, places]``."""
    return reduce(torch.kron, (torch.tensor(_matrices(side)[2]) for side in tile))


Matrix = tuple[tuple[float, ...], ...]


@cache
def _matrices(side: int) -> tuple[Matrix, Matrix, Matrix]:
    """The transforms in one dimension, of input, kernel and output, for a tile of that many outputs (Toom and Cook's; section 4 there).

    Kernel and output are evaluated, and put together, as polynomials at the points. The input's come of that by transposition: its row
    for a point has the coefficients of the polynomial that is zero at the others.
    """
    points = POINTS[: side + 1]
    others = [[other for other in points if other != point] for point in points]
    scales = [prod(point - other for other in rest) for point, rest in zip(points, others, strict=True)]
    kernel = [[point**power / scale for power in range(3)] for point, scale in zip(points, scales, strict=True)]
    rows = [[*_with_roots(rest), 0.0] for rest in others] + [_with_roots(points)]
    output = [[float(point**power) for point in points] + [float(power == side - 1)] for power in range(side)]
    return _matrix(rows), _matrix([*kernel, [0.0, 0.0, 1.0]]), _matrix(output)


def _with_roots(roots: tuple[int, ...] | list[int]) -> list[float]:
    """Coefficients of the polynomial with these roots, that of the highest power, 1, being the last."""
    coefficients = [1.0]
    for root in roots:
        coefficients = [lower - root * same for lower, same in zip([0.0, *coefficients], [*coefficients, 0.0], strict=True)]
    return coefficients


def _matrix(rows: list[list[float]]) -> Matrix:
    return tuple(tuple(row) for row in rows)
