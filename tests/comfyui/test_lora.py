"""VideoCrafter Load LoRA in a real ComfyUI: the recorded outputs, the core's numbers, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import golden_loras, goldens
from harness.bench import APART, T2V, T2V_V1, Bench, apart, core_latent, same
from harness.graphs import Graph, assert_fails, out
from harness.works_with.lora import low_rank, unet_matrices
from tests.loras import turbo_list
from vc_core.lora.merging import LoraSetting
from vc_core.lora.writing import save_lora

STYLE = 0.7


@pytest.fixture(scope="module")
def loras(comfyui) -> Path:
    """The server's folder of LoRAs, with the recorded ones in it."""
    folder = comfyui.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    for record in golden_loras.records():
        shutil.copyfile(golden_loras.path(record), folder / record.file)
    golden_loras.recorded().write_checkpoint(comfyui.checkpoints / "lora_files.safetensors")
    golden = golden_loras.recorded().read("expected")
    save_file({name: golden[name] for name in ("x", "timesteps", "context", "fps")}, comfyui.base / "input" / "lora_inputs.safetensors")
    return folder


def load(graph: Graph, model: list, file: str, strength: float = 1.0, **changes) -> str:
    """The node with a file."""
    inputs = {"model": model, "lora_name": file, "strength_model": strength, "strength_clip": strength}
    return graph.add("VideoCrafterLoadLora", **(inputs | changes))


