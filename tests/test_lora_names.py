"""Every name that a layer has in LoRA files."""

from __future__ import annotations

import pytest
import torch

from harness import goldens
from tests.loras import FIRST_DIFFUSERS, KOHYA, LINEAR, PEFT, QUERY, TEXT, UNET, VIDEOCRAFTER2, first_diffusers, pair, write
from vc_core.checkpoint import CheckpointError
from vc_core.family.model_file import ModelFile
from vc_core.lora.files import open_lora
from vc_core.lora.merging import LoraSetting, with_loras
from vc_core.lora.places import text_place, text_tensor, unet_layers, unet_place


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelFile:
    return ModelFile.open(goldens.write_checkpoint("t2v_512_v2", tmp_path_factory.mktemp("model") / "model.safetensors"))


@pytest.mark.parametrize(
    ("stem", "sides"),
    [
        (f"base_model.model.{QUERY}", PEFT),
        (f"base_model.model.model.diffusion_model.{QUERY}", PEFT),
        (f"base_model.model.diffusion_model.{QUERY}", PEFT),
        (f"model.base_model.model.diffusion_model.{QUERY}", ("lora_A.default.weight", "lora_B.default.weight")),
        (f"base_model.model.{QUERY}", ("lora_A.default.weight", "lora_B.default.weight")),
        (f"diffusion_model.{QUERY}", PEFT),
        (f"diffusion_model.{QUERY}", KOHYA),
        (f"diffusion_model.{QUERY}", ("lora_A", "lora_B")),
        (QUERY, PEFT),
        (f"model.diffusion_model.{QUERY}", KOHYA),
        (f"lora_unet_{QUERY.replace('.', '_')}", KOHYA),
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", KOHYA),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", PEFT),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q", FIRST_DIFFUSERS),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", ("lora.down.weight", "lora.up.weight")),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", LINEAR),
    ],
)
def test_every_name_of_one_layer(tmp_path, stem, sides):
    shape = UNET[f"{QUERY}.weight"]
    tensors = pair(stem, sides, shape)
    lora = open_lora(write(tmp_path, tensors)).match(UNET)
    assert list(lora.unet) == [QUERY] and not lora.unmatched
    assert lora.report()[0] == "lora.safetensors: 1 of 1 layers matched, rank 4"
    down, up = tensors.values()
    assert torch.equal(lora.unet[QUERY].delta(shape), up @ down)


def test_each_layer_of_a_published_unet_is_found_by_its_names():
    """kohya's names can't be cut at underscores: temopral_conv, to_out_0, net_0_proj."""
    assert len(VIDEOCRAFTER2) > 570
    for layer in VIDEOCRAFTER2:
        for name in (f"diffusion_model.{layer}", f"model.diffusion_model.{layer}", f"lora_unet_{layer.replace('.', '_')}"):
            assert unet_place(name, VIDEOCRAFTER2) == layer
    assert unet_place("lora_unet_input_blocks_1_0_temporal_conv_conv1_2", VIDEOCRAFTER2) is None  # nothing is mended
    assert unet_place("diffusion_model.nothing", VIDEOCRAFTER2) is None


def test_the_authors_name_of_the_frame_stride():
    """DynamiCrafter 256 calls the layer by another name than the other models."""
    layers = {"fps_embedding.0": (8, 8), "fps_embedding.2": (8, 8)}
    for name in ("model.diffusion_model.framestride_embed.2", "lora_unet_framestride_embed_2", "diffusion_model.fps_embedding.2"):
        assert unet_place(name, layers) == "fps_embedding.2"


@pytest.mark.parametrize(
    ("stem", "sides"), [(f"model.diffusion_model.{QUERY}", KOHYA), (QUERY, PEFT), (QUERY, FIRST_DIFFUSERS), (QUERY, LINEAR)]
)
def test_a_lora_is_not_taken_for_a_model(tmp_path, stem, sides):
    with pytest.raises(CheckpointError, match="is a LoRA, not a model. .* VideoCrafter Load LoRA"):
        ModelFile.open(write(tmp_path, pair(stem, sides, UNET[f"{QUERY}.weight"])))


#: Of Stable Diffusion 2's UNet in diffusers (unet/config.json: 4 levels, 2 layers a block, cross-attention in all but the last),
#: and the place of each in the original code, from diffusers' own scripts/convert_original_stable_diffusion_to_diffusers.py.
DIFFUSERS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.resnets.1.time_emb_proj": "input_blocks.2.0.emb_layers.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
    "down_blocks.2.attentions.1.proj_in": "input_blocks.8.1.proj_in",
    "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0": "input_blocks.8.1.transformer_blocks.0.attn2.to_out.0",
    "down_blocks.3.resnets.1.conv2": "input_blocks.11.0.out_layers.3",
    "mid_block.resnets.0.conv1": "middle_block.0.in_layers.2",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj": "middle_block.1.transformer_blocks.0.ff.net.0.proj",
    "mid_block.resnets.1.conv2": "middle_block.3.out_layers.3",
    "up_blocks.0.resnets.2.conv1": "output_blocks.2.0.in_layers.2",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
    "up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_k": "output_blocks.5.1.transformer_blocks.0.attn1.to_k",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.3.conv",
    "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v": "output_blocks.11.1.transformer_blocks.0.attn2.to_v",
    "conv_out": "out.2",
}


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers_names_of_the_spatial_layers(name):
    """The second residual block of the middle stands behind the temporal layer, and so does the last level's upsampler."""
    for written in (f"unet.{name}", f"lora_unet_{name.replace('.', '_')}"):
        assert unet_place(written, VIDEOCRAFTER2) == DIFFUSERS[name]


