"""Which files the loader lists, and what it says of those that lack a part."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file

from harness import goldens
from harness.graphs import Graph, TextGraph, assert_fails, out
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


def test_another_file_under_the_same_name_is_loaded_anew(comfyui: Server):
    """ComfyUI keeps a node's results as long as its inputs are the same."""
    target = comfyui.checkpoints / "replaced.safetensors"
    latents = {}
    try:
        for name in ("t2v_512_v2", "t2v_512_v1", "t2v_512_v2"):
            target.unlink(missing_ok=True)
            goldens.write_checkpoint(name, target)
            graph = TextGraph(target.name, goldens.PROMPTS[0], frames=2, size=16)
            latent = graph.run(comfyui, latent=graph.sample(steps=1))["latent"]
            assert latents.setdefault(name, latent).equal(latent)
        assert not latents["t2v_512_v2"].equal(latents["t2v_512_v1"])
    finally:
        target.unlink(missing_ok=True)


def test_a_model_that_the_file_does_not_hold_can_not_be_chosen(comfyui: Server):
    """The node showed it as if it held."""
    goldens.write_checkpoint("t2v_512_v2", comfyui.checkpoints / "t2v_512_v2.safetensors")
    graph = Graph()
    loader = graph.add("VideoCrafterLoader", ckpt_name="t2v_512_v2.safetensors", weight_dtype="default", model="dynamicrafter_256_v1")
    graph.add("PreviewAny", source=out(loader, 0))
    assert_fails(comfyui, graph, "VideoCrafterLoader", "dynamicrafter_256_v1", "t2v_512_v2")


@pytest.mark.parametrize("node", ["CheckpointLoaderSimple", "UNETLoader"])
@pytest.mark.parametrize("name", ["t2v_512_v2", "dynamicrafter_512_v1"])
def test_core_s_loaders_refuse_the_family(comfyui: Server, node: str, name: str):
    """They took it for Stable Diffusion 2, without its temporal layers."""
    goldens.write_checkpoint(name, comfyui.checkpoints / f"{name}.safetensors")
    graph = Graph()
    folder = comfyui.base / "models" / "diffusion_models"
    if node == "UNETLoader":
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(comfyui.checkpoints / f"{name}.safetensors", folder)
        loader = graph.add(node, unet_name=f"{name}.safetensors", weight_dtype="default")
    else:
        loader = graph.add(node, ckpt_name=f"{name}.safetensors")
    graph.add("PreviewAny", source=out(loader, 0))
    assert_fails(comfyui, graph, node, "VideoCrafter family", "Load VideoCrafter Model")


def test_scaled_fp8_is_loaded_as_what_it_means(comfyui: Server):
    """As the same file with the products of the weights and their scales."""
    stored, meant = dict(goldens.weights("t2v_512_v2")), dict(goldens.weights("t2v_512_v2"))
    matrices = [name for name, value in stored.items() if name.startswith("model.diffusion_model.") and value.ndim == 2]
    for name in matrices:
        scale = stored[name].abs().max() / 448
        stored[name] = (stored[name] / scale).to(torch.float8_e4m3fn)
        meant[name] = stored[name].float() * scale
        stored[f"{name}_scale"] = scale
    latents = {}
    for name, tensors in {"stored": stored, "meant": meant, "original": goldens.weights("t2v_512_v2")}.items():
        target = comfyui.checkpoints / f"scaled_{name}.safetensors"
        save_file(dict(tensors), target)
        graph = TextGraph(target.name, goldens.PROMPTS[0], frames=2, size=16)
        latents[name] = graph.run(comfyui, latent=graph.sample(steps=2))["latent"]
        target.unlink()
    assert matrices and latents["stored"].equal(latents["meant"]) and not latents["stored"].equal(latents["original"])
