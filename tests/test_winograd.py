"""Winograd's convolutions equal torch's but for rounding, and are used only where they are cheaper."""

from __future__ import annotations

from itertools import product
from math import ceil

import pytest
import torch
from torch import nn

from harness.goldens import error
from vc_core.kernels import winograd
from vc_core.kernels.operations import cpu_operations
from vc_core.models.layers import LayerFactory

#: Of the largest value; the sums are taken in another order.
ROUNDING = 2e-5


def exact(x, weight, bias, padding):
    """The convolution in double precision."""
    return nn.functional.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=padding).float()


@pytest.mark.parametrize("height, width", [(8, 8), (9, 14), (24, 40), (11, 8)])
@pytest.mark.parametrize("tile", [(4, 4), (3, 2), (2, 3), (3, 4), (2, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d_equals_torch_s(height, width, tile, bias):
    """Also for images that aren't a whole number of tiles."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 6, height, width), torch.randn(5, 6, 3, 3), torch.randn(5) if bias else None
    assert error(winograd.conv2d(x, weight, bias, tile), exact(x, weight, bias, 1)) <= ROUNDING


def test_the_transforms_are_those_of_the_paper():
    """Lavin and Gray, equations 6 and 10: F(2, 3) up to signs that cancel, and F(4x4, 3x3)."""
    inputs, kernels, outputs = (torch.tensor(each) for each in winograd._matrices(4))
    assert inputs[1].tolist() == [0, -4, -4, 1, 1, 0] and outputs[3].tolist() == [0, 1, -1, 8, -8, 1]
    assert torch.equal(kernels[3], torch.tensor([1 / 24, 1 / 12, 1 / 6]))
    inputs, kernels, outputs = (torch.tensor(each).abs() for each in winograd._matrices(2))
    assert inputs.tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    assert kernels.tolist() == [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]]
    assert outputs.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]


@pytest.mark.parametrize("elements", [2 * 4 * 19 * 10, 4 * 10 * 8, 1], ids=["images", "two rows of tiles", "a row"])
def test_conv2d_in_chunks_of_images(elements, monkeypatch):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 4, 19, 10), torch.randn(4, 4, 3, 3), torch.randn(4)
    monkeypatch.setattr(winograd, "CHUNK_ELEMENTS", elements)
    assert error(winograd.conv2d(x, weight, bias), exact(x, weight, bias, 1)) <= ROUNDING


@pytest.mark.parametrize("bias", [True, False])
def test_conv2d_in_chunks_of_outputs(bias, monkeypatch):
    """As for kernels larger than the input; the last chunk is smaller here."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 12, 5, 8), torch.randn(11, 12, 3, 3), torch.randn(11) if bias else None
    monkeypatch.setattr(winograd, "CHUNK_OUTPUTS", 4)
    assert x.numel() < weight.numel() and error(winograd.conv2d(x, weight, bias), exact(x, weight, bias, 1)) <= ROUNDING


@pytest.mark.parametrize("frames", [1, 4, 5, 16])
@pytest.mark.parametrize("tile", [(4,), (3,), (2,)])
@pytest.mark.parametrize("bias", [True, False])
def test_conv_over_time_equals_torch_s(frames, tile, bias, monkeypatch):
    """Also for clips that aren't a whole number of tiles, and in chunks of a few positions."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 6, frames, 15), torch.randn(5, 6, 3, 1), torch.randn(5) if bias else None
    expected = exact(x, weight, bias, (1, 0))
    assert error(winograd.conv_over_time(x, weight, bias, tile), expected) <= ROUNDING
    monkeypatch.setattr(winograd, "CHUNK_ELEMENTS", 4 * x[..., 0].numel())
    assert error(winograd.conv_over_time(x, weight, bias, tile), expected) <= ROUNDING


@pytest.mark.parametrize("bias", [True, False])
def test_conv_over_time_in_chunks_of_outputs(bias, monkeypatch):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 12, 5, 3), torch.randn(11, 12, 3, 1), torch.randn(11) if bias else None
    monkeypatch.setattr(winograd, "CHUNK_OUTPUTS", 4)
    assert x.numel() < weight.numel()
    assert error(winograd.conv_over_time(x, weight, bias), exact(x, weight, bias, (1, 0))) <= ROUNDING


#: Inputs and number of outputs: a UNet's convolutions of several sizes, its first and last, and narrow ones.
SHAPES = [
    ((16, 320, 24, 40), 320), ((16, 640, 12, 20), 640), ((16, 1280, 6, 10), 1280), ((16, 2560, 3, 5), 1280), ((1, 1280, 6, 10), 1280),
    ((16, 4, 24, 40), 320), ((16, 320, 24, 40), 4), ((4, 64, 24, 40), 64), ((1, 128, 97, 50), 256), ((2, 512, 2, 3), 512),
]


def multiplications(shape, outputs, tile):
    """Those of the matrix products between the transforms: the elements of all input tiles, for all pairs of channels."""
    count, inputs, *sizes = shape
    for size, tile_size in zip(sizes, tile, strict=True):
        count *= ceil(size / tile_size) * (tile_size + 2)
    return count * inputs * outputs


def documented_cost(shape, outputs, tile):
    """As the module documents it: GEMM multiply-adds, 50 per transformed kernel element, 70 + 2 * e per element of input and output."""
    elements = 1
    for tile_size in tile:
        elements *= tile_size + 2
    gemm, inputs = multiplications(shape, outputs, tile), shape[1]
    moved = gemm // (inputs * outputs) * (inputs + outputs)
    return gemm + 50 * elements * inputs * outputs + (70 + 2 * elements) * moved


@pytest.mark.parametrize("shape, outputs", SHAPES)
@pytest.mark.parametrize("over_time", [False, True])
def test_the_tile_is_the_cheapest_by_the_documented_cost(shape, outputs, over_time):
    """Each possible tile tried by hand; none if the cheapest costs more than 85 % of the direct form."""
    count, inputs, height, width = shape
    if over_time:  # as many frames as images
        x, weight = torch.empty(1, inputs, count, height * width), torch.empty(outputs, inputs, 3, 1)
        shape, sizes = (height * width, inputs, count), 1
    else:
        x, weight, sizes = torch.empty(shape), torch.empty(outputs, inputs, 3, 3), 2
    direct = 3**sizes * inputs * outputs * count * height * width
    costs = {tile: documented_cost(shape, outputs, tile) for tile in product((2, 3, 4), repeat=sizes)}
    with torch.no_grad():
        chosen = (winograd.tile_over_time if over_time else winograd.tile_for_conv2d)(x, weight)
    if min(costs.values()) > 0.85 * direct:
        assert chosen is None
    else:
        assert costs[chosen] == min(costs.values()) and multiplications(shape, outputs, chosen) < 0.85 * direct


def test_wide_convolutions_of_whole_tiles_save_three_quarters():
    """The largest tile, if there are so many channels and tiles that nothing but the products counts: 36 instead of 144 each."""
    x, weight = torch.empty(1, 1, 1, 1).expand(64, 2**14, 24, 24), torch.empty(1, 1, 1, 1).expand(2**14, 2**14, 3, 3)
    with torch.no_grad():
        tile = winograd.tile_for_conv2d(x, weight)
    assert tile == (4, 4) and multiplications(x.shape, len(weight), tile) * 4 == 9 * 64 * 24 * 24 * 2**28


@pytest.mark.parametrize(
    "shape, outputs, why",
    [
        # Of the smallest tile's 16 elements, each takes more than 50 multiplications per pair of channels; the direct form takes 9 * 6.
        ((1, 2**14, 2, 3), 2**14, "transforming the kernel costs more"),
        # An output tile of 16 takes 36 elements of 70 / 4 or more per pair of channels; the direct form takes 144.
        ((16, 4, 24, 40), 2**14, "transforming the input costs more"),
        ((16, 2**14, 24, 40), 4, "transforming the output costs more"),
    ],
)
def test_no_tile_where_a_transform_alone_costs_more(shape, outputs, why):
    x, weight = torch.empty(1, 1, 1, 1).expand(shape), torch.empty(1, 1, 1, 1).expand(outputs, shape[1], 3, 3)
    with torch.no_grad():
        assert winograd.tile_for_conv2d(x, weight) is None


def test_only_float32_on_a_cpu_without_gradients():
    x, weight = torch.empty(16, 320, 24, 40), torch.empty(320, 320, 3, 3)
    assert winograd.tile_for_conv2d(x, weight) is None  # gradients may be wanted
    with torch.no_grad():
        assert winograd.tile_for_conv2d(x, weight)
        assert not any(winograd.tile_for_conv2d(x.to(other), weight) for other in (torch.bfloat16, torch.float16, torch.double, "meta"))


def calls(monkeypatch, name):
    """A list that grows by one with each call of that function of the module."""
    made, function = [], getattr(winograd, name)
    monkeypatch.setattr(winograd, name, lambda *arguments: made.append(1) or function(*arguments))
    return made


@pytest.mark.parametrize("frames, used", [(16, True), (4, True), (5, False), (1, False)])
def test_a_wide_temporal_convolution_uses_it_where_frames_fill_the_tiles(frames, used, monkeypatch):
    torch.manual_seed(0)
    layer, x = LayerFactory(cpu_operations()).temporal_conv(512), torch.randn(1, 512, frames, 200)
    made = calls(monkeypatch, "conv_over_time")
    expected = layer(x)  # torch's own, with gradients
    assert not made
    with torch.no_grad():
        assert error(layer(x), expected) <= ROUNDING and bool(made) == used


def test_a_wide_convolution_uses_it(monkeypatch):
    torch.manual_seed(0)
    layers = LayerFactory(cpu_operations())
    layer, x = layers.conv2d(256, 256, 3, padding=1), torch.randn(6, 256, 12, 10)
    made = calls(monkeypatch, "conv2d")
    expected = layer(x)  # torch's own, with gradients
    assert not made
    with torch.no_grad():
        assert error(layer(x), expected) <= ROUNDING and len(made) == 1
        strided, pointwise = layers.conv2d(256, 256, 3, stride=2, padding=1), layers.conv2d(256, 256, 1)
        assert strided(x).shape[-2:] == (6, 5) and pointwise(x).shape == x.shape
        assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert len(made) == 1
