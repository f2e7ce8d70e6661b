"""VideoCrafter Prompt Schedule in a real ComfyUI: the same video as the core's, in windows and batches, and its plot."""

from __future__ import annotations

import pytest
import torch

import vc_core
from harness.bench import APART, SCALE, T2V, Bench, apart, same
from harness.graphs import assert_fails, out
from harness.works_with.length import windowed
from vc_core.prompt_schedule import encode_prompt, read_schedule

SCHEDULE = '"0:1": "a swan", "-1": "a red circle"'


def scheduled(bench: Bench, schedule: str = SCHEDULE, **changes) -> str:
    """The node's number."""
    settings = {"clip": bench.clip, "schedule": schedule, "length": 4, "interpolation": "linear", "before": "", "after": ""}
    return bench.add("VideoCrafterPromptSchedule", **(settings | changes))


@pytest.mark.parametrize("interpolation", ["slerp", pytest.param("linear", marks=pytest.mark.full)])
def test_the_video_is_the_core_s(comfyui, interpolation):
    bench = Bench(comfyui, T2V)
    node = scheduled(bench, interpolation=interpolation, before="a photo of")
    bench.save("ours", latent=bench.authors(positive=bench.with_fps(out(node)), cfg=2.0))
    bench.save("plain", latent=bench.authors(cfg=2.0))
    results, latents = bench.results(), []
    schedule = read_schedule(SCHEDULE, "a photo of", interpolation=interpolation)
    settings = {"steps": 3, "guidance_scale": 2.0, "fps": 8, "seed": 0, "height": 64, "width": 64, "frames": 4}
    vc_core.load(bench.path).text_to_video(schedule, "", callback=lambda *step: latents.append(step[3]), **settings)
    same(results["ours"], latents[-1].transpose(1, 2).flatten(0, 1) / SCALE)
    assert apart(results["ours"], results["plain"]) > APART


def test_a_schedule_in_windows_and_for_two_videos(comfyui):
    """Windows that don't overlap are sampled with their own prompts; both videos of a batch have the schedule."""
    bench = Bench(comfyui, T2V, videos=2)
    node = scheduled(bench, latent=bench.latent)
    bench.save("both", latent=bench.one_step(positive=bench.with_fps(out(node), bench.latent)))
    bench.save("windows", latent=bench.one_step(positive=bench.with_fps(out(node), bench.latent), model=windowed(bench, 4, 0)))
    one = Bench(comfyui, T2V)
    one.save("one", latent=one.one_step(positive=one.with_fps(out(scheduled(one)))))
    results, alone = bench.results(), one.results()["one"]
    same(results["windows"], results["both"])
    same(results["both"][:4], alone)


def test_a_latent_s_length_and_the_plot(comfyui):
    bench = Bench(comfyui, T2V, frames=6)
    node = scheduled(bench, schedule='"0": "a", "-1": "b"', latent=bench.latent)
    bench.save("plot", image=out(node, 1))
    bench.save("latent", latent=bench.one_step(positive=bench.with_fps(out(node))))
    plot = bench.results()["plot"][0]
    assert plot.shape[1:] == (768, 3) and 0 <= plot.min() < plot.max() <= 1
    coloured = (plot.amax(-1) - plot.amin(-1) > 0.2).float()
    lanes = [lane.sum(0) for lane in coloured[16:-24].split(56)]
    assert lanes[0][20:120].mean() > lanes[0][400:500].mean() > lanes[0][-100:-20].mean() == 0
    assert lanes[1][20:120].mean() == 0 < lanes[1][400:500].mean() < lanes[1][-100:-20].mean()


def test_what_can_t_be_read_is_an_error_of_the_node(comfyui):
    bench = Bench(comfyui, T2V)
    start = dict(bench.prompt)
    for schedule, parts in {'"0" "a"': ("line 1, column 5", '"0" "a"'), '"-9": "a"': ("before the first of 4 frames",)}.items():
        bench.add("PreviewAny", source=out(scheduled(bench, schedule)))
        assert_fails(comfyui, bench, "VideoCrafterPromptSchedule", *parts)
        bench.prompt = dict(start)


def test_long_and_short_prompts(comfyui):
    """One of more than 75 tokens beside short ones."""
    bench = Bench(comfyui, T2V)
    bench.save("x", latent=bench.one_step(positive=bench.with_fps(out(scheduled(bench, f'"0": "a swan", "2": "{"a dark road " * 40}"')))))
    assert bench.results()["x"].isfinite().all()
    tokens = encode_prompt(vc_core.load(bench.path).encode_text, read_schedule(f'"0": "a", "2": "{"a dark road " * 40}"'), 1, 4)
    assert tokens.shape[2] % 77 == 0 and tokens.shape[2] > 77 and torch.equal(tokens[0, 0, :77], tokens[0, 0, 77:154])
