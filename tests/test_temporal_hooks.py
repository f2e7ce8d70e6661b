"""Hooks on the temporal path, context streams, and conditions per frame: each place does what its name says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from harness.goldens import error
from vc_core.config import UNetConfig
from vc_core.diffusion.denoiser import GuidedDenoiser
from vc_core.diffusion.guidance import Guidance
from vc_core.errors import InputError
from vc_core.models.attention import TemporalAttention, explicit_attention
from vc_core.models.conditioning import Conditioning, ContextStream
from vc_core.models.hooks import Hooks, PassInputs, Site, SpatialHooks, TemporalHooks, combine, make_hooks
from vc_core.models.layers import LayerFactory, sdpa
from vc_core.models.time_embedding import sinusoidal_embedding
from vc_core.models.unet import UNet

SIZES = {"model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1, "attention_resolutions": [1, 2], "head_channels": 16}
CONFIGS = {
    "plain": UNetConfig(**SIZES, context_dim=32),
    "relative positions": UNetConfig(**SIZES, context_dim=32, temporal_conv=False, max_relative_position=4),
    "without the first transformer": UNetConfig(**SIZES, context_dim=32, init_attention=False, in_channels=5),
}
VIDEOS, FRAMES, HEIGHT, WIDTH = 2, 6, 8, 6


def network(config: UNetConfig) -> UNet:
    """With random weights, none of which is zero."""
    unet, generator = UNet(config), torch.Generator().manual_seed(0)
    for parameter in unet.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return unet.requires_grad_(False).eval()


@pytest.fixture(params=CONFIGS)
def unet(request) -> UNet:
    return network(CONFIGS[request.param])


def inputs(unet: UNet, videos: int = VIDEOS) -> PassInputs:
    """Two videos with texts of their own; the same ones each time."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(videos, unet.config.in_channels, FRAMES, HEIGHT, WIDTH, generator=generator)
    conditioning = Conditioning(torch.randn(videos, 7, 32, generator=generator), fps=torch.tensor([8.0, 24.0])[:videos])
    return PassInputs(("positive", "negative")[:videos], x, torch.tensor([500, 20])[:videos], conditioning)


def run(unet: UNet, hooks: Hooks | None = None, **changes: object) -> Tensor:
    given = replace(inputs(unet), **changes)
    return unet(given.x, given.timesteps, given.conditioning, hooks)


class EverySite(Hooks):
    """The same temporal hooks at every site; writes the sites down."""

    def __init__(self, hooks: TemporalHooks) -> None:
        self.hooks, self.sites = hooks, list[Site]()

    def temporal(self, site: Site) -> TemporalHooks:
        self.sites.append(site)
        return self.hooks


def test_the_sites_of_a_pass(unet):
    watching = EverySite(TemporalHooks())
    assert torch.equal(run(unet, watching), run(unet))
    first = [("init", 0)] if unet.config.init_attention else []
    expected = [*first, ("input", 1), ("input", 3), ("middle", 0), *(("output", number) for number in range(4))]
    assert [(site.part, site.block) for site in watching.sites] == expected
    assert {(site.batch, site.frames, site.depth) for site in watching.sites} == {(VIDEOS, FRAMES, 0)}
    sizes = {"init": (32, 8, 6), "middle": (64, 4, 3)}
    for site in watching.sites:
        if site.part in sizes:
            assert (site.channels, site.height, site.width) == sizes[site.part]
            assert site.shape == (VIDEOS * FRAMES, *sizes[site.part])


@pytest.mark.parametrize("place", ["block_input", "between", "block", "attn1", "attn2"])
def test_a_change_at_one_place_of_one_site_counts_there_only(unet, place):
    """In the first video of a batch: the second stays as it is."""

    class Changing(TemporalHooks):
        def block_input(self, x):
            return self.changed(x, "block_input")

        def block(self, run, x):
            return self.changed(run(x), "block")

        def attention(self, layer, x, name, attention):
            return self.changed(layer(x, attention), name)

        def between(self, x):
            return self.changed(x, "between")

        def changed(self, x, name):
            assert x.shape[:2] == (VIDEOS, FRAMES)
            return torch.cat([x[:1] + (name == place), x[1:]])

    out, usual = run(unet, EverySite(Changing())), run(unet)
    assert error(out[0], usual[0]) > 0.01
    assert error(out[1], usual[1]) <= 1e-5


