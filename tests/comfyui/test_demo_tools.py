"""The tools that demo and tests stand on: graphs converted as the web interface does it, run in a real ComfyUI."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageSequence

from dev import demo
from dev.workflow_builder import TITLE_HEIGHT, WorkflowBuilder
from dev.workflows import FOLDER, WORKFLOWS
from harness.client import ComfyError, Interrupted, Progress, files_of
from harness.comfyui import comfyui_dir, missing_requirements
from harness.graph import GraphError, set_input, to_prompt
from harness.judge import judge
from harness.server import Server

RED = 0xFF0000
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def node(number: int, kind: str, inputs: Sequence[Any] = (), values: Any = (), **more: Any) -> dict[str, Any]:
    """A saved node as the interface writes it; `inputs` are (name, type, link) or (name, type, link, is a widget)."""
    sockets = [
        {"name": name, "type": slot_type, "link": link} | ({"widget": {"name": name}} if widget else {})
        for name, slot_type, link, *widget in inputs
    ]
    return {"id": number, "type": kind, "order": number, "mode": 0, "inputs": sockets, "widgets_values": values} | more


def workflow(*nodes: dict[str, Any], links: list[list[Any]]) -> dict[str, Any]:
    return {"nodes": list(nodes), "links": links, "groups": [], "version": 0.4}


def image_workflow() -> dict[str, Any]:
    """A red image of 32x24 that is inverted and saved."""
    return workflow(
        node(1, "EmptyImage", values=[32, 24, 1, RED]),
        node(2, "ImageInvert", [("image", "IMAGE", 1)]),
        node(3, "SaveImage", [("images", "IMAGE", 2)], ["tools/image"], title="Result"),
        node(4, "MarkdownNote", values=["An inverted red image."]),
        links=[[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    )


def saved_pixel(comfyui: Server, saved: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Size and first pixel of the one image that a workflow saves."""
    (file,) = files_of(comfyui.run(to_prompt(saved, comfyui.object_info())))
    assert comfyui.path(file).is_file()
    image = Image.open(io.BytesIO(comfyui.view(file)))
    return image.size, image.convert("RGB").getpixel((0, 0))


def test_a_saved_workflow_runs(comfyui: Server) -> None:
    assert saved_pixel(comfyui, image_workflow()) == ((32, 24), (0, 255, 255))


def test_bypassed_nodes_are_looked_through(comfyui: Server) -> None:
    saved = image_workflow()
    saved["nodes"][1]["mode"] = 4
    assert saved_pixel(comfyui, saved) == ((32, 24), (255, 0, 0))


def test_reroutes_and_primitives_are_looked_through(comfyui: Server) -> None:
    saved = workflow(
        node(1, "EmptyImage", [("width", "INT", 1, True)], [512, 24, 1, RED]),
        node(2, "PrimitiveNode", values=[40, "fixed"]),
        node(3, "Reroute", [("", "*", 2)]),
        node(4, "SaveImage", [("images", "IMAGE", 3)], ["tools/rerouted"]),
        links=[[1, 2, 0, 1, 0, "INT"], [2, 1, 0, 3, 0, "*"], [3, 3, 0, 4, 0, "IMAGE"]],
    )
    assert saved_pixel(comfyui, saved) == ((40, 24), (255, 0, 0))


def test_muted_nodes_fall_away(object_info: dict[str, Any]) -> None:
    saved = image_workflow()
    saved["nodes"][1]["mode"] = 2
    prompt = to_prompt(saved, object_info)
    assert set(prompt) == {"1", "3"}
    assert prompt["3"]["inputs"] == {"filename_prefix": "tools/image"}


def test_the_widget_behind_a_seed_is_no_value_of_its_own(object_info: dict[str, Any]) -> None:
    values = [7, "randomize", 25, 8.5, "ddim", "normal", 0.75]
    for seed_inputs in ([], [("seed", "INT", None, True)]):
        saved = workflow(node(1, "KSampler", seed_inputs, values), links=[])
        assert to_prompt(saved, object_info)["1"]["inputs"] == {
            **{"seed": 7, "steps": 25, "cfg": 8.5},
            **{"sampler_name": "ddim", "scheduler": "normal", "denoise": 0.75},
        }


def test_widgets_saved_by_name(object_info: dict[str, Any]) -> None:
    saved = workflow(node(1, "EmptyImage", values={"width": 8, "height": 16, "batch_size": 2, "color": 0, "preview": {}}), links=[])
    assert to_prompt(saved, object_info)["1"]["inputs"] == {"width": 8, "height": 16, "batch_size": 2, "color": 0}


