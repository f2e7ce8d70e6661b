"""Every layout in which a model of the family is found: types, wrappings, prefixes, containers, with and without parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vc_core
from harness import goldens
from vc_core.checkpoint import CheckpointError
from vc_core.config import load_config, to_yaml
from vc_core.family.identify import identify, part_prefixes
from vc_core.family.model_file import ModelFile
from vc_core.family.parts import PARTS

MODEL, UNET = "t2v_512_v2", "model.diffusion_model."
Tensors = dict[str, torch.Tensor]


def weights() -> Tensors:
    return dict(goldens.weights(MODEL))


def cast(dtype: torch.dtype) -> Tensors:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights().items()}


def prefixed(prefix: str, tensors: Tensors | None = None) -> Tensors:
    return {prefix + name: value for name, value in (tensors or weights()).items()}


def unet(prefix: str) -> Tensors:
    return {prefix + name.removeprefix(UNET): value for name, value in weights().items() if name.startswith(UNET)}


def averaged() -> Tensors:
    """EMA's copy of the UNet, whose names have no dots."""
    unet = {name: value for name, value in weights().items() if name.startswith(UNET)}
    return {"model_ema." + name.removeprefix("model.").replace(".", ""): value.clone() for name, value in unet.items()}


#: What torch.save is given.
PICKLED: dict[str, Callable[[], object]] = {
    "bare": weights,
    "state_dict": lambda: {"state_dict": weights(), "epoch": 3, "optimizer_states": [{"state": {0: torch.zeros(2)}}]},
    "module with DeepSpeed's prefix": lambda: {"module": prefixed("_forward_module."), "dp_world_size": 8},
    "module": lambda: {"module": weights()},
    "model": lambda: {"model": weights(), "step": torch.tensor(5)},
    "unet": lambda: {"unet": unet("")},
    "ema": lambda: {"ema": weights(), "step": 1},
    "model beside its averages": lambda: {"ema": {name: value * 0 for name, value in weights().items()}, "model": weights()},
    "model_state_dict": lambda: {"model_state_dict": weights()},
    "state_dict in model": lambda: {"model": {"state_dict": weights()}},
    "state_dict with module.": lambda: {"state_dict": prefixed("module.")},
    "state_dict with both": lambda: {"state_dict": prefixed("module._orig_mod.")},
    "module in model": lambda: {"model": {"module": prefixed("module.")}},
    "half": lambda: {"state_dict": cast(torch.float16)},
    "bfloat16": lambda: cast(torch.bfloat16),
    "with averages": lambda: weights() | averaged(),
    "averages beside plain weights": lambda: {"state_dict": weights(), "ema": {name: value * 0 for name, value in weights().items()}},
    "parameters": lambda: {name: torch.nn.Parameter(value) if value.is_floating_point() else value for name, value in weights().items()},
}
#: What save_file is given.
STORED: dict[str, Callable[[], Tensors]] = {
    "plain": weights,
    "half": lambda: cast(torch.float16),
    "bfloat16": lambda: cast(torch.bfloat16),
    "fp8 e4m3": lambda: cast(torch.float8_e4m3fn),
    "fp8 e5m2": lambda: cast(torch.float8_e5m2),
    "module.": lambda: prefixed("module."),
    "module.module.": lambda: prefixed("module.module."),
    "_orig_mod.": lambda: prefixed("_orig_mod."),
    "module._orig_mod.": lambda: prefixed("module._orig_mod."),
    "compiled inside": lambda: {name.replace(UNET, UNET + "_orig_mod."): value for name, value in weights().items()},
    "state_dict.": lambda: prefixed("state_dict."),
    "the UNet alone": lambda: unet(UNET),
    "the UNet alone, bare": lambda: unet(""),
    "the UNet alone, as ComfyUI saves it": lambda: unet("diffusion_model."),
    "the UNet alone, module.diffusion_model.": lambda: unet("module.diffusion_model."),
    "no tables": lambda: {name: value for name, value in weights().items() if "." in name},
    "no autoencoder": lambda: {name: value for name, value in weights().items() if not name.startswith("first_stage")},
    "no text encoder": lambda: {name: value for name, value in weights().items() if not name.startswith("cond_stage")},
    "no temperature": lambda: {name: value for name, value in weights().items() if not name.endswith("logit_scale")},
    "no text projection": lambda: {name: value for name, value in weights().items() if not name.endswith("text_projection")},
    "an autoencoder's loss": lambda: weights() | {"first_stage_model.loss.logvar": torch.zeros(())},
    "with averages": lambda: weights() | averaged(),
    "a text mask": lambda: weights() | {"cond_stage_model.model.attn_mask": torch.zeros(77, 77)},
}


