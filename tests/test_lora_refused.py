"""LoRA files that are refused, whole, and why."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import vc_core
from harness import goldens
from tests.loras import FIRST_DIFFUSERS, KOHYA, MOTION, PEFT, QUERY, SPATIAL, UNET, pair, write
from vc_core.checkpoint import CheckpointError
from vc_core.lora.files import open_lora

FOREIGN = {
    "AnimateDiff motion LoRA": (MOTION, FIRST_DIFFUSERS),
    "Stable Diffusion XL": ("lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q", KOHYA),
    "Stable Diffusion 3": ("transformer.joint_blocks.0.x_block.attn.qkv", PEFT),
    "FLUX or HunyuanVideo": ("lora_unet_double_blocks_0_img_attn_qkv", KOHYA),
    "Wan": ("diffusion_model.blocks.0.self_attn.q", PEFT),
    "diffusion transformer": ("transformer.transformer_blocks.0.attn1.to_q", PEFT),
    "ModelScope": ("unet.down_blocks.0.temp_attentions.0.transformer_blocks.0.attn1.to_q", PEFT),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return goldens.write_checkpoint("t2v_512_v2", tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.mark.parametrize("what", FOREIGN)
def test_a_lora_of_another_model_is_refused_by_its_names(tmp_path, what):
    """Even if a layer of it is called as one of ours."""
    tensors = pair(*FOREIGN[what], (8, 8))
    for more in ({}, pair("lora_unet_time_embed_0", KOHYA, UNET["time_embed.0.weight"])):
        with pytest.raises(CheckpointError, match=f"(?s){what}.*Nothing of it was applied"):
            open_lora(write(tmp_path, tensors | more)).match(UNET)


def test_animatediff_s_message_says_where_it_belongs(tmp_path):
    with pytest.raises(CheckpointError, match="motion modules, which this family doesn't have: load it with AnimateDiff-Evolved"):
        open_lora(write(tmp_path, pair(MOTION, FIRST_DIFFUSERS, (8, 8)))).match(UNET)


@pytest.mark.parametrize(("model_name", "width"), [("Stable Diffusion 1", 768), ("Stable Diffusion XL", 2048)])
def test_a_lora_of_another_base_is_refused_whole(tmp_path, path, model_name, width):
    """Its self-attention fits, its cross-attention reads text of another width."""
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
    own = UNET[f"{SPATIAL}.attn2.to_k.weight"]
    tensors = pair(f"{stem}_attn1_to_q", KOHYA, UNET[f"{QUERY}.weight"]) | pair(f"{stem}_attn2_to_k", KOHYA, (own[0], width))
    with pytest.raises(CheckpointError) as error:
        vc_core.load(path, loras=[write(tmp_path, tensors)])
    assert f"a LoRA of {model_name}" in str(error.value) and "Nothing of it was applied" in str(error.value)
    assert f"width {width} against {own[1]}" in str(error.value)


@pytest.mark.parametrize("told", [{"ss_base_model_version": "sd_v1"}, {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}])
def test_a_lora_of_another_base_is_refused_by_its_metadata(tmp_path, told):
    tensors = pair("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", KOHYA, UNET[f"{QUERY}.weight"])
    with pytest.raises(CheckpointError, match="as its metadata says"):
        open_lora(write(tmp_path, tensors, **told)).match(UNET)
    open_lora(write(tmp_path, tensors, ss_base_model_version="sd_v2")).match(UNET)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a.weight": torch.ones(2, 2)}, "holds no LoRA: none of its 1 tensors"),
        (pair("encoder.block.0", PEFT, (8, 8)), "none of its 1 layers is one of this model's"),
        ({f"{QUERY}.lora_A.weight": torch.ones(4, 64)}, "has no up matrix"),
        ({f"{QUERY}.lora_up.weight": torch.ones(64, 4)}, "has no down matrix"),
        (pair(QUERY, PEFT, (64, 64)) | {f"{QUERY}.lora_magnitude_vector": torch.ones(64)}, "of a kind of change that is not read here"),
        (pair(QUERY, PEFT, (64, 64)) | {f"{QUERY}.dora_scale": torch.ones(64)}, "its dora_scale is \\[64\\]"),
        ({f"lora_unet_x.hada_w1_{side}": torch.ones(2, 2) for side in "ab"}, "LoHa"),
        (pair(QUERY, PEFT, (64, 64)) | pair(QUERY, ("lora_A.a.weight", "lora_B.a.weight"), (64, 64)), "two down matrices"),
        (pair(QUERY, PEFT, (64, 64)) | pair(f"diffusion_model.{QUERY}", PEFT, (64, 64)), "has two LoRAs for the layer"),
        ({f"{QUERY}.lora_A.weight": torch.ones(4, 64), f"{QUERY}.lora_B.weight": torch.ones(64, 3)}, "don't belong together"),
        ({f"{QUERY}.lora_A.weight": torch.ones(0, 64), f"{QUERY}.lora_B.weight": torch.ones(64, 0)}, "don't belong together"),
        ({f"{QUERY}.lora_A.weight": torch.full((4, 64), math.inf), f"{QUERY}.lora_B.weight": torch.ones(64, 4)}, "NaN or infinite"),
    ],
)
def test_files_that_are_refused(tmp_path, tensors, message):
    assert UNET[f"{QUERY}.weight"] == (64, 64)
    with pytest.raises(CheckpointError, match=message):
        open_lora(write(tmp_path, tensors)).match(UNET)


def test_a_text_lora_without_a_text_encoder(tmp_path):
    with pytest.raises(CheckpointError, match="layers of a text encoder only"):
        open_lora(write(tmp_path, pair("lora_te_text_model_encoder_layers_0_mlp_fc1", KOHYA, (64, 64)))).match(UNET)
