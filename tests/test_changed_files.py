"""A model's file that is cut short or replaced while it is open gives an error, and never ends Python."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vc_core
from harness import goldens
from vc_core.checkpoint import CheckpointError, open_checkpoint
from vc_core.family.model_file import ModelFile
from vc_core.family.parts import PARTS
from vc_core.models.layers import LayerFactory


def write(path: Path, form: str) -> None:
    tensors = {f"layer.{i}": torch.full((1 << 20,), float(i + 1)) for i in range(4)}
    save_file(tensors, path) if form == "safetensors" else torch.save(tensors, path)


def cut(path: Path) -> None:
    os.truncate(path, 8192)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


@pytest.mark.parametrize("change", [cut, overwrite])
@pytest.mark.parametrize("form", ["zip", "safetensors"])
def test_a_file_that_changes_while_it_is_open(form, change, tmp_path):
    path = tmp_path / "model.ckpt"
    write(path, form)
    checkpoint = open_checkpoint(path)
    held = checkpoint.tensor("layer.0")
    os.utime(path, ns=(0, 0))  # so that clocks don't matter
    checkpoint = open_checkpoint(path)
    change(path)
    for name in checkpoint:
        with pytest.raises(CheckpointError, match="cut short or replaced while it was open. Load it again"):
            checkpoint.sound_tensor(name)
    assert held.eq(1).all(), "what was read before is a copy"


CRASH = """
import os, sys, vc_core
path = sys.argv[1]
model = vc_core.load(path)
os.truncate(path, 4096)
print(sum(float(weight.double().sum()) for weight in model.unet.parameters()))
"""


@pytest.mark.parametrize("form", ["ckpt", "safetensors"])
def test_a_loaded_model_outlives_its_file(form, tmp_path):
    path = goldens.write_checkpoint("t2v_512_v2", tmp_path / f"model.{form}")
    if form == "ckpt":
        torch.save(dict(goldens.weights("t2v_512_v2")), path)
    expected = sum(float(weight.double().sum()) for weight in vc_core.load(path).unet.parameters())
    ended = subprocess.run([sys.executable, "-c", CRASH, path], cwd=Path(vc_core.__file__).parents[1], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-500:]
    assert float(ended.stdout) == expected


def test_a_file_that_is_replaced_by_another_one_is_still_the_one_that_was_opened(tmp_path):
    write(tmp_path / "model.ckpt", "zip")
    checkpoint = open_checkpoint(tmp_path / "model.ckpt")
    write(tmp_path / "other.ckpt", "safetensors")
    os.replace(tmp_path / "other.ckpt", tmp_path / "model.ckpt")
    assert checkpoint.sound_tensor("layer.3").eq(4).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "model.ckpt")
    for path in (tmp_path / "model.ckpt", Path("/dev/zero")):
        with pytest.raises(CheckpointError, match="no plain file, but a pipe or a device"):
            open_checkpoint(path)


@pytest.mark.parametrize("positioned", [True, False])
def test_systems_without_positioned_reads(positioned, tmp_path, monkeypatch):
    """As Windows is; and pieces of a large tensor come in order."""
    monkeypatch.setattr("vc_core.checkpoint.filebytes._AT_ONCE", 1000)
    if not positioned:
        monkeypatch.delattr(os, "preadv", raising=False)
    tensors = {"a": torch.arange(5000.0), "b": torch.arange(700, dtype=torch.int16)}
    torch.save(tensors, tmp_path / "model.ckpt")
    save_file(tensors, tmp_path / "model.safetensors")
    for path in tmp_path.iterdir():
        assert all(torch.equal(open_checkpoint(path).sound_tensor(name), value) for name, value in tensors.items())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_processes_that_were_forked_read_each_their_own(tmp_path):
    write(tmp_path / "model.ckpt", "safetensors")
    checkpoint = open_checkpoint(tmp_path / "model.ckpt")
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            sound = all(checkpoint.tensor(f"layer.{number}").numpy().min() == number + 1 for _ in range(50))
            os._exit(0 if sound else 1)
        children.append(child)
    assert all(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)


def test_files_are_closed_with_their_checkpoints(tmp_path):
    write(tmp_path / "model.ckpt", "zip")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for _ in range(min(soft, 2048) + 10):
        open_checkpoint(tmp_path / "model.ckpt")


def test_weights_are_copied_into_a_network_one_by_one(tmp_path):
    """As ComfyUI's MODEL is filled, whose parameters have memory of their own and another type."""
    file = ModelFile.open(goldens.write_checkpoint("t2v_512_v2", tmp_path / "model.safetensors"))
    network = PARTS["unet"].build(file.config, LayerFactory(dtype=torch.bfloat16))
    file.load_into("unet", network)
    for name, weight in file.tensors("unet").items():
        assert torch.equal(network.state_dict()[name], weight.bfloat16())