def check(path: Path) -> None:
    """The model is that of the published file, whatever the layout, and its weights are."""
    file, reference = ModelFile.open(path), goldens.weights(MODEL)
    published = goldens.recording(MODEL).reference_config["unet_config"]["params"]
    assert file.config.title == f"A model of the form of {MODEL}" and file.config.unet.model_channels == published["model_channels"]
    assert file.config.schedule.scale_end == 0.7
    name = "input_blocks.1.0.in_layers.2.weight"
    found, expected = file.tensors("unet")[name], reference[UNET + name]
    assert torch.equal(found, expected.to(found.dtype))
    for part in file.parts:
        assert set(file.tensors(part)) and all(value.isfinite().all() for value in file.tensors(part).values() if value.itemsize > 1)


@pytest.mark.parametrize("layout", PICKLED)
def test_layouts_of_pickles(layout, tmp_path):
    torch.save(PICKLED[layout](), tmp_path / f"{MODEL}.ckpt")
    check(tmp_path / f"{MODEL}.ckpt")


@pytest.mark.parametrize("layout", STORED)
def test_layouts_of_safetensors(layout, tmp_path):
    save_file({name: value.contiguous() for name, value in STORED[layout]().items()}, tmp_path / f"{MODEL}.safetensors")
    check(tmp_path / f"{MODEL}.safetensors")


def test_the_legacy_container_is_refused_with_its_remedy(tmp_path):
    torch.save(weights(), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="before torch 1.6.*save it again"):
        ModelFile.open(tmp_path / "old.ckpt")


def test_the_last_text_layer_may_be_missing():
    """Of the published size; in towers of other sizes it can't be told from a tower with one layer less."""

    file = goldens.ManifestFile(MODEL, without=".resblocks.23.")
    assert len(file.shapes) == len(goldens.manifest(MODEL)) - 12
    config = identify(file)
    assert config == load_config(MODEL)
    assert part_prefixes(file)["text_encoder"] and "transformer.resblocks.23." in PARTS["text_encoder"].spare(config)


def test_what_is_missing_and_unused_does_not_change_the_text(tmp_path):
    prefix = "cond_stage_model.model."
    last = max(int(name.split(".")[4]) for name in weights() if ".resblocks." in name)
    lacking = {
        name: value for name, value in weights().items()
        if name not in (prefix + "logit_scale", prefix + "text_projection") and f"{prefix}transformer.resblocks.{last}." not in name
    }
    save_file(weights(), tmp_path / "whole.safetensors", {})
    whole = ModelFile.open(tmp_path / "whole.safetensors")
    save_file(lacking, tmp_path / "lacking.safetensors", {"vc_core.config": to_yaml(whole.config)})
    texts = [vc_core.load(tmp_path / f"{name}.safetensors").encode_text(["a dog"]) for name in ("whole", "lacking")]
    assert torch.equal(*texts)


LAYER = UNET + "input_blocks.1.0.in_layers.2"


def scaled(scale: str, beside: dict[str, torch.Tensor], shape: tuple[int, ...] = ()) -> tuple[Tensors, Tensors]:
    """Weights with matrices in 8 bits and their scales, as ComfyUI writes them, and the products that they mean, in float64."""
    stored, meant = weights(), weights()
    for name in [name for name, value in stored.items() if name.startswith(UNET) and name.endswith(".weight") and value.ndim == 2]:
        layer = name.removesuffix(".weight")
        factor = stored[name].abs().max() / 448
        stored[name] = (stored[name] / factor).to(torch.float8_e4m3fn)
        meant[name] = (stored[name].double() * factor.double()).float()
        stored |= {f"{layer}.{scale}": factor.reshape(shape)} | {f"{layer}.{own}": value.clone() for own, value in beside.items()}
    return stored, meant


