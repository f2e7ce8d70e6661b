"""Save Video's formats, its output, and clips of core's Load Video and of VideoHelperSuite, in a real ComfyUI."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from harness.client import ComfyError, files_of
from harness.comfyui import REPOSITORY
from harness.graphs import Graph, assert_fails, out
from harness.server import Server
from vc_core.media.clip import Clip
from vc_core.media.formats import BY_TITLE, FORMATS
from vc_core.media.sound import Sound
from vc_core.media.video import read_video, write_clip

TITLES = [each.title for name, each in FORMATS.items() if name != "apng"]
WORKFLOW = {"nodes": [], "links": [], "version": 0.4, "extra": {"text": "one\ntwo; {# = \\ 🎬 红"}}
PATIENCE = 120  # seconds


def image(comfyui: Server, graph: Graph, frames: torch.Tensor) -> list[Any]:
    """Frames ``[T, H, W, 3]`` as an IMAGE."""
    save_file({"image": frames.contiguous()}, comfyui.base / "input" / "frames.safetensors")
    return out(graph.add("TestImage", file="frames.safetensors"))


def brightness(count: int, height: int = 64, width: int = 80) -> torch.Tensor:
    """Frames of one brightness each."""
    return ((torch.arange(count) + 1) / (count + 1))[:, None, None, None].expand(-1, height, width, 3)


def run(comfyui: Server, graph: Graph) -> dict[str, Any]:
    """Run a graph as the interface does, with the workflow; what its nodes showed."""
    answer = comfyui.post("/prompt", {"prompt": graph.prompt, "extra_data": {"extra_pnginfo": {"workflow": WORKFLOW}}}).json()
    deadline = time.monotonic() + PATIENCE
    while not (history := comfyui.get(f"/history/{answer['prompt_id']}")):
        assert time.monotonic() < deadline, "the graph was not done in time"
        time.sleep(0.05)
    assert history[answer["prompt_id"]]["status"]["status_str"] == "success", history
    return history[answer["prompt_id"]]["outputs"]


def graph_inside(path: Path) -> dict[str, Any]:
    """The prompt and the workflow in a file, as strict JSON."""
    def strict(text: str) -> Any:
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    if path.suffix in (".mp4", ".webm", ".mov", ".mkv"):
        with av.open(str(path)) as file:
            texts = {key.lower(): text for key, text in file.metadata.items()}
    else:
        with Image.open(path) as picture:
            if path.suffix == ".gif":
                return strict(picture.info["comment"].decode())
            texts = picture.text if path.suffix == ".png" else dict(each.split(":", 1) for each in picture.getexif().values())
    return {key: strict(text) for key, text in texts.items() if key in ("prompt", "workflow")}


@pytest.mark.parametrize("title", TITLES)
def test_each_format_holds_the_frames_and_the_graph(comfyui: Server, title: str):
    graph = Graph()
    frames = brightness(4)
    sound = out(graph.add("EmptyAudio", duration=5.0, sample_rate=44100, channels=2))
    graph.add("VideoCrafterSaveVideo", images=image(comfyui, graph, frames), filename_prefix="formats/clip", fps=8.0, crf=10.0,
              format=title, loop_count=1, ping_pong=True, audio=sound)
    shown = run(comfyui, graph)
    paths = sorted({comfyui.path(file) for file in files_of(shown)})
    form = FORMATS[BY_TITLE[title]]
    assert [path.suffix for path in paths] == ([form.suffix] if form.suffix else [".png"] * 6)
    assert graph_inside(paths[0]) == {"workflow": WORKFLOW, "prompt": graph.prompt}
    found = torch.cat([read_video(path) for path in paths], 1)
    means = (found.mean((0, 2, 3)) + 1) / 2
    assert found.shape[2:] == (64, 80) and torch.allclose(means, frames[[0, 1, 2, 3, 2, 1], 0, 0, 0], atol=0.01)
    if form.sound:
        with av.open(str(paths[0])) as file:
            assert abs(file.duration / av.time_base - 6 / 8) < 0.021 and len(file.streams.audio) == 1
    pictures = next(iter(shown.values()))["images"]
    assert all(each["filename"].endswith((".mp4", ".webm", ".webp", ".gif", ".png")) for each in pictures)  # what a page can show
    assert form.in_browser or comfyui.path(pictures[0]).is_file()


@pytest.mark.parametrize("ping_pong", [False, True])
def test_the_output_is_core_s_video(comfyui: Server, ping_pong: bool):
    """Core's nodes get frames, sound and rate from it, and save it."""
    graph = Graph()
    frames = brightness(4)
    sound = out(graph.add("EmptyAudio", duration=0.2, sample_rate=44100, channels=2))
    saved = graph.add("VideoCrafterSaveVideo", images=image(comfyui, graph, frames), filename_prefix="formats/core", fps=12.5, crf=10.0,
                      format="GIF", ping_pong=ping_pong, audio=sound)
    parts = graph.add("GetVideoComponents", video=out(saved))
    graph.add("SaveVideo", video=out(saved), filename_prefix="formats/core_saved", format="mp4", codec="h264")
    again = graph.add("VideoCrafterSaveVideo", images=out(parts), filename_prefix="formats/again", fps=out(parts, 2), crf=1.0,
                      audio=out(parts, 1))
    graph.add("TestSave", file="parts.safetensors", image=out(parts))
    outputs = run(comfyui, graph)
    order = [0, 1, 2, 3, 2, 1] if ping_pong else [0, 1, 2, 3]
    assert torch.equal(load_file(comfyui.base / "output" / "parts.safetensors")["image"], frames[order])
    (own,) = files_of({again: outputs[again]})
    for path in (comfyui.path(own), next((comfyui.base / "output" / "formats").glob("core_saved*.mp4"))):
        with av.open(str(path)) as file:
            assert file.streams.video[0].average_rate == 12.5 and len(file.streams.audio) == 1
            assert len(list(file.decode(video=0))) == len(order)
        path.unlink()