def test_a_block_can_be_run_twice_and_by_its_parts(unet):
    """The mean of two runs is one; queries, keys, values and output projection apart are the layer."""

    class Twice(TemporalHooks):
        def block(self, run, x):
            return (run(x.clone()) + run(x)) / 2

        def attention(self, layer, x, name, attention):
            q, k, v = layer.project(x)
            return layer.to_out(layer.attend(q, k, v, edit_logits=lambda logits: logits, edit_probabilities=lambda p: p))

    assert error(run(unet, EverySite(Twice())), run(unet)) <= 1e-5


@pytest.mark.parametrize("relative", [0, 2])
def test_edits_of_logits_and_probabilities(relative):
    """A mask on the logits after relative position is attention to the frames that are left, by hand for each position."""
    torch.manual_seed(0)
    config = UNetConfig(head_channels=8, max_relative_position=relative)
    layer, x = TemporalAttention(config, 16, LayerFactory()), torch.randn(2, 5, 3, 16)
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    causal = torch.ones(5, 5).tril().bool()

    def mask(logits):
        assert logits.shape == (2, 3, 2, 5, 5)  # b l heads t t
        return logits.masked_fill(~causal, float("-inf"))

    out = layer.attend(*layer.project(x), edit_logits=mask)
    for last in range(5):  # a frame sees itself and those before
        q, k, v = (each[:, : last + 1] for each in layer.project(x))
        assert error(out[:, last], layer.attend(q, k, v)[:, last]) <= 1e-5
    nothing = layer.attend(*layer.project(x), edit_probabilities=lambda p: p * 0)
    assert not nothing.any()


