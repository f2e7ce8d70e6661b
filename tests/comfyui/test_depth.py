"""Depth to video in a real ComfyUI: the recorded runs, the core's clips, windows, and what is refused before sampling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness import golden_depth, golden_methods, goldens
from harness.bench import BUNDLED
from harness.golden_depth import FOLDER, DepthRun
from harness.graphs import TextGraph, assert_fails, out
from tests.comfyui.recorded import LATENT_SCALE, frames_of
from vc_core.diffusion.noise import RecordedNoise, SeededNoise
from vc_core.media.depth import prepare_depth
from vc_core.models.conditioning import Conditioning

RUNS = golden_methods.runs(FOLDER)
FILE = "make_your_video.safetensors"
pytestmark = pytest.mark.skipif(not RUNS, reason="not recorded")


@pytest.fixture(scope="module", autouse=True)
def files(checkpoints: Path) -> None:
    goldens.write_checkpoint(FOLDER, checkpoints / FILE)


def shown(graph, comfyui, maps, file):
    """An IMAGE of depth maps ``[T, 1, H, W]``, not rounded to eight bits."""
    save_file({"image": maps.float().movedim(1, -1).expand(-1, -1, -1, 3).contiguous()}, comfyui.base / "input" / file)
    return out(graph.add("TestImage", file=file))


def with_depth(graph, comfyui, maps, file, range="frame", strength=1.0, **more):
    """Sends the conditioning through VideoCrafter Depth to Video."""
    node = graph.add(
        "VideoCrafterDepthToVideo", positive=graph.positive, negative=graph.negative, depth=shown(graph, comfyui, maps, file), range=range,
        strength=strength, **more,
    )
    graph.positive, graph.negative = out(node, 0), out(node, 1)
    return node


def graph_of(frames, size=(64, 64), prompt="a camel walking", negative="", videos=1, file=FILE):
    graph = TextGraph(file, prompt, negative=negative, frames=frames, videos=videos)
    graph.prompt[graph.latent[0]]["inputs"] |= {"height": size[0], "width": size[1]}
    return graph


def moving(frames, height=48, width=64):
    """A wall with a nearer box that moves over it."""
    maps = torch.full([frames, 1, height, width], 0.5)
    for frame in range(frames):
        left = 4 + (width - 24) * frame // max(1, frames - 1)
        maps[frame, :, height // 3 : 2 * height // 3, left : left + 16] = 0.9
    return maps


@pytest.mark.parametrize("number", RUNS)
def test_the_recorded_runs(comfyui, number):
    """Their maps have another aspect than their videos, which the reference stretches; the node gets them stretched."""
    run, settings = DepthRun(number), DepthRun(number).settings
    size = [8 * side for side in run.tensor("x_T").shape[-2:]]
    graph = graph_of(settings["frames"], size, settings["prompt"], settings["negative"])
    latents = prepare_depth(run.maps, *run.tensor("x_T").shape[-2:], "frame")[0].movedim(1, 0)
    with_depth(graph, comfyui, latents, f"depth_{number}.st", latent=graph.latent)
    noise = run.noise
    save_file(
        {"noise": frames_of(noise.start), "steps": torch.stack([frames_of(each) for each in noise.step_noise])},
        comfyui.base / "input" / f"depth_{number}_noise.st",
    )
    ddim = graph.add("VideoCrafterDDIM", eta=settings["eta"])
    scheduler = graph.add("VideoCrafterScheduler", model=graph.model, steps=settings["steps"], denoise=1.0, spacing="uniform")
    sampled = graph.sample_custom(
        out(graph.add("TestNoise", file=f"depth_{number}_noise.st")),
        out(graph.add("TestStepNoise", sampler=out(ddim), file=f"depth_{number}_noise.st")), out(scheduler), settings["guidance"],
    )
    saved = graph.run(comfyui, latent=sampled, image=graph.decode(sampled))
    assert goldens.error(saved["latent"] * LATENT_SCALE, frames_of(run.tensor("latent"))) <= goldens.TOLERANCE
    assert goldens.pixel_error(saved["image"] * 2 - 1, run.tensor("video")[0].permute(1, 2, 3, 0)) <= goldens.PIXEL_TOLERANCE


@pytest.mark.parametrize("over_time", ["", '"0": 1.0, "-1": 0.2'])
def test_the_core_s_clip(comfyui, over_time):
    """Maps of another size and aspect, and an odd one; the strength changes over time."""
    maps, prompt = moving(6, 50, 91), "a red square"
    graph = graph_of(6, (64, 96), prompt)
    with_depth(graph, comfyui, maps, "depth_core.st", "clip", 0.8, strength_over_time=over_time)
    saved = graph.run(comfyui, latent=graph.sample(seed=3))
    strength = [0.8 * (1 - 0.8 * frame / 5) for frame in range(6)] if over_time else 0.8
    latents = []
    model = golden_depth.load()
    model.depth_to_video(
        maps.movedim(1, 0), prompt, depth_strength=strength, steps=4, seed=3, frames=6, height=64, width=96, guidance_scale=12.0,
        callback=lambda _step, _steps, _x0, x: latents.append(x),
    )
    assert goldens.error(saved["latent"] * LATENT_SCALE, frames_of(latents[-1])) <= goldens.TOLERANCE


def test_windows_see_the_maps_of_their_frames_in_the_range_of_the_clip(comfyui):
    """One step in two windows, without overlap, is a pass of each half with its own part of the whole clip's maps."""
    maps = moving(12)
    maps[6:] = 0.5  # where the box is gone, the wall stays where it was
    graph = graph_of(12)
    with_depth(graph, comfyui, maps, "depth_windows.st", "clip")
    graph.patch(
        "ContextWindowsManual", context_length=6, context_overlap=0, context_schedule="standard_static", context_stride=1,
        closed_loop=False, fuse_method="pyramid", dim=0, freenoise=False, cond_retain_index_list="",
        split_conds_to_windows=False, latent_retain_index_list="", causal_window_fix=True,
    )
    saved = graph.run(comfyui, latent=graph.sample(steps=1, seed=2, cfg=1.0, eta=0.0))
    model = golden_depth.load()
    depth = prepare_depth(maps.movedim(1, 0)[None, :, :, :, 8:56], 8, 8)  # cut to a square
    assert depth[0, 0, :, 0, 0].std() < 1e-6
    text = model.encode_text(["a camel walking"])
    start, halves = SeededNoise((1, 4, 12, 8, 8), 2).start, []
    for part in (slice(0, 6), slice(6, 12)):
        both = [Conditioning(text, concat=depth[:, :, part])] * 2
        noise = RecordedNoise(start[:, :, part], [start[:, :, part] * 0])
        halves.append(model.sample(*both, noise=noise, steps=1, eta=0.0, guidance_scale=1.0, frames=6, height=64, width=64))
    assert goldens.error(saved["latent"] * LATENT_SCALE, frames_of(torch.cat(halves, dim=2))) <= goldens.TOLERANCE


