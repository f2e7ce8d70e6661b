"""The layers that the networks are built of compute what torch's do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from harness.goldens import error
from vc_core.config import UNetConfig
from vc_core.memory import feed_forward_chunks
from vc_core.models.attention import TemporalAttention
from vc_core.models.conditioning import Conditioning
from vc_core.models.layers import LayerFactory, sdpa
from vc_core.models.transformers import FeedForward
from vc_core.models.unet import UNet


def test_a_temporal_convolution_is_the_3d_one():
    torch.manual_seed(0)
    layer, x = LayerFactory().temporal_conv(8), torch.randn(2, 8, 5, 3, 4)
    assert layer.weight.shape == (8, 8, 3, 1, 1)
    expected = nn.functional.conv3d(x, layer.weight, layer.bias, padding=(1, 0, 0))
    assert error(layer(x.flatten(3)), expected.flatten(3)) <= 1e-6


def test_a_pointwise_layer_is_the_convolution_of_width_one():
    layer, x = LayerFactory().pointwise(6, 4), torch.randn(2, 6, 7)
    assert layer.weight.shape == (4, 6, 1)
    assert error(layer(x.transpose(1, 2)), nn.functional.conv1d(x, layer.weight, layer.bias).transpose(1, 2)) <= 1e-6


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_norm_preserves_the_memory_layout(device):
    """On ``meta``, as on a GPU, torch's own returns channels first."""
    x = torch.randn(2, 64, 4, 5, device=device)
    last, norm = x.to(memory_format=torch.channels_last), LayerFactory(device=device).group_norm(64)
    assert norm(x).is_contiguous() and norm(last).is_contiguous(memory_format=torch.channels_last)
    if device == "meta":
        assert nn.GroupNorm(32, 64, device=device)(last).is_contiguous()
    else:
        assert error(norm(last), norm(x)) <= 1e-6


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_norm_of_one_pixel_loses_no_digits(layout):
    """A level of 1x1 has both layouts; torch's kernel for channels last is off by 3e-5 there."""
    torch.manual_seed(0)
    x, norm = torch.randn(4, 320, 1, 1) * 0.3 + 2, LayerFactory().group_norm(320)
    exact = nn.functional.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double())
    assert (norm(x.to(memory_format=layout)).double() - exact).abs().max() <= 5e-6


def test_parameters_have_the_factory_s_type_and_that_deviation():
    torch.manual_seed(0)
    parameter = LayerFactory(dtype=torch.float8_e4m3fn).parameter(100, 100, std=0.5)
    assert isinstance(parameter, nn.Parameter) and parameter.dtype == torch.float8_e4m3fn
    assert 0.48 < parameter.float().std() < 0.52
    assert not LayerFactory().parameter(3).any()


class OtherConv3d(nn.Conv3d):
    """Has its own form of the convolution over frames and positions: twice the usual, so that a test can tell."""

    def conv_over_time(self, input, weight, bias, padding):
        return 2 * nn.functional.conv2d(input, weight, bias, padding=padding)


def test_operations_may_have_their_own_convolution_over_time():
    torch.manual_seed(0)
    usual, other = LayerFactory().temporal_conv(8), LayerFactory(SimpleNamespace(Conv3d=OtherConv3d)).temporal_conv(8)
    assert isinstance(other, OtherConv3d) and type(other).__name__ == "OtherConv3d"
    other.load_state_dict(usual.state_dict())
    x = torch.randn(2, 8, 5, 12)
    assert error(other(x), 2 * usual(x)) <= 1e-6


@pytest.mark.parametrize("distance", [0, 2])
def test_temporal_attention_keeps_positions_and_heads_apart(distance, monkeypatch):
    """Against the attention of each position on its own; also where a GPU could not take all positions at once."""
    torch.manual_seed(0)
    config = UNetConfig(head_channels=16, max_relative_position=distance)
    layer, x = TemporalAttention(config, 32, LayerFactory()), torch.randn(2, 5, 6, 32)
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
    layer, x = FeedForward(UNetConfig(), 16, LayerFactory()), torch.randn(2, 7, 16)
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