def test_every_kind_of_layer(tmp_path, model):
    """Conv1d, Conv2d of 1x1 and 3x3, Conv3d, Linear; a convolution decomposed in three, and one whose matrices are flat."""
    layers = unet_layers(UNET)
    chosen = {len(shape): name for name, shape in layers.items() if shape[2:] != (1, 1)}
    assert sorted(chosen) == [2, 3, 4, 5]
    tensors, expected = {}, {}
    for name in chosen.values():
        tensors |= pair(f"diffusion_model.{name}", PEFT, layers[name])
        down, up = (tensors[f"diffusion_model.{name}.{side}"] for side in PEFT)
        expected[name] = (up @ down.flatten(1)).reshape(layers[name])
    square = "middle_block.0.in_layers.2"
    width = layers[square][0]
    down, mid, up = torch.randn(2, width, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(width, 2, 1, 1)
    tensors |= {f"diffusion_model.{square}.lora_{side}.weight": part for side, part in (("down", down), ("mid", mid), ("up", up))}
    x = torch.randn(1, width, 5, 5)
    flat = "middle_block.0.out_layers.3"
    tensors |= pair(f"diffusion_model.{flat}", PEFT, (width, width * 9), rank=1)
    merged = with_loras(model, [LoraSetting(write(tmp_path, tensors))]).tensors("unet")
    plain = model.tensors("unet")
    for name, delta in expected.items():
        assert torch.allclose(merged[f"{name}.weight"] - plain[f"{name}.weight"].float(), delta, atol=1e-5)
    by_hand = torch.conv2d(torch.conv2d(torch.conv2d(x, down), mid, padding=1), up)
    ours = torch.conv2d(x, merged[f"{square}.weight"] - plain[f"{square}.weight"].float(), padding=1)
    assert torch.allclose(ours, by_hand, atol=1e-3)
    delta = tensors[f"diffusion_model.{flat}.lora_B.weight"] @ tensors[f"diffusion_model.{flat}.lora_A.weight"]
    assert torch.allclose(merged[f"{flat}.weight"] - plain[f"{flat}.weight"].float(), delta.view(width, width, 3, 3), atol=1e-5)


TEXT_NAMES = [
    ("lora_te_text_model_encoder_layers_0_self_attn_k_proj", KOHYA),
    ("lora_te1_text_model_encoder_layers_0_self_attn_k_proj", KOHYA),
    ("text_encoder.text_model.encoder.layers.0.self_attn.k_proj", LINEAR),
    ("text_encoder.text_model.encoder.layers.0.self_attn.k_proj", PEFT),
    ("cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.k_proj", KOHYA),
]


@pytest.mark.parametrize(("stem", "sides"), TEXT_NAMES)
def test_text_layers(tmp_path, model, stem, sides):
    """OpenCLIP has query, key and value in one matrix, of which only the middle third changes."""
    place = "text_model.encoder.layers.0.self_attn.k_proj"
    tensors = pair(stem, sides, TEXT[place])
    merged = with_loras(model, [LoraSetting(write(tmp_path, tensors))]).tensors("text_encoder")
    down, up = tensors.values()
    name, plain = "transformer.resblocks.0.attn.in_proj_weight", model.tensors("text_encoder")
    changes = (merged[name] - plain[name].float()).chunk(3)
    assert torch.allclose(changes[1], up @ down, atol=1e-5)
    assert not changes[0].any() and not changes[2].any()
    assert all(torch.equal(merged[each], plain[each]) for each in plain if each != name)


@pytest.mark.parametrize(
    ("name", "place"), [("attn.out_proj", "self_attn.out_proj"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")]
)
def test_text_layers_by_openclip_s_names(name, place):
    found = text_place(f"cond_stage_model.model.transformer.resblocks.0.{name}")
    assert found == f"text_model.encoder.layers.0.{place}" and found in TEXT
    assert text_tensor(found) == (f"transformer.resblocks.0.{name}.weight", None)


def test_diffusers_first_layout(tmp_path):
    file = open_lora(write(tmp_path, first_diffusers()))
    lora = file.match(UNET, TEXT)
    assert (len(lora.unet), len(lora.text)) == (4, 4)
    assert lora.report()[0] == "lora.safetensors: 8 of 8 layers matched (4 of the text encoder), rank 4"
    without = file.match(UNET)
    assert (len(without.unet), len(without.text), len(without.unused_text)) == (4, 0, 4)
    assert any(line.startswith("4 text layers not used: text_encoder.text_model.encoder.layers.0") for line in without.report())


def test_what_does_not_match_is_listed(tmp_path):
    tensors = pair(f"diffusion_model.{QUERY}", PEFT, UNET[f"{QUERY}.weight"]) | pair("diffusion_model.camera.0", PEFT, (8, 8))
    tensors["diffusion_model.step"] = torch.zeros(1)
    lines = open_lora(write(tmp_path, tensors)).match(UNET).report()
    assert lines[0] == "lora.safetensors: 1 of 2 layers matched, rank 4"
    assert "1 layer not in this model, not used: diffusion_model.camera.0" in lines
    assert "1 tensor beside the LoRA, not used" in lines
