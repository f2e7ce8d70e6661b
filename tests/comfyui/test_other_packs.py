"""Beside other packs' nodes: text for each frame, frames taken out of latents, windows, tiles, and upscaling. Stand-ins do what they do."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

import vc_core
from harness.bench import APART, BUNDLED, DYNAMICRAFTER, SCALE, T2V, Bench, Link, apart, same
from harness.goldens import PROMPTS
from harness.graphs import assert_fails, out
from harness.works_with.length import windowed
from vc_core.models.conditioning import Conditioning

SWAN, OTHER = PROMPTS[0], "a red circle moves down"


def texts(bench: Bench, rows: str, latent: Link | None = None) -> Link:
    """A conditioning whose row k has the bench's prompt (0) or another (1)."""
    mixed = out(bench.add("TestTexts", first=bench.text, second=bench.encode(OTHER), rows=rows))
    return bench.with_fps(mixed, latent)


def by_core(bench: Bench, rows: str, frames: int = 4) -> Tensor:
    """What vc_core samples with a text for each frame, as a LATENT's frames."""
    model = vc_core.load(bench.path)
    both = model.encode_text([SWAN, OTHER])
    text = torch.stack([both[int(row)] for row in rows])[None]
    negative = model.encode_text([""])[:, None].expand_as(text)
    positive, negative = (Conditioning(each, fps=torch.tensor([8.0])) for each in (text, negative))
    settings = {"steps": 3, "guidance_scale": 2.0, "seed": 0, "height": 64, "width": 64, "frames": frames}
    return model.sample(positive, negative, **settings).transpose(1, 2).flatten(0, 1) / SCALE


@pytest.mark.parametrize("rows", ["0011", pytest.param("0101", marks=pytest.mark.full)])
def test_each_frame_has_its_text(comfyui, rows):
    """In both samplers, with a negative of one row in the same batch."""
    bench = Bench(comfyui, T2V)
    bench.save("ours", latent=bench.authors(positive=texts(bench, rows), cfg=2.0))
    bench.save("first", latent=bench.authors(cfg=2.0))
    for name, given in {"frames": rows, "first": "0000", "plain": None}.items():
        bench.save(f"core {name}", latent=bench.ksampler(positive=bench.positive if given is None else texts(bench, given), cfg=2.0))
    results = bench.results()
    same(results["ours"], by_core(bench, rows))
    same(results["core first"], results["core plain"])
    assert apart(results["ours"], results["first"]) > APART and apart(results["core frames"], results["core plain"]) > APART


@pytest.mark.parametrize("rows", ["01", pytest.param("00001111", marks=pytest.mark.full)])
def test_each_video_has_its_text(comfyui, rows):
    """Of two: a row for each video, or for each frame."""
    bench = Bench(comfyui, T2V, videos=2)
    bench.save("both", latent=bench.ksampler(positive=texts(bench, rows, bench.latent)))
    for name in "01":
        bench.save(name, latent=bench.ksampler(positive=texts(bench, name, bench.latent)))
    results = bench.results()
    same(results["both"], torch.cat([results["0"][:4], results["1"][4:]]))
    assert apart(results["0"], results["1"]) > APART


@pytest.mark.parametrize("model", [T2V, pytest.param(DYNAMICRAFTER, marks=pytest.mark.full)])
def test_windows_have_the_texts_of_their_frames(comfyui, model):
    """Core's windows and those of another pack, each as if its frames were sampled alone."""
    bench = Bench(comfyui, model, frames=8)
    rows = "00011111"
    bench.save("plain", latent=bench.one_step())
    other = out(bench.add("TestWindows", model=bench.model, length=4, step=4))
    if model == T2V:
        positive = texts(bench, rows)
        for start in (0, 4):
            part = bench.frames_of(bench.latent, start, 4)
            alone = texts(bench, rows[start : start + 4])
            bench.save(f"alone {start}", latent=bench.one_step(positive=alone, latent_image=part))
    else:
        mixed = out(bench.add("TestTexts", first=bench.text, second=bench.encode(OTHER), rows=rows))
        positive, _ = bench.with_image(mixed, bench.text, bench.latent)
    bench.save("core's", latent=bench.one_step(model=windowed(bench, 4, 0), positive=positive))
    bench.save("another's", latent=bench.one_step(model=other, positive=positive))
    results = bench.results()
    same(results["another's"], results["core's"])
    assert apart(results["core's"], results["plain"]) > APART
    if model == T2V:
        same(results["core's"], torch.cat([results["alone 0"], results["alone 4"]]))


