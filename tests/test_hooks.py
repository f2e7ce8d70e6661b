"""What looks in at the UNet's places sees what stands there, and changes what it means to change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from harness import goldens
from tests.networks import UNETS, randomize
from tests.watching import FRAMES, VIDEOS, Watching
from vc_core.config import load_config
from vc_core.models.attention import CrossAttention, SelfAttention
from vc_core.models.conditioning import Conditioning, ContextStream
from vc_core.models.hooks import Hooks, Site, SpatialHooks
from vc_core.models.layers import Attention, LayerFactory, sdpa
from vc_core.models.unet import UNet


@pytest.fixture(params=UNETS)
def unet(request) -> UNet:
    return randomize(UNet(UNETS[request.param]))


def run(unet: UNet, hooks: Hooks | None = None) -> Tensor:
    """On two videos with texts of their own."""
    generator = torch.Generator().manual_seed(1)
    conditioning = Conditioning(torch.randn(VIDEOS, 7, 32, generator=generator))
    if unet.config.image_attention:
        tokens = torch.randn(VIDEOS, FRAMES * (unet.config.image_tokens_per_frame or 1), 32, generator=generator)
        conditioning = replace(conditioning, image_tokens=tokens, image_strength=torch.tensor([1.0, 0.3]))
    x = torch.randn(VIDEOS, 4, FRAMES, 8, 6, generator=generator)
    return unet(x, torch.tensor([500, 20]), conditioning, hooks)


def test_looking_changes_nothing(unet):
    assert torch.equal(run(unet), run(unet, Hooks()))
    assert torch.equal(run(unet), run(unet, Watching()))


def test_the_places_and_their_order(unet):
    watching = Watching()
    run(unet, watching)
    rows = VIDEOS * FRAMES
    down = [(rows, 32, 8, 6), (rows, 32, 8, 6), (rows, 32, 4, 3), (rows, 64, 4, 3)]
    assert watching.places == [
        *(("input", number, shape) for number, shape in enumerate(down)), ("middle", 0, down[-1]),
        *(("output", number, shape) for number, shape in enumerate(reversed(down))),
    ]
    attended = [("input", 1), ("input", 3), ("middle", 0), *(("output", number) for number in range(4))]
    assert [(site.part, site.block) for site in watching.sites] == attended
    assert [(site.transformer, site.depth) for site in watching.sites] == [(number, 0) for number in range(7)]
    assert [site.shape for site in watching.sites[:3]] == [down[1], down[3], down[3]]


def test_the_blocks_are_numbered_as_stable_diffusion_s():
    """VideoCrafter2's own size: 12 input and 12 output blocks, and attention where Stable Diffusion 2.1 has it."""
    watching, blank = Watching(), {"device": "meta"}
    config = load_config("t2v_512_v2").unet
    x, timesteps, text = torch.empty(1, 4, 2, 40, 64, **blank), torch.empty(1, **blank), torch.empty(1, 77, 1024, **blank)
    UNet(config, LayerFactory(**blank))(x, timesteps, Conditioning(text), watching)
    assert [(part, number) for part, number, _ in watching.places] == [
        *(("input", number) for number in range(12)), ("middle", 0), *(("output", number) for number in range(12))
    ]
    assert [(site.part, site.block) for site in watching.sites] == [
        *(("input", number) for number in (1, 2, 4, 5, 7, 8)), ("middle", 0), *(("output", number) for number in range(3, 12))
    ]


class EachFrameReads(Hooks, SpatialHooks):
    """Gives each frame its own copy of its video's text, and attention through functions of its own."""

    def spatial(self, site: Site) -> SpatialHooks:
        return self

    def self_attention(self, layer: SelfAttention, x: Tensor, attention: Attention | None) -> Tensor:
        return layer(x, x, x, attention=lambda *given: sdpa(*given))

    def cross_attention(
        self, layer: CrossAttention, x: Tensor, streams: list[ContextStream], attention: Attention | None
    ) -> Tensor:
        rows = streams[0].tokens.repeat_interleave(FRAMES, dim=0)
        text = replace(streams[0], tokens=rows, value_tokens=rows, attention=lambda *given: sdpa(*given))
        return layer(x, [text, *streams[1:]], attention)


def test_text_may_be_read_frame_by_frame(unet):
    assert goldens.error(run(unet, EachFrameReads()), run(unet)) <= 1e-5


@pytest.mark.parametrize("place", ["after_input_block", "after_middle_block", "before_output_block", "self_attention", "between"])
def test_what_is_changed_counts(unet, place):
    """At one place, in one video: the other stays as it is."""

    class Changing(Hooks, SpatialHooks):
        def spatial(self, site: Site) -> SpatialHooks:
            return self

    def changed(self, *given):
        usual = getattr(Hooks if hasattr(Hooks, place) else SpatialHooks, place)(self, *given)
        *kept, last = usual if isinstance(usual, tuple) else (usual,)
        last = torch.cat([last[:FRAMES] + 1, last[FRAMES:]])
        return (*kept, last) if kept else last

    setattr(Changing, place, changed)
    usual, out = run(unet), run(unet, Changing())
    assert goldens.error(out[0], usual[0]) > 0.01
    assert goldens.error(out[1], usual[1]) <= 1e-5


def test_keys_and_values_of_their_own():
    """Self-attention that reads other tokens is attention to them."""
    layer = SelfAttention(32, 16, LayerFactory())
    x, keys, values = torch.randn(2, 5, 32), torch.randn(2, 9, 32), torch.randn(2, 9, 32)
    by_hand = layer.to_out(sdpa(layer.to_q(x), layer.to_k(keys), layer.to_v(values), 2))
    assert torch.equal(layer(x, keys, values), by_hand)
    assert torch.equal(layer(x, keys), layer(x, keys, keys))
