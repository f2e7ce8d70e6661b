"""The editing workflow in a real ComfyUI: clips of any length with their sound; colours and windows of a drawn clip."""

from __future__ import annotations

import json
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.comfyui import REPOSITORY
from harness.graph import Prompt, find_node, set_input, to_prompt
from harness.graphs import TextGraph, out
from harness.judge import colour_of, foreground
from harness.server import Server
from harness.works_with.length import windowed
from vc_core.media.clip import Clip
from vc_core.media.shapes import COLOURS, SHAPES, draw_shapes
from vc_core.media.sound import Sound
from vc_core.media.video import read_video, write_clip

RATE, SAMPLES = 25, 8000
LENGTH, WINDOW, OVERLAP, STEPS = 48, 16, 4, 12
#: Of the drawn clips: shape, colour, the colour that is asked for, direction, and the way of the shape's middle.
EDITS = [
    ("square", "red", "green", "right", (12, 32), (52, 32)),
    ("circle", "yellow", "blue", "left", (52, 28), (12, 28)),
]


@pytest.fixture(scope="module")
def workflow(comfyui: Server) -> Prompt:
    path = REPOSITORY / "workflows" / "edit_video.json"
    return to_prompt(json.loads(path.read_text(encoding="utf-8")), comfyui.object_info())


def changed(workflow: Prompt, **inputs: tuple[str, Any]) -> Prompt:
    """A copy of the workflow with inputs of nodes changed: the class of the node and the value, by the input's name."""
    prompt = json.loads(json.dumps(workflow))
    for name, (class_type, value) in inputs.items():
        set_input(prompt, name, value, class_type=class_type)
    return prompt


def drawn(count: int, shape: str = "square", colour: str = "red", start=(12, 32), end=(52, 32)) -> torch.Tensor:
    """A clip of a moving shape, ``[T, 64, 64, 3]`` in [0, 1]."""
    kinds = torch.full((count,), list(COLOURS).index(colour)), torch.full((count,), SHAPES.index(shape))
    places = (torch.linspace(first, last, count) for first, last in zip(start, end, strict=True))
    return (draw_shapes(*kinds, *places).movedim(1, -1) + 1) / 2


def loaded(comfyui: Server, prompt: Prompt, count: int, sound: bool = True) -> None:
    """Take a file in place of the drawn clip."""
    name = f"edit_{count}.mp4"
    tone = (torch.arange(round(count / RATE * SAMPLES)) * 0.3).sin()[None]
    write_clip(Clip(drawn(count), RATE, sound=Sound(tone, SAMPLES) if sound else None), comfyui.base / "input" / name, "h264")
    prompt["load"] = {"class_type": "LoadVideo", "inputs": {"file": name}, "_meta": {"title": "Your clip"}}
    set_input(prompt, "video", ["load", 0], class_type="VideoCrafterFitVideo")


@pytest.mark.parametrize("count", [1, 15, 17, 49, 50])
def test_every_frame_and_the_whole_sound_come_back(comfyui, workflow, count):
    """Whatever the number of frames: none is dropped, and rate and sound are the clip's."""
    prompt = changed(workflow, steps=("VideoCrafterSampler", 2), filename_prefix=("VideoCrafterSaveVideo", f"edited_{count}"))
    loaded(comfyui, prompt, count)
    comfyui.run(prompt)
    [path] = (comfyui.base / "output").glob(f"edited_{count}_*.mp4")
    assert read_video(path).shape[1] == count
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(RATE)
        frames = sum(frame.samples for frame in container.decode(audio=0))
        rate = container.streams.audio[0].rate
    assert frames / rate == pytest.approx(count / RATE, abs=0.15)  # AAC has blocks of 1,024 samples, 0.13 s


def test_one_frame_is_told_to_be_an_image(comfyui, workflow):
    prompt = changed(workflow, steps=("VideoCrafterSampler", 1))
    loaded(comfyui, prompt, 1, sound=False)
    fit = find_node(prompt, "video", class_type="VideoCrafterFitVideo")
    prompt["told"] = {"class_type": "PreviewAny", "inputs": {"source": [fit, 3]}, "_meta": {"title": "told"}}
    outputs = comfyui.run(prompt)
    assert "a single image, not a clip" in json.dumps(outputs)