def test_several_videos_share_maps_or_have_their_own(comfyui):
    own = torch.cat([moving(4), moving(4).flip(-1)])
    each = []
    for rows, maps in enumerate((own[:4], own[4:])):
        graph = graph_of(4)
        with_depth(graph, comfyui, maps, f"depth_single_{rows}.st")
        each.append(graph.run(comfyui, latent=graph.sample(seed=rows))["latent"])
    graph = graph_of(4, videos=2)
    with_depth(graph, comfyui, own, "depth_own.st", latent=graph.latent)
    saved = graph.run(comfyui, latent=graph.sample(seed=0))["latent"]
    assert goldens.error(saved, torch.cat(each)) <= goldens.TOLERANCE


def test_a_model_without_depth_is_refused(comfyui):
    graph = TextGraph(BUNDLED, "a red square", frames=4)
    with_depth(graph, comfyui, moving(4), "depth_refused.st")
    graph.add("PreviewAny", source=graph.sample())
    assert_fails(comfyui, graph, "VideoCrafterSampler", "Bundled tiny text to video", "takes no depth maps", "make_your_video_v1")


def test_a_depth_model_without_maps_is_refused(comfyui):
    graph = graph_of(4)
    graph.add("PreviewAny", source=graph.sample())
    assert_fails(comfyui, graph, "VideoCrafterSampler", "make_your_video_v1", "positive conditioning has none", "Depth to Video")


@pytest.mark.parametrize("latent", [True, False])
def test_another_number_of_maps_is_refused_with_both_counts(comfyui, latent):
    graph = graph_of(5)
    with_depth(graph, comfyui, moving(4), "depth_count.st", **({"latent": graph.latent} if latent else {}))
    graph.add("PreviewAny", source=graph.sample())
    kind = "VideoCrafterDepthToVideo" if latent else "VideoCrafterSampler"
    assert_fails(comfyui, graph, kind, "There are 4 depth maps", "5 frames", "VideoCrafter Fit Video")


def test_no_maps_and_wrong_strengths_are_refused(comfyui):
    graph = graph_of(4)
    save_file({"image": torch.zeros(0, 8, 8, 3)}, comfyui.base / "input" / "depth_none.st")
    node = with_depth(graph, comfyui, moving(4), "depth_some.st")
    graph.prompt[node]["inputs"]["depth"] = out(graph.add("TestImage", file="depth_none.st"))
    graph.add("PreviewAny", source=graph.positive)
    assert_fails(comfyui, graph, "VideoCrafterDepthToVideo", "0 depth maps")
    graph = graph_of(4)
    with_depth(graph, comfyui, moving(4), "depth_some.st", strength_over_time='"0": 1, "2": 3')
    graph.add("PreviewAny", source=graph.positive)
    assert_fails(comfyui, graph, "VideoCrafterDepthToVideo", "strength_over_time is 3", "0 to 1")


def test_an_upscaled_video_has_maps_of_its_size_and_a_tile_is_refused(comfyui):
    graph = graph_of(4)
    with_depth(graph, comfyui, moving(4, 64, 64), "depth_square.st", latent=graph.latent)
    graph.latent = out(graph.add("LatentUpscale", samples=graph.latent, upscale_method="bilinear", width=128, height=128, crop="disabled"))
    larger = graph.run(comfyui, latent=graph.sample(seed=1))["latent"]
    other = graph_of(4, (128, 128))
    with_depth(other, comfyui, moving(4, 64, 64), "depth_square.st")
    assert torch.equal(larger, other.run(comfyui, latent=other.sample(seed=1))["latent"])
    graph = graph_of(4)
    with_depth(graph, comfyui, moving(4, 64, 64), "depth_square.st", latent=graph.latent)
    graph.latent = out(graph.add("LatentUpscale", samples=graph.latent, upscale_method="bilinear", width=128, height=64, crop="disabled"))
    graph.add("PreviewAny", source=graph.sample())
    assert_fails(comfyui, graph, "VideoCrafterSampler", "depth maps are for a latent of 8x8", "16x8")
