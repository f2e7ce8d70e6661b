"""T2V-Turbo v1's LoRA, a list of tensors without names."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from harness import goldens
from tests.loras import UNET, VIDEOCRAFTER2, in_list_order
from vc_core.checkpoint import CheckpointError
from vc_core.family.model_file import ModelFile
from vc_core.lora import LoraSetting, with_loras
from vc_core.lora.places import unet_layers
from vc_core.lora.turbo_list import GUIDANCE_LAYER, NamelessTensor, turbo_layers


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelFile:
    return ModelFile.open(goldens.write_checkpoint("t2v_512_v2", tmp_path_factory.mktemp("model") / "model.safetensors"))


def turbo_list(guidance: bool) -> tuple[list[str], list[NamelessTensor]]:
    """A list for VideoCrafter2's layers; each tensor is named after its layer."""
    layers = in_list_order(VIDEOCRAFTER2)
    if guidance:
        layers.insert(layers.index("fps_embedding.2") + 1, GUIDANCE_LAYER)
    tensors = []
    for layer in layers:
        out, inner = (320, 256) if layer == GUIDANCE_LAYER else (VIDEOCRAFTER2[layer][0], math.prod(VIDEOCRAFTER2[layer][1:]))
        rank = min(64, out, inner)
        tensors += [NamelessTensor(f"{layer} up", (out, rank)), NamelessTensor(f"{layer} down", (rank, inner))]
    return layers, tensors


@pytest.mark.parametrize("guidance", [True, False])
def test_the_layers_of_t2v_turbo_s_list(guidance):
    """575 of them: 421 linear, 66 of two dimensions, 88 of three; init_attn's Conv1d have none."""
    layers, tensors = turbo_list(guidance)
    found = turbo_layers(tensors, VIDEOCRAFTER2)
    assert list(found) == layers and len(layers) == 574 + guidance
    kinds = Counter(len(VIDEOCRAFTER2.get(layer, (320, 256))) for layer in layers)
    assert kinds == {2: 420 + guidance, 4: 66, 5: 88}
    assert all((down.name, up.name) == (f"{layer} down", f"{layer} up") for layer, (down, up) in found.items())
    place = layers.index("middle_block.1.transformer_blocks.0.ff.net.2")
    assert layers[place + 1] == "middle_block.1.transformer_blocks.0.attn2.to_q"


def test_a_list_of_another_model():
    _, tensors = turbo_list(True)
    with pytest.raises(CheckpointError, match="for 572 layers; this model has 574"):
        turbo_layers(tensors[:-6], VIDEOCRAFTER2)
    with pytest.raises(CheckpointError, match="is not T2V-Turbo's for this model: at time_embed.0"):
        turbo_layers([*tensors[2:4], *tensors[:2], *tensors[4:]], VIDEOCRAFTER2 | {"time_embed.0": (1280, 321)})
    with pytest.raises(CheckpointError, match="two for each layer"):
        turbo_layers(tensors[:-1], VIDEOCRAFTER2)


def test_a_list_is_read_and_applied(tmp_path, model):
    layers = [name for name, shape in unet_layers(UNET).items() if len(shape) != 3]
    listed = []
    for name in in_list_order(unet_layers(UNET)):
        shape = UNET[f"{name}.weight"]
        listed += [torch.full((shape[0], 1), 0.5), torch.ones(1, math.prod(shape[1:]))]
    torch.save(listed, tmp_path / "unet_lora.pt")
    merged = with_loras(model, [LoraSetting(tmp_path / "unet_lora.pt")]).tensors("unet")
    plain = model.tensors("unet")
    for name in layers:
        assert torch.allclose(merged[f"{name}.weight"], plain[f"{name}.weight"].float() + 0.5)
    with pytest.raises(CheckpointError, match="no UNet of the VideoCrafter family"):
        ModelFile.open(tmp_path / "unet_lora.pt")