def test_windows_of_frames_have_relative_positions_of_their_own(unet):
    """Attention in two halves is that of two shorter videos, relative positions included."""

    class Halves(TemporalHooks):
        def attention(self, layer, x, name, attention):
            q, k, v = (each.split(FRAMES // 2, dim=1) for each in layer.project(x))
            return layer.to_out(torch.cat([layer.attend(*half, attention) for half in zip(q, k, v, strict=True)], dim=1))

    given = inputs(unet)
    block = unet.middle_block[2].transformer_blocks[0]
    tokens = torch.randn(VIDEOS, FRAMES, 12, 64)
    halves = block(tokens.clone(), unet.prepare(given.x, given.timesteps, given.conditioning), Halves())
    pass_of_half = unet.prepare(given.x[:, :, : FRAMES // 2], given.timesteps, given.conditioning)
    apart = torch.cat([block(half.clone(), pass_of_half) for half in tokens.split(FRAMES // 2, dim=1)], dim=1)
    assert error(halves, apart) <= 1e-5


def test_explicit_attention_is_torch_s():
    q, k, v, bias = torch.randn(2, 5, 32), torch.randn(2, 7, 32), torch.randn(2, 7, 32), torch.randn(1, 4, 5, 7)
    assert error(explicit_attention(q, k, v, 4, bias), sdpa(q, k, v, 4, bias)) <= 1e-5
    first = explicit_attention(q, k, v, 4, edit_logits=lambda logits: logits.masked_fill(torch.arange(7) > 2, float("-inf")))
    assert error(first, sdpa(q, k[:, :3], v[:, :3], 4)) <= 1e-5


class Adding(TemporalHooks):
    def __init__(self, amount: float) -> None:
        self.amount = amount

    def between(self, x):
        return x + self.amount


def test_hooks_combine_in_their_order(unet):
    both = combine([EverySite(Adding(0.2)), EverySite(Adding(0.3))])
    assert error(run(unet, both), run(unet, EverySite(Adding(0.5)))) <= 1e-5
    assert combine([]) is None


def test_two_that_replace_the_same_attention_are_refused(unet):
    class Replacing(TemporalHooks):
        def attention(self, layer, x, name, attention):
            return layer(x, attention)

    assert error(run(unet, combine([EverySite(Replacing()), EverySite(Adding(0.5))])), run(unet, EverySite(Adding(0.5)))) <= 1e-5
    with pytest.raises(InputError, match="Replacing and Replacing both replace the attention"):
        run(unet, combine([EverySite(Replacing()), EverySite(Replacing())]))


def test_hooks_are_made_for_each_pass(unet):
    given, seen = inputs(unet), []

    def factory(pass_inputs: PassInputs) -> Hooks | None:
        seen.append(pass_inputs)
        return EverySite(Adding(0.5)) if "positive" in pass_inputs.roles else None

    assert make_hooks([factory, lambda _: None], given) is not make_hooks([factory], given)
    assert make_hooks([factory], replace(given, roles=("negative", "negative"))) is None
    assert seen[0] is given


# --- context streams ----------------------------------------------------------------------------------------------------


class StyleStream(Hooks, SpatialHooks):
    """A third stream with layers of its own, a norm on its result and a strength for each frame."""

    def __init__(self, tokens: Tensor, to_k: nn.Module, to_v: nn.Module, strength: Tensor, gate: nn.Module) -> None:
        self.tokens, self.to_k, self.to_v, self.strength, self.gate = tokens, to_k, to_v, strength, gate

    def spatial(self, site: Site) -> SpatialHooks | None:
        return self if (site.part, site.block) == ("input", 1) else None

    def context_streams(self, streams: list[ContextStream]) -> list[ContextStream]:
        return [*streams, ContextStream(self.tokens, self.to_k, self.to_v, strength=self.strength, gate=self.gate)]


def test_a_stream_of_tokens_can_be_added(unet):
    """By hand, in one cross-attention: each stream's attention, gated and weighted, is added before the output projection."""
    torch.manual_seed(0)
    layer = unet.input_blocks[1][1].transformer_blocks[0].attn2
    x, text, style = torch.randn(VIDEOS * FRAMES, 48, 32), torch.randn(VIDEOS, 7, 32), torch.randn(VIDEOS * FRAMES, 3, 32)
    to_k, to_v, gate = nn.Linear(32, 32), nn.Linear(32, 32), nn.LayerNorm(32)
    strength = torch.rand(VIDEOS * FRAMES)
    stream = ContextStream(style, to_k, to_v, strength=strength, gate=gate)
    by_frame = text.repeat_interleave(FRAMES, dim=0)
    q = layer.to_q(x)
    expected = sdpa(q, layer.to_k(by_frame), layer.to_v(by_frame), 2)
    expected = layer.to_out(expected + strength[:, None, None] * gate(sdpa(q, to_k(style), to_v(style), 2)))
    assert error(layer(x, [*layer.streams(text), stream]), expected) <= 1e-5
    hooks = StyleStream(style, to_k, to_v, strength, gate)
    assert error(run(unet, hooks), run(unet)) > 1e-3
    off = StyleStream(style, to_k, to_v, torch.zeros(VIDEOS * FRAMES), gate)
    assert error(run(unet, off), run(unet)) <= 1e-6


# --- conditions per frame ---------------------------------------------------------------------------------------------


def test_text_per_frame(unet):
    """The same text for each frame is the video's; another one for a frame changes it."""
    conditioning = inputs(unet).conditioning
    each = replace(conditioning, text=conditioning.text[:, None].repeat(1, FRAMES, 1, 1))
    assert error(run(unet, conditioning=each), run(unet)) <= 1e-5
    changed = each.text.clone()
    changed[:, 3] += 1
    x, timesteps = inputs(unet).x, inputs(unet).timesteps
    first, other = (unet(x, timesteps, replace(each, text=text), temporal_attention=False) for text in (each.text, changed))
    difference = (first - other).abs().amax((0, 1, 3, 4))
    assert difference.argmax() == 3
    if not unet.config.temporal_conv:  # then frames don't see one another, but for the norms of whole videos, which are left out
        assert difference[[0, 1, 2, 4, 5]].max() <= 1e-5


def test_a_timestep_per_frame(unet):
    given = inputs(unet)
    same = given.timesteps[:, None].repeat(1, FRAMES)
    assert error(run(unet, timesteps=same), run(unet)) <= 1e-5
    other = same.clone()
    other[:, 3] = 900
    first, changed = (unet(given.x, each, given.conditioning, temporal_attention=False) for each in (same, other))
    assert (first - changed).abs().amax((0, 1, 3, 4)).argmax() == 3


def test_a_second_condition_of_time_is_added_before_the_embedding(unet):
    """The sinusoid of another timestep in place of the own one, by adding their difference."""
    given = inputs(unet)
    other = torch.tensor([41, 733])
    difference = sinusoidal_embedding(other, 32) - sinusoidal_embedding(given.timesteps, 32)
    moved = run(unet, conditioning=replace(given.conditioning, time=difference))
    assert error(moved, run(unet, timesteps=other)) <= 1e-5
    assert error(moved, run(unet)) > 1e-3


def test_concat_latents_stand_after_the_noisy_channels(unet):
    given = inputs(unet)
    split = unet.config.out_channels - (unet.config.concat_channels == 0)
    conditioning = replace(given.conditioning, concat=given.x[:, split:])
    assert torch.equal(unet(given.x[:, :split], given.timesteps, conditioning), run(unet))


def test_stacked_conditionings_are_a_batch(unet):
    """With texts of different lengths, per video and per frame."""
    given = inputs(unet)
    one, other = (Conditioning(given.conditioning.text[i : i + 1], fps=given.conditioning.fps[i : i + 1]) for i in range(2))
    longer = replace(other, text=torch.cat([other.text] * 2, dim=1))
    assert error(run(unet, conditioning=Conditioning.stack(one, longer)), run(unet)) <= 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": torch.zeros(3, 7, 32)}, r"text has the shape \[3, 7, 32\]; expected is \[2, tokens, 32\]"),
        ({"text": torch.zeros(2, 5, 7, 32)}, r"\[2, 6, tokens, 32\] for a text per frame"),
        ({"text": torch.zeros(2, 7, 16)}, "text has the shape"),
        ({"fps": torch.ones(3)}, "fps has the shape .* must be 1 or 2, the number of videos"),
        ({"time": torch.ones(3, 32)}, "time has the shape"),
        ({"image_tokens": torch.ones(3, 4, 32)}, "image_tokens has the shape"),
        ({"concat": torch.zeros(2, 4, 6, 8, 6)}, "input channels; the noisy latent has .* and concat 4"),
        ({"concat": torch.zeros(2, 4, 1, 8, 6)}, r"concat has the shape .* expected is \[2, C, 6, 8, 6\]"),
    ],
)
def test_conditionings_that_do_not_fit_the_videos(unet, changes, message):
    given = inputs(unet)
    with pytest.raises(InputError, match=message):
        run(unet, conditioning=replace(given.conditioning, **changes))


@pytest.mark.parametrize("field", ["fps", "time"])
def test_a_field_of_one_conditioning_counts_in_a_batch_as_alone(unet, field):
    """Both are run one after the other then, as they can't be stacked."""
    text = torch.randn(2, 1, 7, 32, generator=torch.Generator().manual_seed(2))
    values = {"fps": torch.tensor([24.0]), "time": torch.randn(1, 32)}
    positive = Conditioning(text[0], **{field: values[field]})
    x, timesteps = inputs(unet).x[:1], torch.tensor([500])
    made = [
        GuidedDenoiser(unet, positive, Conditioning(text[1]), Guidance(4.0), together=together)(x, timesteps) for together in (True, False)
    ]
    assert torch.equal(*made)


def test_hooks_that_are_combined_already_combine_further(unet):
    class Replacing(TemporalHooks):
        def attention(self, layer, x, name, attention):
            return layer(x, attention)

    pair = combine([EverySite(Adding(0.1)), EverySite(Adding(0.2))])
    together = combine([EverySite(Replacing()), pair])
    assert error(run(unet, together), run(unet, EverySite(Adding(0.3)))) <= 1e-5
