"""Training in a graph: our node and core's on our MODEL, what they leave as it was, and their files in the core and in ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import vc_core
from harness import goldens
from harness.client import ComfyError
from harness.graphs import TextGraph, assert_fails, out
from harness.server import Server
from vc_core.checkpoint.convert import CONFIG_KEY
from vc_core.config import to_yaml
from vc_core.family.bundled import bundled_models
from vc_core.family.model_file import ModelFile
from vc_core.lora.writing import UNET_PREFIX, save_lora

BUNDLED = "videocrafter_tiny_t2v"
TRAINING = {
    "trained": "style", "steps": 2, "batch_size": 1, "grad_accumulation_steps": 2, "learning_rate": 0.01, "rank": 4, "seed": 0,
    "gradient_checkpointing": False,
}


class TrainingGraph(TextGraph):
    """Two blank clips of a bundled model with a caption."""

    def __init__(self, comfyui: Server, name: str = BUNDLED, videos: int = 2, **settings: Any) -> None:
        file = name if name.endswith(".safetensors") else f"{name} (bundled)"
        super().__init__(file, "a red circle moving left", frames=3, size=16, videos=videos, **settings)
        self.info = comfyui.object_info()

    def train(self, **settings: Any) -> str:
        """Our node."""
        inputs = {"model": self.model, "latents": self.latent, "positive": self.positive, "negative": self.negative}
        return self.add("VideoCrafterTrainLora", **{**inputs, **TRAINING, **settings})

    def train_by_core(self, **settings: Any) -> list[Any]:
        """The LoRA of core's node, with its defaults but for what is given."""
        known = self.info["TrainLoraNode"]["input"]["required"]
        defaults = {name: given[1]["default"] for name, given in known.items() if len(given) > 1 and "default" in given[1]}
        clips = out(self.add("VideoCrafterTrainingClips", latents=self.latent))
        given = {"steps": 4, "learning_rate": 0.001, "rank": 2, "gradient_checkpointing": False, **settings}
        node = self.add("TrainLoraNode", **{**defaults, "model": self.model, "latents": clips, "positive": self.positive, **given})
        return out(node, self.info["TrainLoraNode"]["output"].index("LORA_MODEL"))

    def apply(self, lora: list[Any]) -> None:
        """Core's loader of what a training node made."""
        bypass = {"bypass": False} if "bypass" in self.info["LoraModelLoader"]["input"]["required"] else {}
        self.model = out(self.add("LoraModelLoader", model=self.model, lora=lora, strength_model=1.0, **bypass))

    def run_sampled(self, comfyui: Server) -> torch.Tensor:
        """Sample with the model, and run the graph."""
        return self.run(comfyui, latent=self.core_sample())["latent"]

    def save_lora(self, lora: list[Any], name: str) -> None:
        self.add("SaveLoRA", lora=lora, prefix=f"loras/{name}", steps=2)


def lora_file(comfyui: Server, name: str) -> dict[str, torch.Tensor]:
    return load_file(max((comfyui.base / "output" / "loras").glob(f"{name}_*")))


def untrained(comfyui: Server) -> torch.Tensor:
    return TrainingGraph(comfyui).run_sampled(comfyui)


def merged_checkpoint(lora: dict[str, torch.Tensor], path: Path) -> None:
    """The bundled model as one file, with a LoRA merged into its weights by hand."""
    file = ModelFile.open(bundled_models()[BUNDLED])
    tensors = {file.parts[part] + name: value.float() for part in file.parts for name, value in file.tensors(part).items()}
    for layer in {each.removesuffix(".alpha") for each in lora if each.endswith(".alpha")}:
        up, down, alpha = (lora[f"{layer}.{end}"] for end in ("lora_B.weight", "lora_A.weight", "alpha"))
        tensors[f"model.{layer}.weight"] += float(alpha) / len(down) * up @ down
    save_file(tensors, path, {CONFIG_KEY: to_yaml(file.config)})


def test_a_lora_is_trained_and_applied_in_one_graph(comfyui):
    """What the node gives changes the model that it is applied to, and its file does the same; the model that was trained stays."""
    before = untrained(comfyui)
    graph = TrainingGraph(comfyui)
    trained = graph.train()
    graph.save_lora(out(trained), "one_graph")
    graph.add("LossGraphNode", loss=out(trained, 1), filename_prefix="loss")
    graph.apply(out(trained))
    changed = graph.run_sampled(comfyui)
    assert goldens.error(changed, before) > 1e-3
    assert torch.equal(untrained(comfyui), before)
    file = lora_file(comfyui, "one_graph")
    assert all(name.startswith(UNET_PREFIX) for name in file) and {float(file[name]) for name in file if name.endswith("alpha")} == {16.0}
    folder = comfyui.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(file, folder / "one_graph.safetensors")
    loaded = TrainingGraph(comfyui)
    loaded.model = out(loaded.add("LoraLoaderModelOnly", model=loaded.model, lora_name="one_graph.safetensors", strength_model=1.0))
    assert torch.equal(loaded.run_sampled(comfyui), changed)
    merged_checkpoint(file, comfyui.checkpoints / "merged.safetensors")
    merged = TrainingGraph(comfyui, "merged.safetensors").run_sampled(comfyui)
    assert goldens.error(changed, merged) < 1e-5