def overlaps(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Intersection over union of the shapes of each frame."""
    pairs = [(foreground(a), foreground(b)) for a, b in zip(one, other, strict=True)]
    return [float((a & b).sum() / max(1, (a | b).sum())) for a, b in pairs]


def border_and_inside(video: np.ndarray) -> tuple[float, float]:
    """The largest mean difference of two frames where a window begins or ends, and elsewhere."""
    starts = [*range(0, LENGTH - WINDOW, WINDOW - OVERLAP), LENGTH - WINDOW]
    borders = {start for start in starts if start} | {start + WINDOW for start in starts if start + WINDOW < LENGTH}
    steps = np.abs(np.diff(video, axis=0)).mean((1, 2, 3))  # steps[k] is between frames k and k + 1
    at_border = [steps[frame - 1] for frame in borders]
    inside = [step for number, step in enumerate(steps, 1) if number not in borders]
    return float(max(at_border)), float(max(inside))


def measured(video: np.ndarray, source: np.ndarray, asked: str) -> tuple[float, float, float, float]:
    """IoU with the clip, the part of frames in the color that was asked for, and the largest steps at borders and inside."""
    colours = [colour_of(frame, foreground(frame)) == asked for frame in video if foreground(frame).any()]
    return float(np.mean(overlaps(video, source))), sum(colours) / LENGTH, *border_and_inside(video)


def check_edits(rows: list[tuple[float, float, float, float]], title: str, pytestconfig: pytest.Config) -> np.ndarray:
    """The colors are as asked, and frames differ no more at the borders of windows than inside them; all is reported."""
    told = [f"IoU {iou:.2f}, color {right:.0%}, border {border:.2f}, inside {inside:.2f}" for iou, right, border, inside in rows]
    pytestconfig.closing_lines += [f"{title}: {'; '.join(told)}"]
    table = np.array(rows)
    assert table[:, 1].mean() >= 0.95, told
    assert (table[:, 2] <= table[:, 3]).all(), told
    return table


@pytest.mark.full
def test_the_colour_changes_without_jumps_at_windows(comfyui, workflow, pytestconfig):
    """The workflow on 48 frames in windows of 16, with half as many steps. The IoU with the clip is reported, see docs/composing.md."""
    rows = []
    for number, (shape, colour, asked, direction, start, end) in enumerate(EDITS):
        places = dict(zip(("x", "y", "end_x", "end_y"), (*start, *end), strict=True))
        drawing = {name: ("VideoCrafterExampleImage", value) for name, value in {"shape": shape, "color": colour, **places}.items()}
        prompt = changed(workflow, **drawing)
        set_input(prompt, "length", LENGTH, class_type="VideoCrafterExampleImage")
        set_input(prompt, "steps", STEPS, class_type="VideoCrafterSampler")
        set_input(prompt, "text", f"a {asked} {shape} moving {direction}", title="Prompt")
        decode = find_node(prompt, "samples", class_type="VideoCrafterDecode")
        file = f"edited_{number}.safetensors"
        prompt["save"] = {"class_type": "TestSave", "inputs": {"file": file, "image": [decode, 0]}, "_meta": {"title": "save"}}
        comfyui.run(prompt)
        video = load_file(comfyui.base / "output" / file)["image"].double().numpy() * 255
        rows.append(measured(video, drawn(LENGTH, shape, colour, start, end).double().numpy() * 255, asked))
    check_edits(rows, "Editing 48 frames by denoise", pytestconfig)


@pytest.mark.full
def test_the_depth_model_keeps_the_structure_and_changes_the_colour(comfyui, pytestconfig):
    """Depth maps of the same clips, here their shapes, on the bundled depth model in the same windows."""
    rows = []
    for number, (shape, colour, asked, _, start, end) in enumerate(EDITS):
        source = drawn(LENGTH, shape, colour, start, end)
        depth = (source.amax(-1, keepdim=True) > 0.25).float().expand(-1, -1, -1, 3).contiguous()
        save_file({"image": depth}, comfyui.base / "input" / f"depth_{number}.safetensors")
        graph = TextGraph("videocrafter_tiny_depth (bundled)", f"a {asked} {shape}", frames=LENGTH)
        maps = out(graph.add("TestImage", file=f"depth_{number}.safetensors"))
        both = graph.add(
            "VideoCrafterDepthToVideo", positive=graph.positive, negative=graph.negative, depth=maps, latent=graph.latent, range="clip",
            strength=1.0,
        )
        settings = {"seed": 0, "steps": STEPS, "cfg": 4.0, "eta": 1.0, "guidance_rescale": 0.0, "denoise": 1.0}
        latent = graph.add(
            "VideoCrafterSampler", model=windowed(graph, WINDOW, OVERLAP), positive=out(both, 0), negative=out(both, 1),
            latent_image=graph.latent, **settings,
        )
        video = graph.run(comfyui, image=graph.decode(out(latent)))["image"].double().numpy() * 255
        rows.append(measured(video, source.double().numpy() * 255, asked))
    table = check_edits(rows, "Editing 48 frames by the depth model", pytestconfig)
    assert table[:, 0].mean() >= 0.7, table