@pytest.mark.parametrize("patch", ["DeepCache", pytest.param("PAG", marks=pytest.mark.full)])
def test_a_text_for_each_frame_beside_patches(comfyui, patch):
    """Equal rows give what one gives; other rows count."""
    bench = Bench(comfyui, T2V)
    if patch == "PAG":
        bench.model = out(bench.add("PerturbedAttentionGuidance", model=bench.model, scale=3.0))
    else:
        settings = {"interval": 2, "blocks": 2, "start_percent": 0.0, "end_percent": 1.0}
        bench.model = out(bench.add("VideoCrafterDeepCache", model=bench.model, **settings))
    for name, given in {"one": "0", "equal": "0000", "others": "0111"}.items():
        bench.save(name, latent=bench.ksampler(positive=texts(bench, given), cfg=2.0))
    results = bench.results()
    same(results["equal"], results["one"])
    assert apart(results["others"], results["one"]) > APART


@pytest.mark.parametrize("frames", [range(0, 16, 2), *(pytest.param(each, marks=pytest.mark.full) for each in (range(8), range(5), [0]))])
def test_frames_taken_out_of_a_video_are_a_video(comfyui, frames):
    """By a node that leaves the LATENT's other values: as an empty one of that length."""
    bench = Bench(comfyui, T2V, frames=16)
    taken = out(bench.add("TestCutLatent", samples=bench.latent, frames=json.dumps(list(frames))))
    empty = out(bench.add("EmptyVideoCrafterLatent", width=64, height=64, length=len(frames), batch_size=1))
    plain = bench.with_fps(bench.text)
    for name, latent in (("taken", taken), ("empty", empty)):
        given = {"latent_image": latent, "positive": plain, "negative": plain}
        bench.save(f"ours {name}", latent=bench.authors(**given))
        bench.save(f"core's {name}", latent=bench.ksampler(**given))
    results = bench.results()
    for name in ("ours", "core's"):
        assert torch.equal(results[f"{name} taken"], results[f"{name} empty"]) and len(results[f"{name} taken"]) == len(frames)


def test_part_of_each_of_two_videos_by_core_s_nodes(comfyui):
    """Frames 2 and 3 of the first and 0 and 1 of the second: two videos of two frames."""
    bench = Bench(comfyui, T2V, videos=2)
    part = out(bench.add("LatentFromBatch", samples=bench.latent, batch_index=2, length=4))
    two = out(bench.add("EmptyVideoCrafterLatent", width=64, height=64, length=2, batch_size=2))
    plain = bench.with_fps(bench.text)
    for name, latent in (("part", part), ("two", two)):
        bench.save(name, latent=bench.authors(latent_image=latent, positive=plain, negative=plain))
    results = bench.results()
    assert torch.equal(results["part"], results["two"])


@pytest.mark.parametrize("node", ["VideoCrafterSampler", "KSampler"])
def test_frames_taken_out_of_two_videos_are_refused(comfyui, node):
    bench = Bench(comfyui, T2V, videos=2)
    bench.latent = out(bench.add("TestCutLatent", samples=bench.latent, frames="[0, 2, 4, 6]"))
    bench.positive = bench.negative = bench.with_fps(bench.text)
    bench.save("x", latent=bench.authors() if node == "VideoCrafterSampler" else bench.ksampler())
    assert_fails(bench.comfyui, bench, node, "4", "8", "frames", "removed or added", "use LatentFromBatch")


def test_deep_cache_keeps_windows_apart(comfyui):
    """Of another pack, as core's: each window reuses its own features."""
    bench = Bench(comfyui, T2V, frames=8)
    settings = {"interval": 2, "blocks": 2, "start_percent": 0.0, "end_percent": 1.0}

    def sampled(model: Link) -> Link:
        return bench.ksampler(model=out(bench.add("VideoCrafterDeepCache", model=model, **settings)), steps=4, cfg=2.0)

    bench.save("another's", latent=sampled(out(bench.add("TestWindows", model=bench.model, length=4, step=4))))
    bench.save("core's", latent=sampled(windowed(bench, 4, 0)))
    results = bench.results()
    same(results["another's"], results["core's"])


def test_deep_cache_stands_aside_for_tiles(comfyui):
    """Two tiles have the same shape and conditioning, and can't be told apart."""
    bench = Bench(comfyui, T2V)
    tiled = out(bench.add("TestTiles", model=bench.model))
    settings = {"interval": 2, "blocks": 2, "start_percent": 0.0, "end_percent": 1.0}
    bench.save("plain", latent=bench.ksampler(model=tiled, steps=4))
    bench.save("cached", latent=bench.ksampler(model=out(bench.add("VideoCrafterDeepCache", model=tiled, **settings)), steps=4))
    results = bench.results()
    assert torch.equal(results["cached"], results["plain"])
    assert "VideoCrafter DeepCache is off in this run" in comfyui.log.read_text(encoding="utf-8")


