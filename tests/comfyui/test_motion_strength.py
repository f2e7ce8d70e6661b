"""VideoCrafter Motion Strength in a real ComfyUI: the core's numbers, in windows, and what is refused."""

from __future__ import annotations

import pytest
import torch

from harness.bench import APART, DYNAMICRAFTER, T2V, Bench, apart, core_latent, same
from harness.graphs import assert_fails, out
from harness.works_with.length import windowed
from vc_core.diffusion.motion import motion_strength


def moved(bench: Bench, **changes) -> list:
    """The bench's model through the node."""
    inputs = {"model": bench.model, "strength": 0.5, "blocks": "all", "strengths": ""}
    return out(bench.add("VideoCrafterMotionStrength", **(inputs | changes)))


def test_the_video_is_the_core_s(comfyui):
    bench = Bench(comfyui, T2V)
    mask = torch.zeros(1, 8, 8)
    mask[..., 4:] = 1
    masked = bench.tensor_input("TestMask", "mask", mask)
    cases = {
        "half": ({}, motion_strength(0.5)),
        "frames": ({"strengths": "0, 0.5 1.5"}, motion_strength([0.0, 0.5, 1.5])),
        "mask": ({"mask": masked, "blocks": "output"}, motion_strength(0.5, mask, ["output"])),
    }
    for name, (changes, _) in cases.items():
        bench.save(name, latent=bench.authors(model=moved(bench, **changes), cfg=2.0))
    bench.save("one", latent=bench.authors(model=moved(bench, strength=1.0), cfg=2.0))
    bench.save("plain", latent=bench.authors(cfg=2.0))
    results = bench.results()
    for name, (_, factory) in cases.items():
        same(results[name], core_latent(bench.path, guidance_scale=2.0, hooks=(factory,)))
        assert apart(results[name], results["plain"]) > APART
    assert torch.equal(results["one"], results["plain"])


@pytest.mark.parametrize("model", [T2V, pytest.param(DYNAMICRAFTER, marks=pytest.mark.full)])
def test_windows_have_the_strengths_of_their_frames(comfyui, model):
    """The second window's first frame is frame 4."""
    bench = Bench(comfyui, model, frames=8)
    both = "0, 0, 0, 0, 2, 2, 2, 2"
    for name, strengths in {"both": both, "first": "0", "second": "2"}.items():
        windows = windowed(bench, 4, 0)
        bench.save(name, latent=bench.one_step(model=moved(bench, model=windows, strengths=strengths)))
    results = bench.results()
    same(results["both"], torch.cat([results["first"][:4], results["second"][4:]]))
    assert apart(results["first"], results["second"]) > APART


def test_two_nodes_multiply(comfyui):
    bench = Bench(comfyui, T2V)
    twice = moved(bench, model=moved(bench, strength=0.5), strength=2.0)
    bench.save("twice", latent=bench.one_step(model=twice))
    bench.save("plain", latent=bench.one_step())
    results = bench.results()
    same(results["twice"], results["plain"])


def test_what_can_t_be_read(comfyui):
    bench = Bench(comfyui, T2V)
    bench.add("PreviewAny", source=moved(bench, strengths="1, fast"))
    assert_fails(comfyui, bench, "VideoCrafterMotionStrength", "1, fast", "numbers with commas")


@pytest.mark.parametrize("strengths", [",", " , "])
def test_numbers_that_are_none(comfyui, strengths):
    bench = Bench(comfyui, T2V)
    bench.add("PreviewAny", source=moved(bench, strengths=strengths))
    assert_fails(comfyui, bench, "VideoCrafterMotionStrength", "strengths is", "numbers with commas")


def test_a_mask_without_numbers(comfyui):
    bench = Bench(comfyui, T2V)
    mask = bench.tensor_input("TestMask", "mask", torch.full((1, 8, 8), torch.nan))
    bench.add("PreviewAny", source=moved(bench, mask=mask))
    assert_fails(comfyui, bench, "VideoCrafterMotionStrength", "mask has values that are no numbers")
