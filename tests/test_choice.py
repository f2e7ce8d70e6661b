"""A choice of model that doesn't fit the file is refused; one that fits decides among models of the same tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

import vc_core
from harness import goldens
from vc_core.checkpoint import CheckpointError
from vc_core.config import load_config, to_yaml
from vc_core.errors import ConfigError
from vc_core.family.identify import identify
from vc_core.family.model_file import ModelFile


@pytest.fixture
def path(tmp_path):
    return goldens.write_checkpoint("t2v_512_v2", tmp_path / "model.safetensors")


@pytest.mark.parametrize("config", [{"name": "nonsense"}, {"name": "t2v_512_v3"}, {"name": "t2v_512_v3", "sampling": {"steps": 8}}])
def test_a_name_of_no_model_is_refused(path, config):
    with pytest.raises(CheckpointError, match="t2v_512_v2.*which is no published model.*choose one of dynamicrafter_1024_v1"):
        vc_core.load(path, config)


@pytest.mark.parametrize("config", ["nonsense", Path("nonsense.yaml"), "a\0b", "x" * 5000])
def test_a_configuration_that_is_not_there_is_refused(path, config):
    with pytest.raises(ConfigError, match="no configuration"):
        vc_core.load(path, config)


@pytest.mark.parametrize("name", ["dynamicrafter_256_v1", "dynamicrafter_512_v1", "i2v_512_v1", "t2v_512_v1", "tiny_dynamicrafter"])
@pytest.mark.parametrize("form", [str, lambda name: {"name": name}], ids=["name", "mapping"])
def test_a_published_name_for_a_file_of_another_form_is_refused(path, name, form):
    with pytest.raises(CheckpointError, match=rf"model.safetensors is VideoCrafter.*t2v_512_v2.*, not .*\({name}\): "):
        ModelFile.open(path, form(name))


@pytest.mark.parametrize("right", goldens.MODELS)
@pytest.mark.parametrize("named", goldens.MODELS)
def test_every_pair_of_a_published_file_and_a_name(right, named):
    """By the tensors of the published files; models with the same tensors are told apart by the name alone."""

    file = goldens.ManifestFile(right, "model.ckpt")
    if right == named or {right, named} <= {"dynamicrafter_512_v1", "dynamicrafter_1024_v1"}:
        assert identify(file, {"name": named}) == identify(file, named) == load_config(named)
    else:
        with pytest.raises(CheckpointError, match=rf", not .*\({named}\)"):
            identify(file, {"name": named})


def test_the_schedule_in_a_file_refuses_a_model_of_the_same_tensors(tmp_path):
    path = goldens.write_checkpoint("dynamicrafter_1024_v1", tmp_path / "model.safetensors")
    assert ModelFile.open(path, {"name": "dynamicrafter_1024_v1"}).config.schedule.scale_end == 0.3
    with pytest.raises(CheckpointError, match="not .*dynamicrafter_512_v1.*another noise schedule"):
        ModelFile.open(path, {"name": "dynamicrafter_512_v1"})


def stated(tmp_path, name):
    """A converted file, without tables, that says itself what it is."""
    weights = goldens.weights(name)
    kept = {tensor: value for tensor, value in weights.items() if "." in tensor}
    config = ModelFile.open(goldens.write_checkpoint(name, tmp_path / f"{name}.safetensors")).config
    save_file(kept, tmp_path / "converted.safetensors", {"vc_core.config": to_yaml(config)})
    return tmp_path / "converted.safetensors"


def test_a_choice_against_what_a_converted_file_says_is_refused(tmp_path):
    path = stated(tmp_path, "dynamicrafter_512_v1")
    for name in ("dynamicrafter_1024_v1", "t2v_512_v2", "i2v_512_v1"):
        with pytest.raises(CheckpointError, match=rf", not .*\({name}\)"):
            ModelFile.open(path, {"name": name})


def test_another_use_of_the_same_model_can_be_chosen(tmp_path):
    path, interpolation = stated(tmp_path, "dynamicrafter_512_v1"), load_config("dynamicrafter_512_interp_v1")
    assert ModelFile.open(path).config.keyframes != interpolation.keyframes
    for choice in ("dynamicrafter_512_interp_v1", {"name": "dynamicrafter_512_interp_v1"}):
        config = ModelFile.open(path, choice).config
        assert (config.keyframes, config.unet.default_fps, config.name) == (["ends"], 5, "dynamicrafter_512_interp_v1")


def test_a_label_of_ones_own_beside_values_is_kept(path, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nsampling: {steps: 8}")
    config = ModelFile.open(path, tmp_path / "mine.yaml").config
    assert (config.name, config.sampling.steps, config.schedule.scale_end) == ("mine", 8, 0.7)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("ViewCrafter_25.ckpt", "viewcrafter_25_v1"),
        ("viewcrafter_25_fp16.safetensors", "viewcrafter_25_v1"),
        ("ViewCrafter_25_512.ckpt", "viewcrafter_25_512_v1"),
        ("viewcrafter_25_sparse_v1.ckpt", "viewcrafter_25_sparse_v1"),
        ("dynamicrafter_cil_512_v1.ckpt", "dynamicrafter_cil_512_v1"),
        ("DynamiCrafter-CIL-1024.ckpt", "dynamicrafter_cil_1024_v1"),
        ("dynamicrafter_512_2025.ckpt", "dynamicrafter_512_v1"),
        ("dynamicrafter512_bf16.safetensors", "dynamicrafter_512_v1"),
        ("dynamicrafter_512_interp_v1_bf16.safetensors", "dynamicrafter_512_interp_v1"),
        ("tuned_1024.ckpt", "dynamicrafter_1024_v1"),
    ],
)
def test_models_of_dynamicrafter_s_tensors_are_told_apart_by_the_file_s_name(file, name):
    """A year or the bits of a data type in a name are no number of frames, nor a size."""
    assert identify(goldens.ManifestFile("dynamicrafter_512_v1", file)).name == name


@pytest.mark.parametrize("size", ["512", "1024"])
def test_a_viewcrafter_s_file_is_used_as_one(tmp_path, size):
    """Converted as DynamiCrafter or not: the last step and the frames are the chosen model's."""
    base, chosen = f"dynamicrafter_{size}_v1", "viewcrafter_25_512_v1" if size == "512" else "viewcrafter_25_v1"
    for path in (goldens.write_checkpoint(base, tmp_path / "model.safetensors"), stated(tmp_path, base)):
        plain, config = ModelFile.open(path).config, ModelFile.open(path, {"name": chosen}).config
        assert plain.schedule.dynamic_rescale and plain.keyframes == ["first"]
        assert config.name in (chosen, "custom") and config.keyframes == ["frames"] and config.sampling.frames == 25
        assert not config.schedule.dynamic_rescale and config.schedule.dynamic_rescale_by_image
