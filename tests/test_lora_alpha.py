"""Which alpha a LoRA file has."""

from __future__ import annotations

import json

import pytest
import torch

from tests.loras import PEFT, QUERY, SPATIAL, UNET, only_layer, pair, write
from vc_core.checkpoint import CheckpointError
from vc_core.lora.files import open_lora
from vc_core.lora.places import unet_layers

SETTINGS = {"r": 4, "lora_alpha": 8}


def test_without_an_alpha_it_is_the_rank(tmp_path):
    file = write(tmp_path, pair(f"base_model.model.{QUERY}", PEFT, UNET[f"{QUERY}.weight"]))
    assert only_layer(file).alpha == 4
    assert "alpha = rank: neither the file nor its layout tells one" in open_lora(file).match(UNET).report()


@pytest.mark.parametrize("place", ["beside", "metadata", "metadata as JSON", "diffusers' metadata"])
def test_alpha_of_peft_s_settings(tmp_path, place):
    tensors = pair(f"base_model.model.{QUERY}", PEFT, UNET[f"{QUERY}.weight"])
    metadata = {
        "metadata": {name: str(value) for name, value in SETTINGS.items()},
        "metadata as JSON": {"adapter_config": json.dumps(SETTINGS)},
        "diffusers' metadata": {"lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in SETTINGS.items()})},
    }
    file = write(tmp_path, tensors, **metadata.get(place, {}))
    if place == "beside":
        (tmp_path / "adapter_config.json").write_text(json.dumps(SETTINGS))
    layer = only_layer(file)
    down, up = tensors.values()
    assert torch.equal(layer.delta(UNET[f"{QUERY}.weight"]), 2 * (up @ down))
    assert any("alpha 8: from " in line for line in open_lora(file).match(UNET).report())


@pytest.mark.parametrize(("more", "factor"), [({}, 4.0), ({"use_rslora": True}, 16.0), ({"use_rslora": False}, 4.0)])
def test_the_scale_of_rank_stabilised_files(tmp_path, more, factor):
    """arXiv:2312.03732: divided by the root of the rank; 64 / 16 and 64 / sqrt(16)."""
    shape = UNET[f"{QUERY}.weight"]
    tensors = pair(f"base_model.model.{QUERY}", PEFT, shape, rank=16)
    settings = {"r": 16, "lora_alpha": 64} | more
    down, up = tensors.values()
    for written in (str, lambda value: json.dumps(value)):  # Python's True, and JSON's
        file = write(tmp_path, tensors, **{name: written(value) for name, value in settings.items()})
        assert torch.equal(only_layer(file).delta(shape), factor * (up @ down))


def test_other_alphas_for_some_layers(tmp_path):
    """peft's alpha_pattern."""
    key = f"{SPATIAL}.attn1.to_k"
    tensors = {name: each for layer in (QUERY, key) for name, each in pair(layer, PEFT, UNET[f"{layer}.weight"]).items()}
    (tmp_path / "adapter_config.json").write_text(json.dumps(SETTINGS | {"alpha_pattern": {"attn1.to_k": 2}}))
    found = open_lora(write(tmp_path, tensors)).match(UNET).unet
    assert (found[QUERY].alpha, found[key].alpha) == (8, 2)


def test_the_order_of_the_sources(tmp_path):
    """The user's, the layer's own, the metadata's, the file's beside it."""
    tensors = pair(f"diffusion_model.{QUERY}", PEFT, UNET[f"{QUERY}.weight"])
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 1}))
    assert only_layer(write(tmp_path, tensors)).alpha == 1
    assert only_layer(write(tmp_path, tensors, lora_alpha="2")).alpha == 2
    tensors[f"diffusion_model.{QUERY}.alpha"] = torch.tensor(3.0)
    assert only_layer(write(tmp_path, tensors, lora_alpha="2")).alpha == 3
    assert only_layer(write(tmp_path, tensors, lora_alpha="2"), alpha=4.0).alpha == 4


@pytest.mark.parametrize("content", [json.dumps({"r": 64, "lora_alpha": 8}), "{", "[1]", "\x00", "{}", json.dumps({"lora_alpha": "8"})])
def test_settings_beside_it_that_are_not_its_own(tmp_path, content):
    """In a folder of many LoRAs they can be another file's, which their rank tells; damaged ones tell nothing."""
    (tmp_path / "adapter_config.json").write_text(content)
    assert only_layer(write(tmp_path, pair(QUERY, PEFT, UNET[f"{QUERY}.weight"]))).alpha == 4


def attention_layers() -> list[str]:
    return [layer for layer in unet_layers(UNET) if layer.endswith((".to_q", ".to_k", ".to_v"))]


def test_vader_s_layout_needs_every_attention(tmp_path):
    """Its prefix on fewer layers is anybody's."""
    stems = {layer: f"base_model.model.model.diffusion_model.{layer}" for layer in attention_layers()}
    tensors = {name: each for layer, stem in stems.items() for name, each in pair(stem, PEFT, UNET[f"{layer}.weight"], 16).items()}
    whole = open_lora(write(tmp_path, tensors)).match(UNET)
    assert {layer.alpha for layer in whole.unet.values()} == {8}
    fewer = {name: each for name, each in tensors.items() if "middle_block" not in name}
    assert {layer.alpha for layer in open_lora(write(tmp_path, fewer)).match(UNET).unet.values()} == {16}


def test_videotuna_s_layout_needs_a_lightning_checkpoint(tmp_path):
    sides = ("lora_A.default.weight", "lora_B.default.weight")
    tensors = pair(f"model.base_model.model.diffusion_model.{QUERY}", sides, UNET[f"{QUERY}.weight"])
    torch.save({"pytorch-lightning_version": "2.4.0", "epoch": 1, "state_dict": tensors}, tmp_path / "lora.ckpt")
    assert only_layer(tmp_path / "lora.ckpt").alpha == 1
    torch.save({"state_dict": tensors}, tmp_path / "plain.ckpt")
    assert only_layer(tmp_path / "plain.ckpt").alpha == 4
    assert only_layer(write(tmp_path, tensors)).alpha == 4


@pytest.mark.parametrize("alpha", [torch.tensor(float("nan")), torch.ones(2)])
def test_an_alpha_that_is_no_number(tmp_path, alpha):
    tensors = pair(QUERY, PEFT, UNET[f"{QUERY}.weight"]) | {f"{QUERY}.alpha": alpha}
    with pytest.raises(CheckpointError, match="alpha"):
        open_lora(write(tmp_path, tensors)).match(UNET)