def test_the_same_seed_trains_the_same(comfyui):
    files = []
    for name, settings in (("first", {}), ("second", {}), ("other", {"seed": 1})):
        graph = TrainingGraph(comfyui)
        graph.save_lora(out(graph.train(**settings, alpha=16.0 + len(files) / 1e6)), name)  # not taken from ComfyUI's cache
        comfyui.run(graph.prompt)
        files.append(lora_file(comfyui, name))
    stem = next(name for name in files[0] if name.endswith("lora_B.weight"))
    torch.testing.assert_close(files[0][stem], files[1][stem], rtol=1e-3, atol=1e-5)
    assert goldens.error(files[2][stem], files[0][stem]) > 0.01


@pytest.mark.parametrize("trained, parts", [("style", {".1."}), ("motion", {".2.", "init"}), ("all", {".1.", ".2.", "init"})])
def test_what_is_trained(comfyui, trained, parts):
    graph = TrainingGraph(comfyui)
    graph.save_lora(out(graph.train(trained=trained, steps=1)), trained)
    comfyui.run(graph.prompt)
    places = {name.partition("transformer_blocks")[0] for name in lora_file(comfyui, trained)}
    assert {"init" if "init_attn" in place else place[-3:] for place in places} == parts


def test_an_image_model_is_trained_with_its_image(comfyui):
    graph = TextGraph("videocrafter_tiny_i2v (bundled)", "moving left", frames=3, size=16)
    image = out(graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x884422))
    inputs = {"positive": graph.positive, "negative": graph.negative, "clip_vision": graph.clip_vision, "image": image, "strength": 1.0}
    both = graph.add("VideoCrafterImageToVideo", **inputs, fps=8.0, latent=graph.latent)
    inputs = {"model": graph.model, "latents": graph.latent, "positive": out(both), "negative": out(both, 1)}
    trained = graph.add("VideoCrafterTrainLora", **{**inputs, **TRAINING, "steps": 1})
    graph.add("SaveLoRA", lora=out(trained), prefix="loras/image", steps=1)
    comfyui.run(graph.prompt)
    assert any("to_k_ip.lora_A" in name for name in lora_file(comfyui, "image"))


def test_captions_that_do_not_match_the_clips(comfyui):
    graph = TrainingGraph(comfyui, videos=3)
    two = out(graph.add("ConditioningCombine", conditioning_1=graph.positive, conditioning_2=graph.positive))
    graph.add("SaveLoRA", lora=out(graph.train(positive=two)), prefix="loras/never", steps=1)
    assert_fails(comfyui, graph, "VideoCrafterTrainLora", "There are 2 captions for 3 clips in 1 latents")


def test_latents_without_numbers_are_told_of_before_training(comfyui):
    graph = TrainingGraph(comfyui)
    image = torch.full((6, 16, 16, 3), torch.nan)
    save_file({"image": image}, comfyui.base / "input" / "nan_clip.safetensors")
    pixels = out(graph.add("TestImage", file="nan_clip.safetensors"))
    latents = out(graph.add("VAEEncode", pixels=pixels, vae=graph.vae))
    graph.add("PreviewAny", source=out(graph.train(latents=latents)))
    assert_fails(comfyui, graph, "VideoCrafterTrainLora", "A latent has values that are no numbers")


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "none"])
def test_core_trains_our_model_on_clips(comfyui, dtype):
    """Core's node trains on whole clips, the model stays as it is to the bit, and its LoRA changes the model."""
    if dtype not in TrainingGraph(comfyui).info["TrainLoraNode"]["input"]["required"]["training_dtype"][1]["options"]:
        pytest.skip(f"core's node of this release has no type {dtype}")
    before = untrained(comfyui)
    graph = TrainingGraph(comfyui)
    lora = graph.train_by_core(training_dtype=dtype, lora_dtype="fp32")
    graph.apply(lora)
    changed = graph.run_sampled(comfyui)
    assert goldens.error(changed, before) > 1e-4 and changed.isfinite().all()
    assert torch.equal(untrained(comfyui), before)


def test_core_can_not_train_models_with_concatenated_images(comfyui):
    graph = TrainingGraph(comfyui, "videocrafter_tiny_dynamicrafter")
    graph.add("SaveLoRA", lora=graph.train_by_core(), prefix="loras/never", steps=1)
    with pytest.raises(ComfyError, match="image"):
        comfyui.run(graph.prompt)


def test_a_dora_of_the_core_in_comfyui(comfyui, tmp_path):
    """The scales that are written are those that ComfyUI's formula needs: checked against the formula of DoRA itself."""
    model = vc_core.load(bundled_models()[BUNDLED])
    layer = "middle_block.1.transformer_blocks.0.attn2.to_v"
    base = model.unet.get_submodule(layer).weight.detach()
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(len(base), 2, generator=generator), torch.randn(2, base.shape[1], generator=generator)
    magnitude = base.norm(dim=1, keepdim=True) * (1 + torch.rand(len(base), 1, generator=generator))
    changed = base + 0.5 * up @ down
    wanted = magnitude * changed / changed.norm(dim=1, keepdim=True)
    scale = magnitude * base.norm(dim=1, keepdim=True) / changed.norm(dim=1, keepdim=True)
    folder = comfyui.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_lora(folder / "dora.safetensors", {layer: (down, up, 1.0)}, {}, torch.float32, {layer: scale})
    difference = {f"{UNET_PREFIX}{layer}.diff": wanted - base}
    save_file(difference, folder / "difference.safetensors")
    results = []
    for name in ("dora", "difference"):
        graph = TrainingGraph(comfyui)
        graph.model = out(graph.add("LoraLoaderModelOnly", model=graph.model, lora_name=f"{name}.safetensors", strength_model=1.0))
        results.append(graph.run_sampled(comfyui))
    assert goldens.error(results[0], results[1]) < 1e-4 < 1e-2 < goldens.error(results[0], untrained(comfyui))
