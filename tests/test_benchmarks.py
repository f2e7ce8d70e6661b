"""The benchmarks' yardstick computes what the models do, their measures are right, and so are the estimates of memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import plain
from benchmarks.floor import flops
from benchmarks.memory import cpu_peak, walk_peak
from benchmarks.models import fill, random_model, random_networks
from benchmarks.parts import NETWORKS, OURS, PLAIN, Clip, clip_ways
from benchmarks.report import GIB, Row, ratios
from harness import goldens
from tests.networks import UNETS, randomize
from vc_core.config import AutoencoderConfig, UNetConfig, load_config, published
from vc_core.diffusion.denoiser import GuidedDenoiser
from vc_core.diffusion.guidance import Guidance
from vc_core.kernels.operations import cpu_operations
from vc_core.memory import activations_per_pixel, activations_per_position
from vc_core.models.autoencoder import Autoencoder
from vc_core.models.conditioning import Conditioning
from vc_core.models.layers import LayerFactory
from vc_core.models.unet import UNet

CONFIGS = UNETS | {"image for each frame": replace(UNETS["image for each frame"], in_channels=8)}
MIB = 2**20


def conditioning(config: UNetConfig, frames: int, height: int, width: int, videos: int = 1, **where) -> Conditioning:
    """Random conditioning of the shapes that a UNet takes."""
    tokens = (config.image_tokens_per_frame or 1) * frames
    return Conditioning(
        torch.randn(videos, 77, config.context_dim, **where),
        torch.randn(videos, tokens, config.context_dim, **where) if config.image_attention else None,
        fps=torch.full((videos,), 8.0, device=where.get("device")),
        concat=torch.randn(videos, config.concat_channels, frames, height, width, **where) if config.concat_channels else None,
    )


@pytest.mark.full
@pytest.mark.parametrize("image", ["the same image", "each its own"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_plain_formulation_is_the_same_model(kind, image):
    torch.manual_seed(0)
    config = CONFIGS[kind]
    unet = randomize(UNet(config))
    positive, negative = conditioning(config, 3, 8, 6, videos=2), conditioning(config, 3, 8, 6, videos=2)
    if image == "the same image":
        negative = replace(negative, concat=positive.concat)
    x, timestep, guidance = torch.randn(2, 4, 3, 8, 6), torch.tensor([500, 20]), Guidance(7.5, rescale=0.7)
    by_hand = plain.guided_step(unet, positive, negative, guidance)(x, timestep)
    for together in (False, True):
        ours = GuidedDenoiser(unet, positive, negative, guidance, together=together)(x, timestep)
        assert goldens.error(ours, by_hand) <= goldens.TOLERANCE


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("same", [True, False], ids=["the same image", "each its own"])
def test_passes_share_the_first_block_where_they_see_the_same(same, together):
    """In videos that go through it: one for all passes, or one for each."""
    config, seen = CONFIGS["image for each frame"], []
    unet = UNet(config).requires_grad_(False).eval()
    unet.input_blocks[0][0].register_forward_pre_hook(lambda layer, given: seen.append(len(given[0]) // 3))
    positive, negative = conditioning(config, 3, 8, 6), conditioning(config, 3, 8, 6)
    negative = replace(negative, concat=positive.concat if same else negative.concat)
    denoise = GuidedDenoiser(unet, positive, negative, Guidance(7.5), together=together)
    denoise(torch.randn(1, 4, 3, 8, 6), torch.tensor([500]))
    assert sum(seen) == (1 if same else 2)


def test_the_plain_decoding_is_the_same():
    """Wide enough for a CPU's convolutions to be Winograd's."""
    torch.manual_seed(0)
    config = AutoencoderConfig(channels=128, channel_mult=[1, 1], num_res_blocks=1)
    autoencoder = Autoencoder(config, LayerFactory(cpu_operations())).requires_grad_(False).eval()
    fill(autoencoder)
    z = torch.randn(3, 4, 12, 16)
    with torch.no_grad():
        assert goldens.error(autoencoder.decode(z), plain.decode(autoencoder)(z)) <= goldens.TOLERANCE


def test_the_plain_clip_is_the_same():
    """All of its steps and its decoding, up to what ours clamps."""
    model = random_model(load_config("tiny_t2v"), NETWORKS["clip"], "cpu", torch.float32)
    by_way = clip_ways(model, Clip(frames=3, height=32, width=48, steps=3))
    with torch.inference_mode():
        ours, by_hand = by_way[OURS](), by_way[PLAIN]()
    assert ours.shape == (1, 3, 3, 32, 48)
    assert goldens.error(ours[0].transpose(0, 1), by_hand.clamp(-1, 1)) <= goldens.TOLERANCE


def test_a_walk_counts_what_is_alive():
    """64 numbers each: two alive at once, then a third while one of them is gone; views and changes in place take nothing."""

    def run() -> torch.Tensor:
        a = torch.empty(64, device="meta")
        b = a * 2
        del a
        b.view(8, 8).add_(1)
        return b + 1

    assert walk_peak(run) == 2 * 64 * 4


def test_an_attention_takes_no_matrix_on_a_walk():
    q = torch.empty(1, 2, 4096, 64, device="meta")
    assert walk_peak(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)) < 2 * 2 * 4096 * 64 * 4


def test_the_processor_s_peak_is_measured():
    def run() -> torch.Tensor:
        a = torch.ones(MIB)  # 4 MiB
        b = a + a
        del a
        return b + b

    assert 8 * MIB <= cpu_peak(run) <= 8 * MIB + 4096


def test_operations_are_counted():
    a, b = torch.empty(3, 5, device="meta"), torch.empty(5, 7, device="meta")
    assert flops(lambda: a @ b) == 2 * 3 * 5 * 7
    q, k = torch.empty(2, 4, 10, 8, device="meta"), torch.empty(2, 4, 6, 8, device="meta")
    assert flops(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k)) == 2 * (2 * 2 * 4 * 10 * 6 * 8)


def test_random_weights_keep_numbers_moderate():
    unet = UNet(CONFIGS["text"]).requires_grad_(False).eval()
    fill(unet)
    given = conditioning(unet.config, 3, 8, 8)
    out = unet(torch.randn(1, 4, 3, 8, 8), torch.tensor([500]), given)
    assert out.isfinite().all() and 0.01 < out.std() < 100


#: One of each form is estimated by `make test`.
QUICK = ("t2v_512_v2", "i2v_512_v1", "dynamicrafter_1024_v1", "make_your_video_v1", "tiny_t2v")
ESTIMATED = sorted({*published(), "tiny_t2v", "tiny_i2v", "tiny_dynamicrafter"} - {"dynamicrafter_512_interp_v1"})


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.full) for name in ESTIMATED])
def test_memory_is_estimated_from_the_configuration(name):
    """At the published widths, on a walk: one frame and 64, small and large, in float32 and in half.

    A quarter is what the estimate promises: it is linear in the positions, and it must not depend on which attention torch takes.
    ComfyUI and the core leave more memory free than that.
    """
    config = load_config(name)
    frames_and_sizes = [(1, 40, 64, torch.float32), (16, 24, 40, torch.float16), (64, 72, 128, torch.bfloat16)]
    unet = random_networks(config, ["unet"], "meta", torch.float32)["unet"]
    for frames, height, width, dtype in frames_and_sizes:
        network = unet.to(dtype)
        given = conditioning(config.unet, frames, height, width, device="meta", dtype=dtype)
        x = torch.empty(1, config.unet.out_channels, frames, height, width, device="meta", dtype=dtype)
        timestep = torch.empty(1, device="meta")
        taken = walk_peak(lambda: network(x, timestep, given))  # noqa: B023
        estimate = activations_per_position(config.unet, frames) * frames * height * width * dtype.itemsize
        assert estimate == pytest.approx(taken, rel=0.25), (frames, height, width, dtype, estimate / taken)


@pytest.mark.parametrize("name", ["t2v_512_v2", "tiny_t2v"])
def test_memory_of_decoding_is_estimated_from_the_configuration(name):
    config = load_config(name)
    network = random_networks(config, ["autoencoder"], "meta", torch.float32)["autoencoder"]
    side = config.downscale
    z = torch.empty(2, config.autoencoder.embed_dim, 40, 64, device="meta")
    taken = walk_peak(lambda: network.decode(z)) / (2 * 40 * side * 64 * side * 4)
    assert activations_per_pixel(config.autoencoder) == pytest.approx(taken, rel=0.25), taken


def test_ratios_are_of_the_plain_formulation_of_the_same_size_in_float32():
    def row(way: str, dtype: str, frames: int, seconds: float, peak: int) -> Row:
        return Row("step", way, "t2v", 8, 8, frames, 1, dtype, "cpu", seconds, 2 * seconds, 3.0, GIB, peak * GIB)

    table = ratios([
        row("plain", "float32", 16, 10.0, 4), row("ours", "float32", 16, 5.0, 1), row("plain", "bfloat16", 16, 1.0, 1),
        row("ours", "bfloat16", 16, 4.0, 2), row("ours", "float32", 32, 6.0, 3),
    ])  # fmt: skip
    assert table.splitlines()[2:] == [
        "| step | ours | 8x8x16 | float32 | 0.50 | 0.50 | 60% | 1.00, plain 4.00 |",
        "| step | ours | 8x8x16 | bfloat16 | 0.40 | 0.40 | 75% | 2.00, plain 4.00 |",
        "| step | ours | 8x8x32 | float32 |  |  | 50% | 3.00 |",
    ]
