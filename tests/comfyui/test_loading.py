"""Which files the loader lists, and what it says of those that lack a part."""

from __future__ import annotations

import shutil

from harness.graphs import Graph, assert_fails, out
from harness.server import Server
from vc_core.checkpoint import convert
from vc_core.family.bundled import bundled_models
from vc_core.family.model_file import ModelFile

from .conftest import ELSEWHERE


def listed(comfyui: Server) -> list[str]:
    """What the loader offers."""
    return comfyui.object_info()["VideoCrafterLoader"]["input"]["required"]["ckpt_name"][1]["options"]


def test_the_bundled_models_come_first(comfyui: Server):
    names = listed(comfyui)
    bundled = [f"{name} (bundled)" for name in bundled_models()]
    assert sorted(names[: len(bundled)]) == sorted(bundled) and names[0] == "videocrafter_tiny_t2v (bundled)"


def test_files_of_other_folders_are_listed_and_loaded(comfyui: Server):
    folder = comfyui.base / ELSEWHERE / "checkpoints" / "video"
    folder.mkdir()
    try:
        convert(ModelFile.open("videocrafter_tiny_t2v").checkpoint, folder / "mine.safetensors")
        assert "video/mine.safetensors" in listed(comfyui)
        graph = Graph()
        loader = graph.add("VideoCrafterLoader", ckpt_name="video/mine.safetensors", weight_dtype="default")
        graph.add("PreviewAny", source=out(loader, 0))
        comfyui.run(graph.prompt)
    finally:
        shutil.rmtree(folder)


def test_a_part_that_is_missing_is_named_with_what_fills_the_gap(comfyui: Server):
    file = ModelFile.open("videocrafter_tiny_t2v")
    kept = [file.parts["unet"] + name for name in file.tensors("unet")]
    target = comfyui.base / ELSEWHERE / "checkpoints" / "unet_only.safetensors"
    convert(file.checkpoint, target, names=kept)
    try:
        graph = Graph()
        loader = graph.add("VideoCrafterLoader", ckpt_name=target.name, weight_dtype="default", model="auto")
        text = graph.add("CLIPTextEncode", clip=out(loader, 1), text="a red circle")
        graph.add("PreviewAny", source=out(text))
        assert_fails(comfyui, graph, "CLIPTextEncode", "text encoder", "CLIPLoader", "models/text_encoders")
    finally:
        target.unlink()