def as_text(**described: object) -> torch.Tensor:
    return torch.tensor(list(json.dumps(described).encode()), dtype=torch.uint8)


#: Of ComfyUI's later files.
FORMAT = {"comfy_quant": as_text(format="float8_e4m3fn"), "input_scale": torch.tensor(0.5)}


@pytest.mark.parametrize(
    "scale, beside, mark, shape",
    [
        ("scale_weight", {"scale_input": torch.ones(1)}, {UNET + "scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}, (1,)),
        ("weight_scale", FORMAT, {}, ()),
        ("weight_scale", {}, {}, ()),
    ],
)
def test_scaled_fp8_is_multiplied_by_its_scales(scale, beside, mark, shape, tmp_path):
    stored, meant = scaled(scale, beside, shape)
    save_file(stored | mark, tmp_path / "model.safetensors")
    file = ModelFile.open(tmp_path / "model.safetensors")
    assert file.contents().unknown == ()
    found = file.tensors("unet")
    assert any(value.itemsize == 1 for value in stored.values())
    assert all(torch.equal(value, meant[UNET + name]) for name, value in found.items())


QUANTISED = {
    "blocks": {f"{LAYER}.weight": torch.zeros(32, 32).to(torch.float8_e4m3fn), f"{LAYER}.weight_scale": torch.ones(32, 1)},
    "integers": {f"{LAYER}.weight": torch.zeros(32, 32, dtype=torch.int8), f"{LAYER}.weight_scale": torch.ones(())},
    "another format": {
        f"{LAYER}.weight": torch.zeros(32, 32).to(torch.float8_e4m3fn), f"{LAYER}.weight_scale": torch.ones(()),
        f"{LAYER}.comfy_quant": as_text(format="float8_e4m3fn", convrot=True),
    },
    "no format": {
        f"{LAYER}.weight": torch.zeros(32, 32).to(torch.float8_e4m3fn), f"{LAYER}.weight_scale": torch.ones(()),
        f"{LAYER}.comfy_quant": torch.tensor([123], dtype=torch.uint8),
    },
    "two scales": {
        f"{LAYER}.weight": torch.zeros(32, 32).to(torch.float8_e4m3fn),
        f"{LAYER}.weight_scale": torch.ones(()), f"{LAYER}.scale_weight": torch.ones(()),
    },
    "a scale of no weight": {f"{UNET}out.7.weight_scale": torch.ones(1)},
    "a mark alone": {"scaled_fp8": torch.ones(1)},
}  # fmt: skip


@pytest.mark.parametrize("form", QUANTISED)
def test_other_quantised_weights_are_refused_as_such(form, tmp_path):
    save_file(weights() | QUANTISED[form], tmp_path / "model.safetensors")
    named = "scaled_fp8" if "mark" in form else "weight_scale|scale_weight|comfy_quant"
    with pytest.raises(CheckpointError, match=f"quantised weights.*({named}).*fp16, bf16 or fp8"):
        ModelFile.open(tmp_path / "model.safetensors")


def test_shards_are_refused_as_such(tmp_path):
    save_file(weights(), tmp_path / "model-00002-of-00003.safetensors")
    with pytest.raises(CheckpointError, match=r"part 2 of the 3 parts \(shards\).*as one file, or join them.*load_file"):
        ModelFile.open(tmp_path / "model-00002-of-00003.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 5}, "weight_map": {"a": "b"}}')
    with pytest.raises(CheckpointError, match=r"index of a model in several parts \(shards\)"):
        ModelFile.open(tmp_path / "model.safetensors.index.json")
    save_file(weights(), tmp_path / "model-00001-of-00001.safetensors")
    check(tmp_path / "model-00001-of-00001.safetensors")
