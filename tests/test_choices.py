"""Choices change how something is computed, not what."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from benchmarks.gpu.switches import DECODE, STEP, STEP_ON_GPU
from benchmarks.models import random_model
from benchmarks.parts import conditioning
from harness.goldens import error
from tests.networks import UNETS, randomize
from tests.test_waiting import CLIP, configuration
from vc_core.choices import Choices, choose, current
from vc_core.config import load_config
from vc_core.diffusion.denoiser import GuidedDenoiser
from vc_core.diffusion.guidance import Guidance
from vc_core.errors import InputError
from vc_core.memory import feed_forward_chunks, frames_at_once, passes_fit
from vc_core.models.attention import TemporalAttention
from vc_core.models.layers import LayerFactory
from vc_core.models.unet import UNet

#: Those that tests/test_compiling.py has.
COMPILED = ("network compiled", "blocks compiled")


def test_the_default_holds_again_afterwards():
    assert current() == Choices()
    with pytest.raises(ZeroDivisionError), choose(feed_forward_chunks=2) as chosen:
        assert current() is chosen and current().feed_forward_chunks == 2
        with choose(passes_together=True):
            assert (current().feed_forward_chunks, current().passes_together) == (2, True)
        raise ZeroDivisionError
    assert current() == Choices()


def test_each_choice_is_measured():
    turned = {name for cases in (STEP, STEP_ON_GPU, DECODE) for changes in cases.values() for name in changes}
    assert turned == {field.name for field in fields(Choices)} - {"compile_backend"}


@pytest.mark.parametrize("kind", UNETS)
def test_a_step_is_the_same(kind):
    torch.manual_seed(0)
    config = configuration(kind)
    unet = randomize(UNet(config.unet))
    both = [conditioning(config, CLIP, "cpu", torch.float32) for _ in range(2)]
    x, timesteps = torch.randn(CLIP.latent(config)), torch.tensor([500])
    guidance = Guidance(2.0)  # a larger one magnifies what is rounded differently
    default = GuidedDenoiser(unet, *both, guidance)(x, timesteps)
    for case in STEP.keys() - COMPILED:
        with choose(**STEP[case]):
            assert error(GuidedDenoiser(unet, *both, guidance)(x, timesteps), default) <= 1e-5, case


def test_decoding_is_the_same():
    torch.manual_seed(0)
    model = random_model(load_config("tiny_t2v"), ["autoencoder"], "cpu", torch.float32)
    latents = torch.randn(1, 4, 5, 6, 4)
    default = model.decode(latents)
    for case, changes in DECODE.items():
        with choose(**changes):
            assert error(model.decode(latents), default) <= 1e-5, case


def test_choices_are_followed():
    config, cpu = UNETS["text"], torch.device("cpu")
    with choose(passes_together=True, frames_at_once=3, feed_forward_chunks=2):
        assert passes_fit(config, 10**9, 16, torch.float32, cpu)
        assert frames_at_once(load_config("tiny_t2v").autoencoder, 10**9, torch.float32, cpu) == 3
        assert feed_forward_chunks(torch.empty(2, 8, device="meta"), config) == 2
    norm, last = LayerFactory(device="meta").group_norm(32), torch.empty(2, 32, 4, 5, device="meta").to(memory_format=torch.channels_last)
    with choose(norm_keeps_layout=False):
        assert norm(last).is_contiguous()
    with pytest.raises(InputError, match="compiled is 'all'; it can be none, blocks, network"), choose(compiled="all"):
        unet = UNet(config, LayerFactory(device="meta"))
        GuidedDenoiser(unet, *[conditioning(configuration("text"), CLIP, "cpu", torch.float32)] * 2, Guidance(7.5))


@pytest.mark.parametrize("as_heads", [True, False])
def test_attention_over_time_has_no_more_sequences_than_a_gpu_can_launch(as_heads):
    """1024x576: 9,216 positions, two passes, 5 heads are 92,160 sequences of 16 frames; the bits are those of a single call."""
    torch.manual_seed(0)
    seen = []

    def recording(q, k, v, heads):
        assert q.shape == k.shape == v.shape
        seen.append(q.shape[0] * heads)
        return q - 0.5 * k + v  # depends on all, and needs no memory

    config = UNETS["text"]
    layer = TemporalAttention(config, 5 * config.head_channels, LayerFactory(device="meta"))
    q, k, v = torch.randn(3, 2, 16, 9216, 1, dtype=torch.float16).expand(-1, -1, -1, -1, layer.heads * config.head_channels).unbind()
    with choose(positions_as_heads=as_heads):
        out = layer.attend(q, k, v, recording)
    assert sum(seen) == 92160 and max(seen) < 2**16 and len(seen) == 2
    assert torch.equal(out, q - 0.5 * k + v)


@pytest.mark.parametrize("as_heads", [True, False])
def test_split_attention_over_time_has_the_same_bits(as_heads, monkeypatch):
    torch.manual_seed(0)
    config = UNETS["text"]
    layer = TemporalAttention(config, 32, LayerFactory())
    q, k, v = torch.randn(3, 2, 5, 12, 32).unbind()
    with choose(positions_as_heads=as_heads):
        whole = layer.attend(q, k, v)
        monkeypatch.setattr("vc_core.models.attention.MAX_SEQUENCES", 20)
        assert torch.equal(layer.attend(q, k, v), whole)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_a_convolution_over_time_is_the_3d_one(dtype, bound):
    torch.manual_seed(0)
    layer, x = LayerFactory(dtype=dtype).temporal_conv(8).requires_grad_(False), torch.randn(2, 8, 5, 12).to(dtype)
    flat = layer(x)
    with choose(temporal_conv_as_2d=False):
        deep = layer(x)
    assert flat.shape == deep.shape and error(flat, deep) <= bound