def test_packs_are_told_of_core_s_windows(comfyui):
    bench = Bench(comfyui, T2V, frames=8)
    told = out(bench.add("TestTold", model=windowed(bench, 4, 2), file="told.txt"))
    bench.save("x", latent=bench.one_step(model=told))
    bench.results()
    lines = [json.loads(line) for line in (comfyui.base / "output" / "told.txt").read_text().splitlines()]
    expected = [{"sub_idxs": list(range(start, start + 4)), "full_length": 8, "context_length": 4} for start in (0, 2, 4)]
    assert [line for number, line in enumerate(lines) if line not in lines[:number]] == expected


def test_two_videos_in_another_pack_s_windows(comfyui):
    """Windows of whole videos are right; others are refused, as core's are."""
    bench = Bench(comfyui, T2V, videos=2)
    bench.save("plain", latent=bench.one_step())
    bench.save("windowed", latent=bench.one_step(model=out(bench.add("TestWindows", model=bench.model, length=4, step=4))))
    results = bench.results()
    same(results["windowed"], results["plain"])
    bench.save("x", latent=bench.one_step(model=out(bench.add("TestWindows", model=bench.model, length=4, step=2))))
    assert_fails(comfyui, bench, "KSampler", "window of 4 frames", "across the videos")


def test_rescale_with_a_cfg_for_each_frame(comfyui):
    """Equal ones give what one gives."""
    bench = Bench(comfyui, T2V)
    bench.save("one", latent=bench.authors(cfg=3.0, guidance_rescale=0.7))
    for name, scales in (("equal", [3.0] * 4), ("others", [3.0, 3.0, 6.0, 6.0])):
        model = out(bench.add("TestCfgPerFrame", model=bench.model, scales=json.dumps(scales)))
        bench.save(name, latent=bench.authors(model=model, cfg=3.0, guidance_rescale=0.7))
    results = bench.results()
    same(results["equal"], results["one"])
    assert apart(results["others"], results["one"]) > APART


def test_dynamicrafter_is_upscaled(comfyui):
    """The image's latents take the size of the video; another aspect is refused."""
    bench = Bench(comfyui, DYNAMICRAFTER)
    low = bench.ksampler()
    sizes = {"high": (96, 96), "wide": (128, 64)}
    upscaled = {
        name: out(bench.add("LatentUpscale", samples=low, upscale_method="bilinear", width=width, height=height, crop="disabled"))
        for name, (width, height) in sizes.items()
    }
    bench.save("high", latent=bench.ksampler(latent_image=upscaled["high"], denoise=0.5))
    assert bench.results()["high"].shape == (4, 4, 12, 12)
    bench.save("x", latent=bench.ksampler(latent_image=upscaled["wide"], denoise=0.5))
    assert_fails(comfyui, bench, "KSampler", "[1, 4, 8, 8]", "[4, 4, 8, 16]", "same aspect", "tile")


@pytest.mark.full
def test_a_clip_turns_from_red_to_blue(comfyui):
    """The bundled model's: the shape's colour is that of each frame's text, with and without windows."""
    bench = Bench(comfyui, BUNDLED, frames=16)
    bench.text = bench.encode("a red circle moves right")
    blue = bench.encode("a blue circle moves right")
    turning = bench.with_fps(out(bench.add("TestTexts", first=bench.text, second=blue, rows="0" * 8 + "1" * 8)))
    for name, model in {"plain": bench.model, "windowed": windowed(bench, 16, 0)}.items():
        for sampler, sample in {"ours": bench.authors, "core's": bench.ksampler}.items():
            settings = {"model": model, "positive": turning, "steps": 20, "cfg": 4.0}
            bench.save(f"{name} {sampler}", image=bench.decode(sample(**settings)))
    for name, frames in bench.results().items():
        reds = [(frame[..., 0] - frame[..., 2]).mean().item() for frame in frames]
        assert [each > 0 for each in reds] == [True] * 8 + [False] * 8, (name, reds)


def test_nodes_that_change_core_s_blocks_are_told_of(comfyui):
    """They change nothing here, and the log says so, once."""
    bench = Bench(comfyui, T2V)
    bench.save("plain", latent=bench.one_step())
    bench.results()
    warning = "looks for transformer blocks of ComfyUI's own UNets"
    assert warning not in comfyui.log.read_text(encoding="utf-8")
    for seed in (0, 1):
        bench = Bench(comfyui, T2V)
        bench.save("plain", latent=bench.one_step(seed=seed))
        bench.save("changed", latent=bench.one_step(seed=seed, model=out(bench.add("TestChangeBlocks", model=bench.model))))
        results = bench.results()
        assert torch.equal(results["plain"], results["changed"])
        assert comfyui.log.read_text(encoding="utf-8").count(warning) == 1