def style_file(folder: Path, name: str, text: bool = False) -> dict[str, tuple]:
    """A plain LoRA file for every matrix of VideoCrafter2's recorded UNet, with a text part if wanted; what is in it."""
    layers = {path: (down, up, 3.0) for path, (up, down) in low_rank(unet_matrices(goldens.weights(T2V)), 0.1).items()}
    if text:
        weights = goldens.weights(T2V)
        for layer, stored in (("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("self_attn.out_proj", "attn.out_proj")):
            matrix = weights[f"cond_stage_model.model.transformer.resblocks.0.{stored}.weight"]
            ((up, down),) = low_rank({layer: matrix}, 0.3).values()
            layers[f"text_model.encoder.layers.0.{layer}"] = down, up, 3.0
        width = weights["cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"].shape[1]
        for part in "qkv":
            ((up, down),) = low_rank({part: torch.randn(width, width)}, 0.3).values()
            layers[f"text_model.encoder.layers.0.self_attn.{part}_proj"] = down, up, 3.0
    save_lora(folder / name, layers, dtype=torch.float32)
    return layers


def test_every_layout_gives_the_recorded_output(comfyui, loras):
    """At strength 1 and 0.5, and at 0 the bits of the model without it."""
    graph = Graph()
    model = out(graph.add("VideoCrafterLoader", ckpt_name="lora_files.safetensors", weight_dtype="default"))
    files = {}
    graph.add("TestEvaluate", model=model, inputs="lora_inputs.safetensors", file="lora_base.safetensors")
    for record in golden_loras.records():
        for strength in (1, 0.5, 0):
            name = f"lora_{record.stem}.y_{strength}.safetensors"
            files[name] = record, strength
            changed = out(load(graph, model, record.file, strength))
            graph.add("TestEvaluate", model=changed, inputs="lora_inputs.safetensors", file=name)
    comfyui.run(graph.prompt)
    golden = golden_loras.recorded().read("expected")
    base = load_file(comfyui.base / "output" / "lora_base.safetensors")["y"]
    assert goldens.error(base, golden["y"]) <= goldens.PASS_TOLERANCE
    assert files
    for name, (record, strength) in files.items():
        made = load_file(comfyui.base / "output" / name)["y"]
        if strength:
            assert goldens.error(made, golden[f"{record.stem}.y_{strength}"]) <= goldens.PASS_TOLERANCE, name
        else:
            assert torch.equal(made, base), name


def test_a_text_part_and_two_loras_as_alone(comfyui, loras):
    """Through the pack's sampler; the strengths of model and text differ."""
    style_file(loras, "both_parts.safetensors", text=True)
    style_file(loras, "unet_part.safetensors")
    bench = Bench(comfyui, T2V)
    plain = bench.authors(cfg=2.0)
    first = load(bench, bench.model, "both_parts.safetensors", STYLE, strength_clip=0.5, clip=bench.clip)
    second = load(bench, out(first), "unet_part.safetensors", -0.2)
    positive, negative = (bench.with_fps(bench.encode(text, out(first, 1)), bench.latent) for text in (bench.prompts[0], ""))
    bench.save("plain", latent=plain)
    bench.save("one", latent=bench.authors(model=out(first), positive=positive, negative=negative, cfg=2.0))
    bench.save("two", latent=bench.authors(model=out(second), positive=positive, negative=negative, cfg=2.0))
    results = bench.results()
    both = LoraSetting(loras / "both_parts.safetensors", STYLE, text_strength=0.5)
    unet = LoraSetting(loras / "unet_part.safetensors", -0.2)
    same(results["one"], core_latent(bench.path, guidance_scale=2.0, loras=[both]))
    same(results["two"], core_latent(bench.path, guidance_scale=2.0, loras=[both, unet]))
    assert apart(results["one"], results["plain"]) > APART and apart(results["two"], results["one"]) > APART
    half = core_latent(bench.path, guidance_scale=2.0, loras=[LoraSetting(both.path, STYLE, text_strength=0.0)])
    assert apart(half, results["one"]) > APART  # or the text's strength would show nowhere


def test_core_s_loader_gives_the_same(comfyui, loras):
    """For a plain file with alpha, which it understands."""
    style_file(loras, "plain_style.safetensors", text=True)
    bench = Bench(comfyui, T2V)
    for name, node in (("ours", "VideoCrafterLoadLora"), ("core's", "LoraLoader")):
        inputs = {"lora_name": "plain_style.safetensors", "strength_model": STYLE, "strength_clip": STYLE}
        loaded = bench.add(node, model=bench.model, clip=bench.clip, **inputs)
        positive = bench.with_fps(bench.encode(bench.prompts[0], out(loaded, 1)), bench.latent)
        bench.save(name, latent=bench.authors(model=out(loaded), positive=positive))
    bench.save("plain", latent=bench.authors())
    results = bench.results()
    same(results["ours"], results["core's"])
    assert apart(results["ours"], results["plain"]) > APART


def test_t2v_turbo_s_list_as_alone(comfyui, loras):
    """Which has no names."""
    torch.save([each for pair in turbo_list().values() for each in pair], loras / "unet_lora.pt")
    bench = Bench(comfyui, T2V)
    bench.save("turbo", latent=bench.authors(model=out(load(bench, bench.model, "unet_lora.pt", 0.9))))
    bench.save("plain", latent=bench.authors())
    results = bench.results()
    same(results["turbo"], core_latent(bench.path, loras=[LoraSetting(loras / "unet_lora.pt", 0.9)]))
    assert apart(results["turbo"], results["plain"]) > APART


def test_a_dora_as_alone_and_as_core_s(comfyui, loras):
    """At a strength other than 1, beside another LoRA."""
    layers = style_file(loras, "before.safetensors")
    weights = goldens.weights(T2V)
    chosen = {path: each for path, each in layers.items() if path.endswith(("to_q", "to_v"))}
    scales = {path: 1.1 * weights[f"model.diffusion_model.{path}.weight"].float().norm(dim=1, keepdim=True) for path in chosen}
    save_lora(loras / "dora.safetensors", chosen, dtype=torch.float32, dora_scales=scales)
    bench = Bench(comfyui, T2V)
    first = out(load(bench, bench.model, "before.safetensors", 0.3))
    core = bench.add("LoraLoaderModelOnly", model=first, lora_name="dora.safetensors", strength_model=STYLE)
    bench.save("ours", latent=bench.authors(model=out(load(bench, first, "dora.safetensors", STYLE))))
    bench.save("core's", latent=bench.authors(model=out(core)))
    bench.save("plain", latent=bench.authors(model=first))
    results = bench.results()
    same(results["ours"], results["core's"])
    alone = [LoraSetting(loras / "before.safetensors", 0.3), LoraSetting(loras / "dora.safetensors", STYLE)]
    same(results["ours"], core_latent(bench.path, loras=alone))
    assert apart(results["ours"], results["plain"]) > APART


def test_weights_in_fp8_are_patched(comfyui, loras):
    """As with core's own loader."""
    style_file(loras, "fp8_style.safetensors")
    bench = Bench(comfyui, T2V)
    model = out(bench.add("VideoCrafterLoader", ckpt_name=bench.path.name, weight_dtype="fp8_e4m3fn"))
    core = bench.add("LoraLoaderModelOnly", model=model, lora_name="fp8_style.safetensors", strength_model=STYLE)
    bench.save("ours", latent=bench.one_step(model=out(load(bench, model, "fp8_style.safetensors", STYLE))))
    bench.save("core's", latent=bench.one_step(model=out(core)))
    bench.save("plain", latent=bench.one_step(model=model))
    results = bench.results()
    assert torch.equal(results["ours"], results["core's"]) and apart(results["ours"], results["plain"]) > APART


def test_the_node_shows_what_matched_and_the_alpha(comfyui, loras):
    bench = Bench(comfyui, T2V)
    stem = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q"
    width = goldens.weights(T2V)[f"model.{stem}.weight"].shape[0]
    tensors = {f"{stem}.lora_A.weight": torch.ones(4, width), f"{stem}.lora_B.weight": torch.ones(width, 4)}
    tensors |= {f"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_{side}.weight": torch.ones(4, 4) for side in ("down", "up")}
    save_file(tensors, loras / "shown.safetensors", {"lora_alpha": "8", "r": "4"})
    bench.add("PreviewAny", source=out(load(bench, bench.model, "shown.safetensors")))
    bench.add("PreviewAny", source=out(load(bench, bench.model, "shown.safetensors", alpha=2.5)))
    comfyui.run(bench.prompt)
    log = comfyui.log.read_text()
    assert "shown.safetensors: 1 of 2 layers matched, rank 4" in log
    assert "alpha 8: from the file's metadata" in log and "alpha 2.5: as you chose" in log
    assert "1 text layer not used: lora_te_text_model_encoder_layers_0_mlp_fc1" in log


def bad_files() -> dict[str, tuple[dict[str, torch.Tensor], tuple[str, ...]]]:
    """Files of other models, and parts of the message."""
    motion = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
    sd15 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
    sdxl = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q"
    width, context = goldens.weights(T2V)["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"].shape

    def pair(stem: str, sides: tuple[str, str], inner: int) -> dict[str, torch.Tensor]:
        return {f"{stem}{sides[0]}.weight": torch.ones(2, inner), f"{stem}{sides[1]}.weight": torch.ones(width, 2)}

    kohya = (".lora_down", ".lora_up")
    return {
        "motion.safetensors": (pair(motion, (".down", ".up"), 8), ("AnimateDiff motion LoRA", "AnimateDiff-Evolved")),
        "sd15.safetensors": (
            pair(f"{sd15}_attn1_to_q", kohya, width) | pair(f"{sd15}_attn2_to_k", kohya, 768),
            ("Stable Diffusion 1", "768", str(context), "Nothing of it was applied"),
        ),
        "sdxl.safetensors": (pair(sdxl, kohya, width), ("Stable Diffusion XL", "Nothing of it was applied")),
        "unknown.safetensors": (pair("encoder.layers.0.attention", kohya, 8), ("none of its 1 layers is one of this model's",)),
    }


@pytest.mark.parametrize("name", bad_files())
def test_a_lora_of_another_model_is_refused(comfyui, loras, name):
    tensors, parts = bad_files()[name]
    save_file(tensors, loras / name)
    bench = Bench(comfyui, T2V)
    bench.save("x", latent=bench.one_step(model=out(load(bench, bench.model, name))))
    assert_fails(comfyui, bench, "VideoCrafterLoadLora", *parts)


def test_other_models_are_refused(comfyui, loras):
    style_file(loras, "for_another.safetensors")
    bench = Bench(comfyui, T2V_V1)
    twins = bench.add("TestTwins", model=bench.model)
    bench.add("PreviewAny", source=out(load(bench, out(twins, 1), "for_another.safetensors")))
    assert_fails(comfyui, bench, "VideoCrafterLoadLora", "needs a model of the VideoCrafter family", "core's Load LoRA")


def test_settings_beside_the_file(comfyui, loras):
    """In a folder of its own, as peft writes it."""
    folder = loras / "peft"
    folder.mkdir(exist_ok=True)
    stem = "base_model.model.middle_block.1.transformer_blocks.0.attn1.to_q"
    width = goldens.weights(T2V)["model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"].shape[0]
    tensors = {f"{stem}.lora_A.weight": torch.ones(4, width), f"{stem}.lora_B.weight": torch.ones(width, 4)}
    save_file(tensors, folder / "adapter.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 12}))
    bench = Bench(comfyui, T2V)
    bench.add("PreviewAny", source=out(load(bench, bench.model, "peft/adapter.safetensors")))
    comfyui.run(bench.prompt)
    assert "alpha 12: from adapter_config.json beside the file" in comfyui.log.read_text()
