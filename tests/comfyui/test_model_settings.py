"""VideoCrafter Model Settings and Example Image: a model's own settings and the user's, a drawn image and the user's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.bench import BUNDLED, DYNAMICRAFTER, T2V, T2V_V1, Bench, same
from harness.graphs import Graph, TextGraph, assert_fails, out
from harness.judge import colour_of, foreground

NOTHING_SET = {"width": 0, "height": 0, "length": 0, "fps": 0.0, "steps": 0}
#: As published: width, height, length, fps, steps, cfg, guidance_rescale, playback_fps.
PUBLISHED = {
    T2V: (512, 320, 16, 28.0, 50, 12.0, 0.0, 8.0),
    DYNAMICRAFTER: (512, 320, 16, 24.0, 50, 7.5, 0.7, 8.0),
    BUNDLED: (64, 64, 16, 8.0, 25, 4.0, 0.0, 8.0),
}


def given(bench: TextGraph, comfyui, **changes) -> tuple[float, ...]:
    """What the node gives."""
    node = bench.add("VideoCrafterModelSettings", model=bench.model, **(NOTHING_SET | changes))
    shown = [bench.add("PreviewAny", source=out(node, slot)) for slot in range(8)]
    outputs = comfyui.run(bench.prompt)
    return tuple(float(outputs[number]["text"][0]) for number in shown)


@pytest.mark.parametrize("model", list(PUBLISHED))
def test_the_settings_are_the_published_ones(comfyui, model):
    assert given(Bench(comfyui, model), comfyui) == PUBLISHED[model]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"width": 256, "height": 128, "length": 4, "fps": 10.0, "steps": 7}, (256, 128, 4, 10.0, 7)),
        ({"width": 1024}, (1024, 640, 16, 28.0, 50)),
        ({"height": 64}, (104, 64, 16, 28.0, 50)),  # 102.4, to a multiple of 8
    ],
)
def test_what_the_user_sets_is_kept(comfyui, changes, expected):
    assert given(Bench(comfyui, T2V), comfyui, **changes)[:5] == expected


def test_an_image_gives_the_aspect_ratio(comfyui):
    bench = Bench(comfyui, T2V)
    portrait = out(bench.add("EmptyImage", width=90, height=160, batch_size=1, color=0))
    assert given(bench, comfyui, image=portrait)[:2] == (320, 512)
    assert given(bench, comfyui, image=portrait, width=160)[:2] == (160, 256)


def test_a_graph_with_them_is_the_graph_with_the_numbers(comfyui):
    bench = Bench(comfyui, BUNDLED, frames=16)
    node = bench.add("VideoCrafterModelSettings", model=bench.model, **(NOTHING_SET | {"steps": 2}))
    latent = bench.add("EmptyVideoCrafterLatent", width=out(node, 0), height=out(node, 1), length=out(node, 2), batch_size=1)
    both = bench.add("VideoCrafterConditioning", positive=bench.text, negative=bench.text, fps=out(node, 3))
    inputs = {"positive": out(both, 0), "negative": out(both, 1)}
    bench.save("linked", latent=bench.authors(**inputs, latent_image=out(latent), steps=out(node, 4), cfg=out(node, 5)))
    plain = bench.add("VideoCrafterConditioning", positive=bench.text, negative=bench.text, fps=8.0)
    inputs = {"positive": out(plain, 0), "negative": out(plain, 1)}
    bench.save("plain", latent=bench.authors(**inputs, steps=2, cfg=4.0))
    results = bench.results()
    same(results["linked"], results["plain"])


@pytest.mark.parametrize("changes, message", [({"width": 100}, "width is 100; it must be a multiple of 8"), ({"fps": 0.5}, "fps is 0.5")])
def test_wrong_settings(comfyui, changes, message):
    bench = Bench(comfyui, T2V)
    width = out(bench.add("PrimitiveInt", value=changes["width"])) if "width" in changes else 0
    node = bench.add("VideoCrafterModelSettings", model=bench.model, **(NOTHING_SET | changes | {"width": width}))
    bench.add("PreviewAny", source=out(node))
    assert_fails(comfyui, bench, "VideoCrafterModelSettings", message)


def test_another_model(comfyui):
    bench = Bench(comfyui, T2V_V1)
    plain = out(bench.add("TestTwins", model=bench.model), 1)
    node = bench.add("VideoCrafterModelSettings", model=plain, **NOTHING_SET)
    bench.add("PreviewAny", source=out(node))
    assert_fails(comfyui, bench, "VideoCrafterModelSettings", "needs a VideoCrafter model", "Connect MODEL of Load VideoCrafter Model")


def test_the_drawn_image_is_what_was_asked_and_an_own_one_is_passed_on(comfyui):
    graph = Graph()
    choice = {"shape": "triangle", "color": "purple", "x": 40, "y": 20}
    drawn = graph.run(comfyui, image=out(graph.add("VideoCrafterExampleImage", **choice)))["image"]
    frame = (drawn[0].numpy() * 255).round().astype(np.uint8)
    mask = foreground(frame)
    rows, columns = np.nonzero(mask)
    assert drawn.shape == (1, 64, 64, 3) and colour_of(frame, mask) == "purple"
    assert abs(columns.mean() - 39.5) < 1 and abs((rows.min() + rows.max()) / 2 - 19.5) < 1
    assert columns[rows == rows.min()].size < columns[rows == rows.max()].size / 3  # it points up
    graph = Graph()
    own = out(graph.add("EmptyImage", width=24, height=40, batch_size=2, color=0x336699))
    passed = graph.run(comfyui, image=out(graph.add("VideoCrafterExampleImage", **choice, image=own)))["image"]
    assert passed.shape == (2, 40, 24, 3) and torch.equal(passed, passed[:1, :1, :1].expand_as(passed))


def test_a_shape_that_moves(comfyui):
    graph = Graph()
    choice = {"shape": "square", "color": "red", "x": 12, "y": 20, "length": 5, "end_x": 52, "end_y": 40}
    drawn = graph.run(comfyui, image=out(graph.add("VideoCrafterExampleImage", **choice)))["image"]
    middles = [np.argwhere(foreground((frame.numpy() * 255).round().astype(np.uint8))).mean(0) for frame in drawn]
    expected = [(20 + 5 * index - 0.5, 12 + 10 * index - 0.5) for index in range(5)]
    assert np.abs(np.array(middles) - np.array(expected)).max() < 1
