"""What is saved: of good quality, playable everywhere, and with the graph inside, by our node and by those of core's that the docs name."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from harness.bench import T2V
from harness.client import files_of
from harness.graphs import Graph, TextGraph, assert_fails, out
from harness.server import Server

WORKFLOW = {"nodes": [], "links": [], "version": 0.4, "extra": {"from": "the test"}}
PATIENCE = 120  # seconds
GREY = 0x80


def save(comfyui: Server, node: str, **inputs: Any) -> tuple[list[Path], dict[str, Any]]:
    """Save three grey frames of 64x48 with a node, as the interface would; the files, and the graph that was run."""
    graph = Graph()
    frames = graph.add("EmptyImage", width=64, height=48, batch_size=3, color=GREY * 0x010101)
    graph.add(node, images=out(frames), filename_prefix=f"saving/{node}", **inputs)
    answer = comfyui.post("/prompt", {"prompt": graph.prompt, "extra_data": {"extra_pnginfo": {"workflow": WORKFLOW}}}).json()
    prompt_id = answer["prompt_id"]
    deadline = time.monotonic() + PATIENCE
    while not (history := comfyui.get(f"/history/{prompt_id}")):
        assert time.monotonic() < deadline, "the graph was not done in time"
        time.sleep(0.05)
    return [comfyui.path(file) for file in files_of(history[prompt_id]["outputs"])], graph.prompt


@pytest.mark.parametrize("crf", [17.0, 30.0])
def test_our_mp4_plays_everywhere_and_holds_the_graph(comfyui: Server, crf: float):
    (path,), prompt = save(comfyui, "VideoCrafterSaveVideo", fps=8.0, crf=crf)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 8)
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
        tags = {key: json.loads(value) for key, value in video.metadata.items() if key in ("workflow", "prompt")}
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3 and abs(frames[1].astype(int) - GREY).max() <= 2
    assert tags == {"workflow": WORKFLOW, "prompt": prompt}
    assert re.search(rb"crf=([\d.]+)", path.read_bytes())[1] == f"{crf:.1f}".encode()  # as x264 notes it in the stream


def test_our_mp4_is_of_good_quality_unless_asked_otherwise(object_info: dict[str, dict[str, Any]]):
    assert object_info["VideoCrafterSaveVideo"]["input"]["required"]["crf"][1]["default"] <= 17


def test_webm_holds_the_graph(comfyui: Server):
    (path,), prompt = save(comfyui, "SaveWEBM", codec="vp9", fps=8.0, crf=20.0)
    with av.open(str(path)) as video:
        assert (video.streams.video[0].codec.name, video.streams.video[0].pix_fmt) == ("vp9", "yuv420p")
        tags = {key.lower(): json.loads(value) for key, value in video.metadata.items() if key.lower() in ("workflow", "prompt")}
    assert tags == {"workflow": WORKFLOW, "prompt": prompt}


def test_animated_webp_holds_the_graph(comfyui: Server):
    (path,), prompt = save(comfyui, "SaveAnimatedWEBP", fps=8.0, lossless=True, quality=80, method="default")
    with Image.open(path) as image:
        assert image.n_frames >= 1
        tags = dict(text.split(":", 1) for text in image.getexif().values() if isinstance(text, str) and ":" in text)
    assert {key: json.loads(value) for key, value in tags.items()} == {"workflow": WORKFLOW, "prompt": prompt}


def test_png_frames_hold_the_graph(comfyui: Server):
    paths, prompt = save(comfyui, "SaveImage")
    assert len(paths) == 3
    for path in paths:
        with Image.open(path) as image:
            assert image.getpixel((0, 0)) == (GREY, GREY, GREY)
            assert {key: json.loads(image.text[key]) for key in ("workflow", "prompt")} == {"workflow": WORKFLOW, "prompt": prompt}


@pytest.mark.parametrize("what", ["nan", "infinite", "huge numbers"])
def test_decoding_says_where_there_are_no_numbers(comfyui: Server, checkpoints: Path, what: str):
    """Such frames would be black."""
    graph = TextGraph(f"{T2V}.safetensors", "a cat", frames=2, size=32)
    latent = out(graph.add("TestStrangeLatent", what=what))
    decoded = graph.add("VideoCrafterDecode", samples=latent, vae=graph.vae, frames_at_once=1)
    graph.add("PreviewImage", images=out(decoded))
    assert_fails(comfyui, graph, "VideoCrafterDecode", "number 1, hold values that are no numbers (NaN or infinity)", "--fp32-vae")


@pytest.mark.parametrize("node", ["VideoCrafterSaveVideo", "VideoCrafterPictureKept", "VideoCrafterJoinClips"])
def test_images_without_numbers_are_said(comfyui: Server, node: str):
    graph = Graph()
    image = out(graph.add("TestStrangeImage", what="nan"))
    inputs: dict[str, Any] = {
        "VideoCrafterSaveVideo": {"filename_prefix": "nan", "fps": 8.0, "crf": 17.0}, "VideoCrafterPictureKept": {"image": image},
        "VideoCrafterJoinClips": {"images": out(graph.add("RepeatImageBatch", image=image, amount=4)), "length": 2, "match": True},
    }
    asked = graph.add(node, **({"images": image} | inputs[node]))
    if node != "VideoCrafterSaveVideo":
        graph.add("PreviewImage", images=out(asked))
    assert_fails(comfyui, graph, node, "of the images, the first of them number 1, hold values that are no numbers")
    assert not list((comfyui.base / "output").glob("nan*"))