def test_inputs_that_were_not_saved_get_its_default(object_info: dict[str, Any]) -> None:
    saved = workflow(node(1, "EmptyImage", values=[8]), links=[])
    assert to_prompt(saved, object_info)["1"]["inputs"] == {"width": 8, "height": 512, "batch_size": 1, "color": 0}


def test_choices_that_bring_further_inputs() -> None:
    further = {"required": {"crf": ["FLOAT", {"default": 23.0}]}}
    codec = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "auto", "inputs": {}}, {"key": "h264", "inputs": further}]}]
    info = {"Save": {"input": {"required": {"codec": codec, "name": ["STRING", {}]}}}}
    saved = workflow(node(1, "Save", values=["h264", 18.0, "a"]), node(2, "Save", values=["auto", "b"]), links=[])
    prompt = to_prompt(saved, info)
    assert prompt["1"]["inputs"] == {"codec": "h264", "codec.crf": 18.0, "name": "a"}
    assert prompt["2"]["inputs"] == {"codec": "auto", "name": "b"}


def test_an_input_set_by_title_or_class(object_info: dict[str, Any]) -> None:
    prompt = to_prompt(image_workflow(), object_info)
    set_input(prompt, "filename_prefix", "other", title="Result")
    set_input(prompt, "width", 64, class_type="EmptyImage")
    assert prompt["3"]["inputs"]["filename_prefix"] == "other"
    assert prompt["1"]["inputs"]["width"] == 64
    with pytest.raises(GraphError, match="0 nodes have the input 'text'.*title='Nobody'"):
        set_input(prompt, "text", "x", title="Nobody")


def test_a_subgraph_is_refused_in_words(object_info: dict[str, Any]) -> None:
    saved = workflow(node(1, "0d8c-of-a-subgraph"), links=[]) | {"definitions": {"subgraphs": [{"id": "0d8c-of-a-subgraph"}]}}
    with pytest.raises(GraphError, match="Node 1 is a subgraph"):
        to_prompt(saved, object_info)


def test_an_unknown_node_class_is_named(object_info: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match="Node 9 is a 'NoSuchNode'"):
        to_prompt(workflow(node(9, "NoSuchNode"), links=[]), object_info)


def test_a_built_workflow_runs_as_described(comfyui: Server, object_info: dict[str, Any]) -> None:
    flow = WorkflowBuilder(object_info)
    image = flow.node("EmptyImage", {"width": 16, "height": 8, "color": RED}, at=(0, 0))
    inverted = flow.node("ImageInvert", {"image": image["IMAGE"]}, at=(400, 0))
    saved = flow.node("SaveImage", {"images": inverted[0], "filename_prefix": "tools/built"}, at=(800, 0))
    flow.note("A note.", at=(0, 200))
    flow.group("All", [image, inverted, saved])
    built = flow.workflow()
    assert saved_pixel(comfyui, built) == ((16, 8), (0, 255, 255))
    left, top, width, height = built["groups"][0]["bounding"]
    for placed in built["nodes"][:3]:
        assert left < placed["pos"][0] and placed["pos"][0] + placed["size"][0] < left + width
        assert top < placed["pos"][1] and placed["pos"][1] + placed["size"][1] < top + height


def test_the_builder_writes_what_the_converter_reads(object_info: dict[str, Any]) -> None:
    flow = WorkflowBuilder(object_info)
    latent = flow.node("EmptyLatentImage", at=(0, 0))
    text = flow.node("StringConcatenate", {"string_a": "a", "string_b": "b"}, at=(0, 0))
    flow.node("KSampler", {"latent_image": latent["LATENT"], "seed": 3, "cfg": 2.5, "denoise": 0.5}, at=(0, 0))
    flow.node("CLIPTextEncode", {"text": text[0]}, at=(0, 0))
    prompt = to_prompt(flow.workflow(), object_info)
    assert prompt["3"]["inputs"]["latent_image"] == ["1", 0]
    assert {name: prompt["3"]["inputs"][name] for name in ("seed", "cfg", "denoise")} == {"seed": 3, "cfg": 2.5, "denoise": 0.5}
    assert prompt["4"]["inputs"]["text"] == ["2", 0]


def test_the_builder_refuses_what_does_not_fit(object_info: dict[str, Any]) -> None:
    flow = WorkflowBuilder(object_info)
    image = flow.node("EmptyImage", at=(0, 0))
    with pytest.raises(GraphError, match="KSampler.latent_image takes LATENT, not IMAGE"):
        flow.node("KSampler", {"latent_image": image["IMAGE"]}, at=(0, 0))
    with pytest.raises(GraphError, match="EmptyImage has no input heigth"):
        flow.node("EmptyImage", {"heigth": 3}, at=(0, 0))
    with pytest.raises(GraphError, match="EmptyImage has no output 'LATENT'"):
        image["LATENT"]