def test_a_format_that_is_none_is_refused_before_the_graph_runs(comfyui: Server):
    graph = Graph()
    images = out(graph.add("EmptyImage", width=80, height=64, batch_size=3, color=0))
    graph.add("VideoCrafterSaveVideo", images=images, filename_prefix="x", fps=8.0, crf=17.0, format="AVI")
    with pytest.raises(ComfyError, match=r"format is 'AVI'; possible are MP4 \(H.264\), MP4 \(H.265, 10-bit\)"):
        comfyui.queue(graph.prompt)


#: Asks the node whether formats are valid where PyAV lacks two encoders, and saves with what graphs of strangers hold.
PROGRAM = """
import json, math, sys
from pathlib import Path
from harness import node_pack
titles = sys.argv[2:]
node_pack.import_pack(Path(sys.argv[1]))
import av, torch
own = av.codecs_available
av.codecs_available = own - {"libsvtav1", "libx264"}
node = vars(sys.modules["pack.nodes"])["VideoCrafterSaveVideo"]
print(json.dumps([node.validate_inputs(**inputs) for inputs in ({"format": "WebM (AV1)"}, {}, {"format": "WebM (VP9)"}, {"format": None})]))
av.codecs_available = own
workflow = {"nodes": [{"is_changed": [math.nan], "text": "}{"}]}
for title in titles:
    for extra in ({"workflow": workflow}, {"workflow": json.dumps(workflow)}):
        inputs = {"images": torch.zeros(2, 64, 64, 3), "filename_prefix": title, "fps": 8.0, "crf": 17.0, "format": title}
        node_pack.run("VideoCrafterSaveVideo", extra, {"1": {"is_changed": [math.nan, -math.inf]}}, **inputs)
"""


