"""Layers in other forms than torch's compute what torch's do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.goldens import error
from vc_core.config import UNetConfig
from vc_core.kernels import winograd
from vc_core.memory import feed_forward_chunks
from vc_core.models.attention import TemporalAttention
from vc_core.models.conditioning import Conditioning
from vc_core.models.layers import Layers, sdpa
from vc_core.models.transformers import FeedForward
from vc_core.models.unet import UNet

#: Convolutions in another order of sums: rounding apart, the same.
ROUNDING = 2e-5


@pytest.mark.parametrize("height, width", [(8, 8), (9, 14), (24, 40), (11, 8)])
@pytest.mark.parametrize("tile", [(4, 4), (3, 2), (2, 3), (3, 4), (2, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_winograd_is_the_convolution(height, width, tile, bias):
    """Also of sizes that tiles don't fill, against torch in double precision."""
    torch.manual_seed(0)
    x, weight = torch.randn(3, 6, height, width), torch.randn(5, 6, 3, 3)
    added = torch.randn(5) if bias else None
    expected = nn.functional.conv2d(x.double(), weight.double(), None if added is None else added.double(), padding=1)
    assert error(winograd.convolve(x, weight, added, tile), expected.float()) <= ROUNDING


def test_the_transforms_are_those_of_the_paper():
    """Lavin and Gray, equations 6 and 10: F(2, 3) up to signs that cancel, and F(4x4, 3x3)."""
    inputs, kernels, outputs = (torch.tensor(each) for each in winograd._matrices(4))
    assert inputs[1].tolist() == [0, -4, -4, 1, 1, 0] and outputs[3].tolist() == [0, 1, -1, 8, -8, 1]
    assert torch.equal(kernels[3], torch.tensor([1 / 24, 1 / 12, 1 / 6]))
    inputs, kernels, outputs = (torch.tensor(each).abs() for each in winograd._matrices(2))
    assert inputs.tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    assert kernels.tolist() == [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]]
    assert outputs.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]


@pytest.mark.parametrize(
    "shape, outputs, tile",
    [
        ((16, 320, 24, 40), 320, (4, 4)),
        ((16, 1280, 6, 10), 1280, (3, 2)),  # tiles of 4 x 4 would hang over, and their kernels be twice as large
        ((16, 1280, 3, 5), 1280, None),  # transforming the kernel takes as long as the convolution
        ((1, 1280, 6, 10), 1280, None),
        ((16, 64, 24, 40), 64, None),  # the same of the pictures
        ((16, 4, 24, 40), 320, None),
    ],
)
def test_tiles_are_chosen_by_the_sizes(shape, outputs, tile):
    with torch.no_grad():
        assert winograd.tile_over_space(torch.empty(shape), torch.empty(outputs, shape[1], 3, 3)) == tile
        assert winograd.tile_over_space(torch.empty(shape).half(), torch.empty(outputs, shape[1], 3, 3)) is None


@pytest.mark.parametrize("at_once", [2 * 4 * 19 * 10, 4 * 10 * 8, 1], ids=["pictures", "two rows of tiles", "a row"])
def test_winograd_takes_pictures_in_pieces(at_once, monkeypatch):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 4, 19, 10), torch.randn(4, 4, 3, 3), torch.randn(4)
    expected = nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1).float()
    monkeypatch.setattr(winograd, "AT_ONCE", at_once)
    assert error(winograd.convolve(x, weight, bias), expected) <= ROUNDING


@pytest.mark.parametrize("bias", [True, False])
def test_winograd_takes_a_large_kernel_in_pieces(bias, monkeypatch):
    """Where it has more numbers than the pictures: by outputs, whose last piece is smaller here."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 12, 5, 8), torch.randn(11, 12, 3, 3)
    added = torch.randn(11) if bias else None
    expected = nn.functional.conv2d(x.double(), weight.double(), None if added is None else added.double(), padding=1).float()
    monkeypatch.setattr(winograd, "OUTPUTS_AT_ONCE", 4)
    assert x.numel() < weight.numel() and error(winograd.convolve(x, weight, added), expected) <= ROUNDING


@pytest.mark.parametrize("frames", [1, 4, 5, 16])
@pytest.mark.parametrize("tile", [(4,), (3,), (2,)])
@pytest.mark.parametrize("bias", [True, False])
def test_winograd_over_time_is_the_convolution(frames, tile, bias, monkeypatch):
    """Also of clips that tiles don't fill, and in pieces of a few positions."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 6, frames, 15), torch.randn(5, 6, 3, 1)
    added = torch.randn(5) if bias else None
    expected = nn.functional.conv2d(x.double(), weight.double(), None if added is None else added.double(), padding=(1, 0)).float()
    assert error(winograd.convolve_over_time(x, weight, added, tile), expected) <= ROUNDING
    monkeypatch.setattr(winograd, "AT_ONCE", 4 * x[..., 0].numel())
    assert error(winograd.convolve_over_time(x, weight, added, tile), expected) <= ROUNDING


