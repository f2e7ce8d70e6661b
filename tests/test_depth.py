"""Depth maps before the model, causal attention over time, convolutions with repeated ends, and `generate --depth`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import vc_core
from tests.networks import SIZES, randomize
from vc_core.config import UNetConfig, load_config
from vc_core.errors import ConfigError, InputError
from vc_core.media.depth import fit_depth, prepare_depth
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import Hooks
from vc_core.models.unet import UNet
from vc_core.number_schedule import numbers_over_time

DEPTH = UNetConfig(
    **SIZES, in_channels=5, context_dim=32, init_attention=False, temporal_conv=False, spatial_temporal_conv=True, causal_frames=3,
    max_relative_position=4, fps_embedding=False,
)


def leaving(frames: int = 16) -> torch.Tensor:
    """A wall at 0.5, and before it a box at 0.9 that is gone from the middle of the clip on."""
    maps = torch.full([1, 1, frames, 64, 64], 0.5)
    maps[:, :, :, :8] = 0.1
    maps[:, :, : frames // 2, 24:40, 24:40] = 0.9
    return maps


def test_by_clip_a_wall_stays_where_it_was_when_the_box_before_it_leaves():
    clip, frame = (prepare_depth(leaving(), 8, 8, range)[0, 0, :, 7, 0] for range in ("clip", "frame"))
    assert clip.max() - clip.min() <= 1e-6
    assert frame.max() - frame.min() > 0.5  # by frame it jumps, as with the authors' preparation


@pytest.mark.parametrize(
    "tall, wide, height, width", [(256, 455, 40, 64), (480, 853, 40, 64), (20, 30, 40, 64), (3, 200, 8, 8), (1, 1, 40, 64)]
)
def test_maps_of_any_size_cover_the_video_and_are_cut_at_the_centre(tall, wide, height, width):
    """A slope along each axis keeps its middle, and isn't stretched: equal steps on both axes, to a pixel's rounding."""
    y, x = torch.meshgrid(torch.arange(tall) - (tall - 1) / 2, torch.arange(wide) - (wide - 1) / 2, indexing="ij")
    cut_y, cut_x = (fit_depth(each[None, None, None], height, width)[0, 0, 0] for each in (y, x))
    kept_tall, kept_wide = cut_y.shape
    assert kept_tall == tall or kept_wide == wide
    assert abs(kept_tall * width - kept_wide * height) <= max(width, height)
    assert abs(cut_y.mean()) <= 0.5 and abs(cut_x.mean()) <= 0.5
    assert prepare_depth(fit_depth(torch.rand(1, 1, 2, tall, wide), height, width), height, width).shape == (1, 1, 2, height, width)


def test_strength_flattens_each_frame_by_its_own():
    whole = prepare_depth(leaving(4), 8, 8)
    halves = prepare_depth(leaving(4), 8, 8, strength=[1.0, 0.5, 0.25, 0.0])
    assert torch.equal(halves, whole * torch.tensor([1.0, 0.5, 0.25, 0.0])[:, None, None])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"maps": torch.zeros(1, 1, 0, 8, 8)}, "at least 1 frame"),
        ({"maps": torch.zeros(1, 3, 2, 8, 8)}, r"\[1, 3, 2, 8, 8\]"),
        ({"maps": torch.full((1, 1, 2, 8, 8), float("nan"))}, "depth maps"),
        ({"range": "video"}, "clip or frame"),
        ({"strength": [1.0, 0.5, 0.2]}, "3 strengths for 2"),
    ],
)
def test_maps_that_are_none_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        prepare_depth(**({"maps": torch.rand(1, 1, 2, 8, 8), "height": 4, "width": 4} | change))


def test_numbers_over_time():
    assert numbers_over_time("0.5", 3, 0, 1) == [0.5] * 3
    assert numbers_over_time('"0": 1.0, "4": 0', 6, 0, 1) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert numbers_over_time('"0": "1", "-1": "0.5"', 3, 0, 1) == [1.0, 0.75, 0.5]
    for text, words in (("2", "2; it must be 0 to 1"), ('"0": near', "line"), ('"0": "near"', "near"), ('"0": 1, "2": -1', "-1; it must")):
        with pytest.raises(InputError, match=words):
            numbers_over_time(text, 4, 0, 1)


@torch.inference_mode()
def test_a_frame_sees_itself_and_the_two_before_it():
    """Attention over time alone; the norms of a transformer are over all frames, so one layer is asked."""
    layer = randomize(UNet(DEPTH)).middle_block[2].transformer_blocks[0].attn1
    x = torch.randn(1, 7, 3, 64, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 2] += 1
    moved = (layer(changed) - layer(x)).abs().amax(dim=(0, 2, 3)) > 1e-6
    assert moved.tolist() == [False, False, True, True, True, False, False]


@torch.inference_mode()
def test_the_convolutions_over_time_repeat_the_ends():
    """A clip that stands still is the same in every frame, and as long as it is; with zeros beyond the ends it would not be."""
    layer = randomize(UNet(DEPTH)).middle_block[0].temopral_conv
    still = torch.randn(1, 64, 1, 3, 4, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 6, -1, -1)
    out = layer(still)
    assert torch.allclose(out, out[:, :, :1].expand_as(out), atol=1e-5)
    assert torch.allclose(out[:, :, :1], layer(still[:, :, :1]), atol=1e-5)


@torch.inference_mode()
def test_hooks_see_what_its_convolutions_over_time_add():
    class Off(Hooks):
        def over_time(self, part, block, frames, added):
            return torch.zeros_like(added)

    unet, generator = randomize(UNet(DEPTH)), torch.Generator().manual_seed(0)
    x, context = torch.randn(1, 4, 5, 4, 4, generator=generator), torch.randn(1, 7, 32, generator=generator)
    given = Conditioning(context, concat=torch.randn(1, 1, 5, 4, 4, generator=generator))
    plain, hooked, off = (unet(x, torch.tensor([500]), given, hooks) for hooks in (None, Hooks(), Off()))
    assert torch.allclose(plain, hooked, atol=1e-5)
    # Without anything over time, a frame alone is what it is in the clip.
    alone = unet(x[:, :, :1], torch.tensor([500]), replace(given, concat=given.concat[:, :, :1]), Off())
    assert torch.allclose(off[:, :, :1], alone, atol=1e-5) and not torch.allclose(plain, off, atol=1e-3)


def test_both_kinds_of_convolutions_at_once_are_refused():
    with pytest.raises(ConfigError, match="spatial_temporal_conv"):
        load_config({"unet": {"spatial_temporal_conv": True}})


def test_a_model_without_depth_takes_none_and_names_one_that_does():
    model = vc_core.load("videocrafter_tiny_t2v")
    with pytest.raises(InputError, match=r"Bundled tiny text to video takes no depth maps.*make_your_video_v1"):
        model.depth_to_video(torch.rand(1, 1, 16, 8, 8), "a red square")