def test_a_refused_graph_names_the_node_and_the_value(comfyui: Server, object_info: dict[str, Any]) -> None:
    prompt = to_prompt(image_workflow(), object_info)
    prompt["1"]["inputs"]["width"] = -5
    with pytest.raises(ComfyError, match=r"EmptyImage \(node 1\).*width") as refused:
        comfyui.run(prompt)
    assert (refused.value.node_id, refused.value.node_type, refused.value.kind) == ("1", "EmptyImage", "value_smaller_than_min")


def steps(**inputs: Any) -> dict[str, Any]:
    return {"1": {"class_type": "TestSteps", "inputs": {"steps": 4, "error": ""} | inputs}}


def test_progress_and_previews_arrive(comfyui: Server) -> None:
    steps_seen: list[Progress] = []
    shown: list[bytes] = []
    comfyui.run(steps(), on_progress=steps_seen.append, on_preview=shown.append)
    assert steps_seen == [Progress("1", value, 4) for value in (1, 2, 3, 4)]
    assert [Image.open(io.BytesIO(image)).size for image in shown] == [(12, 9)] * 4


def test_a_failing_node_is_named(comfyui: Server) -> None:
    with pytest.raises(ComfyError, match=r"TestSteps \(node 1\) failed: out of ideas") as failed:
        comfyui.run(steps(error="out of ideas"))
    assert (failed.value.node_id, failed.value.node_type, failed.value.kind) == ("1", "TestSteps", "ValueError")
    assert "in execute" in failed.value.traceback


def test_a_run_can_be_cancelled(comfyui: Server) -> None:
    received: list[Progress] = []

    def cancel(progress: Progress) -> None:
        if not received:
            comfyui.interrupt()
        received.append(progress)

    with pytest.raises(Interrupted, match="TestSteps"):
        comfyui.run(steps(steps=500), on_progress=cancel)
    assert len(received) < 500
    comfyui.run(steps())  # and the next run is not


def png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def test_uploads_can_be_loaded(comfyui: Server) -> None:
    name = comfyui.upload("blue.png", png(Image.new("RGB", (10, 6), (0, 0, 255))))
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "tools/loaded"}},
    }
    (file,) = files_of(comfyui.run(prompt))
    image = Image.open(comfyui.path(file))
    assert image.size == (10, 6) and image.convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def shipped(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def test_every_workflow_is_described_and_has_a_thumbnail() -> None:
    assert sorted(WORKFLOWS) == NAMES
    for name in NAMES:
        assert Image.open(FOLDER / f"{name}.jpg").size == (512, 512)


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_is_what_the_nodes_of_now_make_of_its_description(object_info: dict[str, Any], name: str) -> None:
    assert to_prompt(WORKFLOWS[name](object_info).workflow(), object_info) == to_prompt(shipped(name), object_info)


@pytest.mark.parametrize("name", NAMES)
def test_no_node_of_a_workflow_is_deprecated(object_info: dict[str, Any], name: str) -> None:
    kinds = {node["type"] for node in shipped(name)["nodes"]} & set(object_info)
    assert kinds and [kind for kind in kinds if object_info[kind].get("deprecated")] == []


@pytest.mark.parametrize("name", NAMES)
def test_each_group_of_a_workflow_says_what_to_do(name: str) -> None:
    titles = [group["title"] for group in shipped(name)["groups"]]
    assert titles and [title for title in titles if not (": " in title or ", " in title or " of " in title)] == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_workflow_lies_on_something_else(name: str) -> None:
    saved = shipped(name)
    nodes = [(x, y - TITLE_HEIGHT, x + width, y + height) for (x, y), (width, height) in ((n["pos"], n["size"]) for n in saved["nodes"])]
    groups = [(x, y, x + width, y + height) for x, y, width, height in (group["bounding"] for group in saved["groups"])]
    for boxes in (nodes, groups):
        for one, other in combinations(boxes, 2):
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1], (one, other)


