"""T2V-Turbo v1's list of tensors without names, as a LoRA of VideoCrafter2. Its order is tested with the recordings."""

from __future__ import annotations

import pytest
import torch

from harness import goldens
from tests.loras import UNET, turbo_list
from vc_core.checkpoint import CheckpointError
from vc_core.family.model_file import ModelFile
from vc_core.lora.files import open_lora
from vc_core.lora.merging import LoraSetting, with_loras


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelFile:
    return ModelFile.open(goldens.write_checkpoint("t2v_512_v2", tmp_path_factory.mktemp("model") / "model.safetensors"))


def test_a_list_is_read_and_applied(tmp_path, model):
    """The layer for the scale of guidance, which VideoCrafter2 doesn't have, is left out and said."""
    pairs = turbo_list()
    torch.save([each for pair in pairs.values() for each in pair], tmp_path / "unet_lora.pt")
    lines: list[str] = []
    merged = with_loras(model, [LoraSetting(tmp_path / "unet_lora.pt", 0.5)], lines.append).tensors("unet")
    assert lines == [
        f"unet_lora.pt: {len(pairs) - 1} of {len(pairs)} layers matched, rank 2",
        "alpha = rank: the scale of T2V-Turbo's lists is 1",
        "1 layer not in this model, not used: time_cond_proj",
    ]
    plain = model.tensors("unet")
    for layer, (up, down) in pairs.items():
        name = f"{layer}.weight"
        if name in plain:
            expected = plain[name].float() + 0.5 * (up.flatten(1) @ down.flatten(1)).view_as(plain[name])
            assert torch.allclose(merged[name], expected, atol=1e-5), layer


def test_an_alpha_of_the_user(tmp_path):
    torch.save([each for pair in turbo_list().values() for each in pair], tmp_path / "unet_lora.pt")
    assert {layer.alpha for layer in open_lora(tmp_path / "unet_lora.pt").match(UNET, alpha=3.0).unet.values()} == {3}


@pytest.mark.parametrize("model_name", ["t2v_512_v2", "dynamicrafter_512_v1"])
def test_a_list_of_another_model(tmp_path, model_name):
    torch.save([torch.ones(8, 2), torch.ones(2, 8)], tmp_path / "list.pt")
    prefix = "model.diffusion_model."
    shapes = goldens.recording(model_name).shapes
    unet = {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items() if name.startswith(prefix)}
    with pytest.raises(CheckpointError, match="is a list of 2 tensors; T2V-Turbo v1's has two for each of the"):
        open_lora(tmp_path / "list.pt").match(unet)