def test_the_graph_is_strict_json_whatever_other_packs_put_into_it(tmp_path: Path):
    output = tmp_path / "output"
    output.mkdir()
    done = subprocess.run([sys.executable, "-c", PROGRAM, output, *TITLES], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    missing, default, possible, linked = json.loads(done.stdout.splitlines()[-1])
    assert "WebM (AV1) needs a PyAV with the encoder libsvtav1" in missing and "use one of MP4 (H.265, 10-bit), WebM (VP9)" in missing
    assert "MP4 (H.264) needs a PyAV with the encoder libx264" in default and possible is True and linked == default
    first = [path if path.is_file() else path / "00001.png" for path in sorted(output.iterdir())]
    assert len(first) == 2 * len(TITLES)
    for path in first:
        expected = {"workflow": {"nodes": [{"is_changed": [None], "text": "}{"}]}, "prompt": {"1": {"is_changed": [None, None]}}}
        assert graph_inside(path) == expected


def turned(path: Path) -> None:
    """Note in an MP4 that it is to be turned by 90 degrees clockwise."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(content)


FIT = {"width": 16, "height": 32, "length": 4, "fps": 5.0, "start": 0.4, "source_fps": 10.0}


def test_a_clip_of_load_video_goes_in(comfyui: Server):
    """64x32 lying on its side, 20 frames at 10: from 0.4 s on at 5 these are the frames 4, 6, 8, 10."""
    sound = Sound((torch.arange(16000) / 16000)[None], 8000)
    frames = brightness(20, 32, 64)
    write_clip(Clip(frames, 10, sound=sound), comfyui.base / "input" / "phone.mp4", "h264", 1)
    turned(comfyui.base / "input" / "phone.mp4")
    graph = Graph()
    fitted = graph.add("VideoCrafterFitVideo", video=out(graph.add("LoadVideo", file="phone.mp4")), **FIT)
    parts = {"images": out(fitted), "audio": out(fitted, 1), "fps": out(fitted, 2)}
    graph.add("VideoCrafterSaveVideo", **parts, filename_prefix="formats/fitted", crf=1.0)
    graph.add("PreviewAny", source=out(fitted, 3))
    graph.add("TestSave", file="fitted.safetensors", image=out(fitted))
    outputs = run(comfyui, graph)
    found = load_file(comfyui.base / "output" / "fitted.safetensors")["image"]
    assert found.shape == (4, 32, 16, 3) and (found - brightness(20)[[4, 6, 8, 10], :32, :16]).abs().max() < 0.02
    assert "32x64 at 10 fps, from 0.4 to 1.2 s: 4 frames of 16x32 at 5 fps; scaled" in str(outputs)
    with av.open(str(next((comfyui.base / "output" / "formats").glob("fitted*.mp4")))) as file:
        assert file.streams.video[0].average_rate == 5 and file.duration / av.time_base == pytest.approx(0.8)


def test_a_part_of_a_video_and_frames_in_memory_go_in(comfyui: Server, object_info: dict[str, Any]):
    frames = brightness(20, 32, 16)
    write_clip(Clip(frames, 10), comfyui.base / "input" / "clip.mp4", "h264", 1)
    graph = Graph()
    fit = {**FIT, "start": 0.0}
    made = out(graph.add("CreateVideo", images=image(comfyui, graph, frames), fps=10.0))
    videos = {"memory": (made, [0, 2, 4, 6])}
    if "Video Slice" in object_info:  # of newer releases
        loaded = out(graph.add("LoadVideo", file="clip.mp4"))
        part = graph.add("Video Slice", video=loaded, start_time=1.0, duration=0.8, strict_duration=False)
        videos["slice"] = (out(part), [10, 12, 14, 16])
    for name, (video, _) in videos.items():
        graph.add("TestSave", file=f"{name}.safetensors", image=out(graph.add("VideoCrafterFitVideo", video=video, **fit)))
    run(comfyui, graph)
    for name, (_, order) in videos.items():
        found = load_file(comfyui.base / "output" / f"{name}.safetensors")["image"]
        assert (found - frames[order]).abs().max() < 0.02, name


def test_frames_and_sound_of_videohelpersuite_go_in(comfyui: Server):
    """Its AUDIO is no dict but reads the file when it is asked."""
    graph = Graph()
    frames = brightness(20, 32, 16)
    sound = out(graph.add("TestLazyAudio", seconds=2.0))
    fitted = graph.add("VideoCrafterFitVideo", images=image(comfyui, graph, frames), audio=sound, **FIT)
    graph.add("VideoCrafterSaveVideo", images=out(fitted), audio=out(fitted, 1), fps=out(fitted, 2), filename_prefix="formats/vhs", crf=1.0,
              format="MKV (FFV1, lossless)")
    run(comfyui, graph)
    path = next((comfyui.base / "output" / "formats").glob("vhs*.mkv"))
    assert ((read_video(path).movedim(0, -1) + 1) / 2 - frames[[4, 6, 8, 10]]).abs().max() < 1e-4
    with av.open(str(path)) as file:
        samples = np.concatenate([each.to_ndarray().ravel() for each in file.decode(audio=0)]) / 2.0**31
    assert np.abs(samples - np.arange(3200, 9600) / 16000).max() < 1e-6  # from 0.4 to 1.2 s at 8000 a second


@pytest.mark.parametrize("both", [False, True])
def test_a_video_or_images_are_needed(comfyui: Server, both: bool):
    graph = Graph()
    images = image(comfyui, graph, brightness(4))
    inputs = {"images": images, "video": out(graph.add("CreateVideo", images=images, fps=8.0))} if both else {}
    graph.add("TestSave", file="x.safetensors", image=out(graph.add("VideoCrafterFitVideo", **inputs, **FIT)))
    assert_fails(comfyui, graph, "VideoCrafterFitVideo", "Connect a video, or images: one of the two")
