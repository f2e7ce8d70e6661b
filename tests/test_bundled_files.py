"""The files of the bundled models: smaller than complete ones, and the same tensors."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import vc_core
from dev.bundle import bundle, bundle_changes
from vc_core.__main__ import main
from vc_core.checkpoint import Checkpoint, CheckpointError, convert, open_checkpoint
from vc_core.errors import InputError
from vc_core.family import bundled
from vc_core.family.model_file import ModelFile

#: SHA-256 of the tensors of each model, computed from the complete files that their training wrote.
RECORDED = {
    "videocrafter_tiny_camera": (634, "da4f531a95e9d2211fc17fb25f252f1fde405eeeb318c0b624a835d7af1a8873"),
    "videocrafter_tiny_depth": (624, "cc0840a0a5f19ed382f6ecdd0b6569ea2974e86a74ef1cf6977650051f7805fb"),
    "videocrafter_tiny_dynamicrafter": (705, "afc4aa81630fac7c9a855963b2abdea9a588f3b1861212c83eadc20126bf4081"),
    "videocrafter_tiny_i2v": (705, "2d8d4048ce8619400efbe9abfccdbafc9069d2fd9b4b553f53512cb0bcb4549c"),
    "videocrafter_tiny_t2v": (624, "e429d8e48afdc4a5191d1562e1de38aa5d5e17fdabec2131b2eaf1b979360a59"),
    "videocrafter_tiny_turbo": (625, "122777a7e1e101683e412e0c5983a54d2020b6be9e073188b1f2142d852bc59c"),
}
#: Stored by rows. The zeros of its other rows had random signs, which are not stored: the digest is that of the table + 0.
TABLE = "cond_stage_model.model.token_embedding.weight"


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        tensor = tensor + 0.0 if name == TABLE else tensor
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def tensors_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: checkpoint.sound_tensor(name) for name in checkpoint}


def test_the_names_are_the_recorded_models():
    assert list(vc_core.bundled_models()) == list(RECORDED)
    assert all(path.is_file() for path in vc_core.bundled_models().values())


@pytest.mark.parametrize("by_path", [False, True])
@pytest.mark.parametrize("name", RECORDED)
def test_the_tensors_are_those_of_the_complete_files(name, by_path):
    file = ModelFile.open(vc_core.bundled_models()[name] if by_path else name)
    found = tensors_of(file.checkpoint) | ({} if file.added is None else tensors_of(file.added))
    assert (len(found), digest(found)) == RECORDED[name]
    for tensor_name, tensor in tensors_of(file.checkpoint).items():
        assert file.checkpoint.shape(tensor_name) == tuple(tensor.shape) and file.checkpoint.dtype(tensor_name) == tensor.dtype
    assert set(file.checkpoint.metadata) == {"vc_core.config", "format"}


def test_the_digest_notices_a_single_bit():
    found = tensors_of(ModelFile.open("videocrafter_tiny_t2v").checkpoint)
    name = "model.diffusion_model.out.2.bias"
    changed = found[name].clone()
    changed.view(torch.int16)[0] ^= 1
    assert digest(found | {name: changed}) != RECORDED["videocrafter_tiny_t2v"][1]


def test_all_files_are_in_use_and_small():
    used = set(vc_core.bundled_models().values())
    for path in vc_core.bundled_models().values():
        with safe_open(path, "pt") as file:
            used |= {bundled.BUNDLED / "shared" / name for name in file.metadata()[bundled.SHARED_KEY].split()}
    used |= set(bundled.bundled_statistics().values())
    assert used == {path for path in bundled.BUNDLED.rglob("*") if path.is_file()}
    assert sum(path.stat().st_size for path in used) < 28_000_000


@pytest.mark.parametrize("name", RECORDED)
def test_converting_writes_an_ordinary_complete_file(name, tmp_path, capsys):
    target = tmp_path / "new.safetensors"
    assert main(["convert", name, str(target), "--dtype", "float16"]) == 0
    tensors, model = load_file(target), ModelFile.open(name)  # by the library alone
    added = {} if model.added is None else tensors_of(model.added)
    assert set(tensors) == {name for part in model.parts for name in model.names(part)} | set(added)
    assert all(torch.equal(tensor, added[name] if name in added else model.checkpoint.tensor(name)) for name, tensor in tensors.items())
    assert ModelFile.open(target).config == model.config and bundled.SHARED_KEY not in open_checkpoint(target).metadata
    assert main(["info", name]) == 0 and "text_encoder: 42 tensors" in capsys.readouterr().out


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_without_its_shared_parts_says_what_to_do(tmp_path, shared):
    """Copied away from the package, for example into ComfyUI's checkpoints."""
    source = next(iter((bundled.BUNDLED / "shared").iterdir())) if shared else vc_core.bundled_models()["videocrafter_tiny_t2v"]
    shutil.copy(source, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="only a part of a bundled model.*videocrafter_tiny_t2v.*vc_core convert NAME"):
        ModelFile.open(tmp_path / "model.safetensors")


