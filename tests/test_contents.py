"""Unknown tensors of a model are never left out without a word."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from harness import goldens
from vc_core.__main__ import main
from vc_core.checkpoint import CheckpointError
from vc_core.family.contents import classify
from vc_core.family.model_file import ModelFile

UNET = "model.diffusion_model."


def saved(path, prefix, **extra):
    """The UNet of VideoCrafter2 with other tensors beside its own."""
    unet = {prefix + name.removeprefix(UNET): value for name, value in goldens.weights("t2v_512_v2").items() if name.startswith(UNET)}
    save_file(unet | {prefix + name: torch.zeros(shape) for name, shape in extra.items()}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", UNET])
def test_t2v_turbo_is_not_taken_for_videocrafter2(prefix, tmp_path):
    width = goldens.load("t2v_512_v2").config.unet.model_channels
    path = saved(tmp_path / "unet.safetensors", prefix, **{"time_cond_proj.weight": (width, 256)})
    assert ModelFile.open(path).config.title == "A model of the form of t2v_turbo_v1"
    saved(path, prefix, **{"time_cond_proj.weight": (width, 128)})
    with pytest.raises(CheckpointError, match=rf"time_cond_proj.weight is \[{width}, 128\], expected \[{width}, 256\]"):
        ModelFile.open(path)
    saved(path, prefix)
    assert ModelFile.open(path).config.title == "A model of the form of t2v_512_v2"


@pytest.mark.parametrize("name", [
    "motion_cond_proj.weight", "combine_proj.weight", "input_blocks.1.1.transformer_blocks.0.cc_projection.weight", "label_emb.0.weight",
    "middle_block.3.weight", "output_blocks.99.0.weight", "out.3.bias", "time_mixer.weight", "fps_scale", "style_embedding.weight",
    "context_proj.weight", "init_attn.1.weight", "omcm.body.0.weight", "input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight",
])
def test_unknown_parts_of_a_bare_unet_are_refused_by_name(name, tmp_path):
    with pytest.raises(CheckpointError, match="look like a part of its model") as error:
        ModelFile.open(saved(tmp_path / "unet.safetensors", "", **{name: (3,)}))
    assert f"{name} [3]" in str(error.value)


def test_a_decoder_of_toonCrafter_is_refused_with_what_it_is(tmp_path):
    weights = dict(goldens.weights("t2v_512_v2")) | {"first_stage_model.decoder.attn_refinement.0.conv.weight": torch.zeros(3)}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="unexpected first_stage_model.decoder.attn_refinement.*: ToonCrafter's decoder"):
        ModelFile.open(tmp_path / "model.safetensors")


def test_convert_names_what_it_leaves_out(tmp_path, capsys):
    weights = dict(goldens.weights("t2v_512_v2"))
    extra = {"model_ema.decay": torch.tensor(0.9), "someones.own.tensor": torch.zeros(2), "betas": torch.zeros(3)}
    save_file(weights | extra, tmp_path / "model.safetensors")
    assert main(["convert", str(tmp_path / "model.safetensors"), str(tmp_path / "new.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "unknown: someones.own.tensor" in printed and "averaged weights of the training (EMA)" in printed
    assert "tables of the noise schedule" in printed
    contents = ModelFile.open(tmp_path / "model.safetensors").contents()
    assert contents.unknown == ("someones.own.tensor",)
    assert len(contents.used) + sum(map(len, contents.unused.values())) + 1 == len(weights | extra)


@pytest.mark.parametrize("name", goldens.MODELS)
def test_every_tensor_of_the_published_files_is_known(name):
    """The rest of a published file are tables of the schedule and the other halves of CLIP."""
    from vc_core.config import load_config
    from vc_core.family.model_file import part_shapes
    from vc_core.family.parts import PARTS

    config, manifest = load_config(name), goldens.manifest(name)
    parts = [part for part in PARTS if getattr(config, part) is not None]
    contents = classify(manifest, [PARTS[part].prefix + tensor for part in parts for tensor in part_shapes(config, part)])
    assert not contents.unknown and len(contents.used) > 1500
    assert len(contents.used) + sum(map(len, contents.unused.values())) == len(manifest)