@pytest.mark.parametrize("bias", [True, False])
def test_winograd_over_time_takes_a_large_kernel_in_pieces(bias, monkeypatch):
    """By outputs, whose last piece is smaller here."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 12, 5, 3), torch.randn(11, 12, 3, 1)
    added = torch.randn(11) if bias else None
    expected = nn.functional.conv2d(x.double(), weight.double(), None if added is None else added.double(), padding=(1, 0)).float()
    monkeypatch.setattr(winograd, "OUTPUTS_AT_ONCE", 4)
    assert x.numel() < weight.numel() and error(winograd.convolve_over_time(x, weight, added), expected) <= ROUNDING


@pytest.mark.parametrize("frames, form", [(16, True), (4, True), (5, False), (1, False)])
def test_a_wide_temporal_convolution_takes_that_form_where_tiles_are_filled(frames, form, monkeypatch):
    torch.manual_seed(0)
    layer, x = Layers().temporal_conv(512), torch.randn(1, 512, frames, 200)
    expected = layer(x)  # gradients are wanted: torch's own
    taken = []
    convolve = winograd.convolve_over_time
    monkeypatch.setattr(winograd, "convolve_over_time", lambda *given: taken.append(given) or convolve(*given))
    with torch.no_grad():
        assert error(layer(x), expected) <= ROUNDING and bool(taken) == form


def test_a_wide_convolution_takes_that_form_and_is_the_same(monkeypatch):
    torch.manual_seed(0)
    layer, x = Layers().conv2d(256, 256, 3, padding=1), torch.randn(6, 256, 12, 10)
    expected = layer(x)  # gradients are wanted: torch's own
    taken = []
    convolve = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *given: taken.append(given) or convolve(*given))
    with torch.no_grad():
        assert error(layer(x), expected) <= ROUNDING and len(taken) == 1
        strided = Layers().conv2d(256, 256, 3, stride=2, padding=1)
        assert strided(x).shape[-2:] == (6, 5) and layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert len(taken) == 1


def test_a_temporal_convolution_is_the_3d_one():
    torch.manual_seed(0)
    layer, x = Layers().temporal_conv(8), torch.randn(2, 8, 5, 3, 4)
    assert layer.weight.shape == (8, 8, 3, 1, 1)
    expected = nn.functional.conv3d(x, layer.weight, layer.bias, padding=(1, 0, 0))
    assert error(layer(x.flatten(3)), expected.flatten(3)) <= 1e-6


def test_a_pointwise_layer_is_the_convolution_of_width_one():
    layer, x = Layers().pointwise(6, 4), torch.randn(2, 6, 7)
    assert layer.weight.shape == (4, 6, 1)
    assert error(layer(x.transpose(1, 2)), nn.functional.conv1d(x, layer.weight, layer.bias).transpose(1, 2)) <= 1e-6


def test_a_norm_gives_the_layout_that_it_gets():
    norm, x = Layers().group_norm(64), torch.randn(2, 64, 4, 5)
    last = x.to(memory_format=torch.channels_last)
    assert norm(x).is_contiguous() and norm(last).is_contiguous(memory_format=torch.channels_last)
    assert error(norm(last), norm(x)) <= 1e-6


@pytest.mark.parametrize("distance", [0, 2])
def test_temporal_attention_keeps_positions_and_heads_apart(distance, monkeypatch):
    """Against the attention of each position on its own; also where a GPU could not take all positions at once."""
    torch.manual_seed(0)
    config = UNetConfig(head_channels=16, max_relative_position=distance)
    layer, x = TemporalAttention(config, 32, Layers()), torch.randn(2, 5, 6, 32)
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    alone = torch.cat([layer(x[:, :, place : place + 1]) for place in range(6)], dim=2)
    assert error(layer(x), alone) <= 1e-6
    if not distance:
        q, k, v = (part.transpose(1, 2).flatten(0, 1) for part in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))
        by_hand = layer.to_out(sdpa(q, k, v, 2)).unflatten(0, (2, 6)).transpose(1, 2)
        assert error(layer(x), by_hand) <= 1e-6
    monkeypatch.setattr("vc_core.models.attention.MAX_HEADS", 8)
    assert error(layer(x), alone) <= 1e-6


def test_a_feed_forward_in_pieces_is_the_whole():
    layer, x = FeedForward(UNetConfig(), 16, Layers()), torch.randn(2, 7, 16)
    assert feed_forward_chunks(x, layer.config) == 4
    assert error(layer(x), layer.net(x)) <= 1e-6


@pytest.mark.parametrize("relative", [0, 4])
def test_a_network_is_the_same_with_its_channels_last(relative, monkeypatch):
    """As it is on GPUs; nothing but the sums' order may differ."""
    torch.manual_seed(0)
    sizes = {"model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1, "attention_resolutions": [1, 2], "head_channels": 16}
    unet = UNet(UNetConfig(**sizes, context_dim=32, temporal_conv=not relative, max_relative_position=relative)).requires_grad_(False)
    for parameter in unet.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    given = torch.randn(2, 4, 3, 7, 6), torch.tensor([500, 20]), Conditioning(torch.randn(2, 7, 32))
    first = unet(*given)
    monkeypatch.setattr("vc_core.models.unet.best_layout", lambda device: torch.channels_last)
    assert error(unet(*given), first) <= 1e-5