def write(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    save_file(tensors, path, {"format": "pt", "vc_core.config": path.stem})
    return tensors


def test_models_are_bundled_and_read_back(tmp_path, monkeypatch):
    """Two of three models share their first part, none the second; tables of every kind, and tensors of any type."""
    draw = torch.Generator().manual_seed(0)
    table = torch.zeros(100, 3)
    table[[2, 50, 99]] = torch.randn(3, 3, generator=draw)
    first = {"one.table": table, "one.zero": torch.zeros(20, 4).half(), "one.n": torch.tensor(3)}
    first["one.weight"] = torch.randn(5, 5, generator=draw)
    models = {
        "a": first | {"two.weight": torch.randn(4, 4, generator=draw)},
        "b": first | {"two.weight": torch.randn(4, 4, generator=draw), "scale": torch.arange(5.0)},
        "c": first | {"one.n": torch.tensor(4), "two.weight": torch.full((30, 2), 1e-7).half(), "two.flags": torch.tensor([[True]])},
    }
    written = {name: write(tmp_path / f"{name}.safetensors", tensors) for name, tensors in models.items()}
    bundle([tmp_path / f"{name}.safetensors" for name in written], tmp_path / "bundled")
    assert len(list((tmp_path / "bundled" / "shared").iterdir())) == 1
    monkeypatch.setattr(bundled, "BUNDLED", tmp_path / "bundled")
    for name, path in vc_core.bundled_models().items():
        checkpoint = bundled.with_shared_parts(open_checkpoint(path))
        found = tensors_of(checkpoint)
        assert set(found) == set(written[name])
        for tensor_name, tensor in written[name].items():
            assert found[tensor_name].dtype == tensor.dtype and torch.equal(found[tensor_name], tensor), tensor_name
        assert checkpoint.metadata == {"format": "pt", "vc_core.config": name}
        convert(checkpoint, tmp_path / "again.safetensors", torch.float32)
        assert torch.equal(load_file(tmp_path / "again.safetensors")["one.table"], table)
    with safe_open(tmp_path / "bundled" / "a.safetensors", "pt") as file:
        assert set(file.keys()) == {"two.weight"}


def test_a_model_is_stored_as_its_changes(tmp_path, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    base = {"one.weight": torch.randn(5, 5, generator=draw), "one.bias": torch.randn(5, generator=draw), "two.weight": torch.ones(4)}
    changed = base | {"one.bias": torch.zeros(5), "one.new": torch.randn(3, generator=draw)}
    write(tmp_path / "base.safetensors", base)
    write(tmp_path / "changed.safetensors", changed)
    bundle([tmp_path / "base.safetensors"], tmp_path / "bundled")
    monkeypatch.setattr(bundled, "BUNDLED", tmp_path / "bundled")
    bundle_changes(tmp_path / "changed.safetensors", "base", tmp_path / "bundled")
    with safe_open(tmp_path / "bundled" / "changed.safetensors", "pt") as file:
        assert set(file.keys()) == {"one.bias", "one.new"}
    checkpoint = bundled.with_shared_parts(open_checkpoint(tmp_path / "bundled" / "changed.safetensors"))
    found = tensors_of(checkpoint)
    assert set(found) == set(changed) and all(torch.equal(found[name], tensor) for name, tensor in changed.items())
    assert checkpoint.metadata == {"format": "pt", "vc_core.config": "changed"}


def test_changes_need_a_bundled_base_whose_tensors_are_all_there(tmp_path):
    write(tmp_path / "other.safetensors", {"one.weight": torch.ones(2)})
    with pytest.raises(InputError, match="no bundled model nonsense.*videocrafter_tiny_t2v"):
        bundle_changes(tmp_path / "other.safetensors", "nonsense", tmp_path)
    with pytest.raises(InputError, match="lacks tensors of videocrafter_tiny_t2v"):
        bundle_changes(tmp_path / "other.safetensors", "videocrafter_tiny_t2v", tmp_path)