#: The edited clip has 32 frames; three keyframes make two clips that share a frame; a loop's last frame, which is its first again, is left
#: out. All else is one clip.
FRAMES = {"edit_video": 32, "viewcrafter": 25, "dynamicrafter_keyframes": 31, "dynamicrafter_loop": 15}


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_saves_a_video(comfyui: Server, object_info: dict[str, Any], name: str) -> None:
    prompt = to_prompt(shipped(name), object_info)
    for step in prompt.values():
        if "steps" in step["inputs"]:
            step["inputs"]["steps"] = 2
    files = {Path(file["filename"]).suffix: comfyui.path(file) for file in files_of(comfyui.run(prompt))}
    if name == "evaluate":  # which saves both videos side by side
        assert sorted(files) == [".webp"]
        return
    assert sorted(files) == [".mp4", ".webp"]
    with av.open(str(files[".mp4"])) as video:
        assert [(frame.width, frame.height) for frame in video.decode(video=0)] == [(64, 64)] * FRAMES.get(name, 16)


def pixels(files: Sequence[Path]) -> np.ndarray:
    """The frames `[T, H, W, 3]` of the animated image among the files."""
    (animation,) = [path for path in files if path.suffix == ".webp"]
    with Image.open(animation) as clip:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(clip)])


def demo_of(name: str) -> demo.Demo:
    return next(there for there in demo.DEMOS if there.workflow == f"{name}.json")


def test_the_demo_of_an_image_moves_what_it_shows(comfyui: Server) -> None:
    verdict = judge(pixels(demo.run(demo_of("image_to_video"), {}, comfyui)))
    assert (verdict.colour, verdict.shape, verdict.direction) == ("red", "square", "right")


def test_the_demo_takes_another_image_and_another_motion(comfyui: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.new("RGB", (64, 64), (18, 18, 24))
    ImageDraw.Draw(image).rectangle((22, 36, 40, 54), fill=(42, 92, 224))
    image.save(tmp_path / "blue.tiff")
    values = demo.read_settings({"IMAGE": str(tmp_path / "blue.tiff"), "MOTION": "moving up"})
    verdict = judge(pixels(demo.run(demo_of("image_to_video"), values, comfyui)))
    assert (verdict.colour, verdict.shape, verdict.direction) == ("blue", "square", "up")
    assert f'with IMAGE="{tmp_path / "blue.tiff"}" and MOTION="moving up"' in capsys.readouterr().out


def test_a_setting_without_a_value_stays_as_in_the_workflow(object_info: dict[str, Any]) -> None:
    values = demo.read_settings({"PROMPT": "", "MOTION": "moving up"})
    assert [(setting.variable, value) for setting, value in values.items()] == [("MOTION", "moving up")]
    defaults = {
        setting.variable: setting.default(to_prompt(shipped(Path(there.workflow).stem), object_info))
        for there in demo.DEMOS
        for setting in there.settings
    }
    assert defaults == {"PROMPT": "a red circle moving right", "IMAGE": "a red square, drawn", "MOTION": "moving right"}


def test_an_animated_image_is_read_as_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("P", (10, 6), shade) for shade in (0, 1)]
    for frame in frames:
        frame.putpalette([0, 0, 255, 255, 0, 0])
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    (image,) = demo.read_settings({"IMAGE": str(tmp_path / "two.gif")}).values()
    with Image.open(io.BytesIO(image.png)) as read:
        assert (read.mode, read.size, read.getpixel((0, 0)), getattr(read, "n_frames", 1)) == ("RGB", (10, 6), (0, 0, 255), 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "but there is no such file"),
        (b"no image", "can't be read as an image: cannot identify"),
        (png(Image.effect_noise((64, 64), 50))[:1000], "can't be read as an image"),
    ],
    ids=["none", "other", "cut"],
)
def test_a_wrong_image_is_refused_before_comfyui_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "image.png"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("IMAGE", str(path))
    monkeypatch.setattr(demo, "running", lambda *_, **__: pytest.fail("ComfyUI was started"))
    with pytest.raises(SystemExit, match=message) as refused:
        demo.main()
    assert str(refused.value).startswith(f"IMAGE is '{path}'")


def test_requirements_are_met_by_newer_parts_of_comfyui_but_not_by_older_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"comfyui-frontend-package": "1.40.0", "numpy": "2.1.0"}
    monkeypatch.setattr("harness.comfyui.metadata.version", installed.__getitem__)
    lines = ["comfyui-frontend-package==1.39.9", "comfyui-frontend-package==1.40.1", "numpy>=1.25.0", "numpy==2.0.0"]
    assert missing_requirements(lines) == ["comfyui-frontend-package==1.40.1", "numpy==2.0.0"]


def test_a_wrong_comfyui_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="COMFYUI_DIR is .*no main.py"):
        comfyui_dir()
    monkeypatch.delenv("COMFYUI_DIR")
    monkeypatch.setenv("COMFYUI_RELEASE", "0.1")
    with pytest.raises(ValueError, match="'0.1' is not one of the releases.*0.3.75"):
        comfyui_dir()
