"""``torch.compile`` takes a UNet as one graph, for any size, and computes the same.

The backend here runs the graph as it was traced; generating code takes minutes on a CPU.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._inductor import metrics

from benchmarks.models import random_networks
from benchmarks.parts import Clip, conditioning
from harness.goldens import TOLERANCE, error
from tests.networks import UNETS, randomize
from tests.test_waiting import configuration
from vc_core.config import ModelConfig, load_config
from vc_core.diffusion.acceleration import compiled
from vc_core.models.transformers import GatedGELU, SpatialTransformer, TemporalTransformer
from vc_core.models.unet import ResidualBlock, UNet

FORMS = {**UNETS, "image for each frame": replace(UNETS["image for each frame"], in_channels=8)}
FORMS["one level"] = replace(FORMS["image for each frame"], channel_mult=[1], attention_resolutions=[1])
#: Frames, height and width in pixels. At 16 frames or more torch's convolution on a CPU is another one, and so is the graph. In the
#: first one no two sizes of a level are equal (videos, frames, both together, height, width), as torch would take them for one.
SIZES = (Clip(3, 112, 200, 1), Clip(5, 176, 88, 1))
COMPILED_LAYERS = (ResidualBlock, SpatialTransformer, TemporalTransformer)


@pytest.fixture(autouse=True)
def forget():
    """Graphs of other tests are not counted."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def form(kind: str) -> ModelConfig:
    config = configuration("text")
    config.unet = FORMS[kind]
    return config


def inputs(config: ModelConfig, clip: Clip, **where):
    """Of a pass over two videos."""
    one = conditioning(config, clip, where.get("device", "cpu"), torch.float32)
    given = type(one).stack(one, replace(one, text=one.text + 1))
    x = torch.randn(2, *clip.latent(config)[1:], **where)
    return x, torch.tensor([500, 20], **where), given


@pytest.mark.full
@pytest.mark.parametrize("kind", FORMS)
def test_a_network_is_one_graph_for_all_sizes(kind):
    config, counter = form(kind), CompileCounter()
    torch.manual_seed(0)
    unet = randomize(UNet(config.unet))
    one_graph = torch.compile(unet, fullgraph=True, dynamic=True, backend=counter)
    with torch.inference_mode():
        for clip in (*SIZES, SIZES[0]):
            given = inputs(config, clip)
            assert error(one_graph(*given), unet(*given)) <= TOLERANCE
    assert counter.frame_count == 1


@pytest.mark.full
def test_blocks_are_compiled_once_for_each_width():
    """More than the 8 graphs that torch has for one function before it gives up; another size needs none."""
    config, counter = form("text"), CompileCounter()
    config.unet = replace(config.unet, channel_mult=[1, 2, 3], attention_resolutions=[4], temporal_conv=False)
    torch.manual_seed(0)
    unet = randomize(UNet(config.unet))
    same = compiled(unet, "blocks", backend=counter)
    with torch.inference_mode():
        for clip in SIZES:
            given = inputs(config, clip)
            assert error(same(*given), unet(*given)) <= TOLERANCE
    layers = [layer for block in (*unet.input_blocks, unet.middle_block, *unet.output_blocks) for layer in block]
    kinds = {(type(layer), *(each.shape for each in layer.parameters())) for layer in layers if isinstance(layer, COMPILED_LAYERS)}
    assert sum(kind[0] is ResidualBlock for kind in kinds) > 8
    assert counter.frame_count == len(kinds)
    assert type(unet.input_blocks[1][0]).forward is not same.input_blocks[1][0].forward
    assert unet.input_blocks[1][0].__dict__.get("forward") is None, "the original is not changed"


@pytest.mark.full
def test_a_lora_is_seen_by_a_compiled_network():
    """Weights that change after compiling count: in place, as ComfyUI patches them."""
    config, counter = form("one level"), CompileCounter()
    torch.manual_seed(0)
    unet = randomize(UNet(config.unet))
    same, given = compiled(unet, "network", backend=counter), inputs(config, SIZES[0])
    with torch.inference_mode():
        before = same(*given)
        unet.middle_block[0].out_layers[3].weight.add_(0.1)
        after = same(*given)
        assert error(after, unet(*given)) <= TOLERANCE and error(after, before) > 0.01
    assert counter.frame_count == 1


@pytest.mark.full
@pytest.mark.parametrize("name, device", [("t2v_512_v2", "cpu"), ("dynamicrafter_1024_v1", "meta")])
def test_a_published_network_is_one_graph(name, device):
    """At its real widths, with random weights; on ``meta`` tensors have no numbers."""
    config, counter = load_config(name), CompileCounter()
    unet = random_networks(config, ["unet"], device, torch.float32)["unet"]
    one_graph = torch.compile(unet, fullgraph=True, dynamic=True, backend=counter)
    with torch.inference_mode():
        given = inputs(config, SIZES[0], device=device)
        found, expected = one_graph(*given), unet(*given)
    assert counter.frame_count == 1 and found.shape == expected.shape
    assert device == "meta" or (found - expected).abs().max() <= 1e-4


def kernels(run, *given) -> int:
    """How many kernels inductor makes of a function; its result is the function's."""
    torch.compiler.reset()
    metrics.reset()
    with torch.inference_mode():
        assert error(torch.compile(run)(*given), run(*given)) <= TOLERANCE
    return metrics.generated_kernel_count


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler: apt-get install g++")
def test_activations_take_no_kernels_of_their_own():
    """SiLU is computed where the norm is, and GEGLU's product where its GELU is."""
    unet = randomize(UNet(form("text").unet))
    [norm, silu, _] = next(each for each in unet.modules() if isinstance(each, ResidualBlock)).in_layers
    gated = next(each for each in unet.modules() if isinstance(each, GatedGELU))
    x, tokens = torch.randn(6, 32, 8, 8), torch.randn(2, 64, 32)
    assert kernels(lambda x: silu(norm(x)), x) == kernels(norm, x)
    assert kernels(gated, tokens) == 1
