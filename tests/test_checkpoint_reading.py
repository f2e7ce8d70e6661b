"""Reading: every published layout gives the same tensors, lazily; other files are refused with what they are."""

from __future__ import annotations

import enum
import subprocess
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from harness.comfyui import REPOSITORY
from vc_core.checkpoint import Checkpoint, CheckpointError, open_checkpoint


@pytest.fixture
def save(tmp_path):
    """Saves an object with torch.save."""

    def write(content) -> Path:
        torch.save(content, tmp_path / "model.ckpt")
        return tmp_path / "model.ckpt"

    return write


def example() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=draw)
    return {
        "z.weight": base,
        "a.transposed": base.T,
        "b.part": base[1:4, 2:7:2],
        "c.half": base.half(),
        "d.bfloat": base.bfloat16(),
        "e.count": torch.tensor(7),
        "f.empty": torch.empty(0, 3),
        "g.flags": torch.tensor([True, False]),
        "h.double": base[:2].double(),
        "i.expanded": base[:1].expand(5, 8),
        "j.bytes": torch.arange(3, dtype=torch.uint8),
        "k.weight": base.flip(0).contiguous(),
        "l.parameter": torch.nn.Parameter(base.clone()),
    }


def assert_holds(checkpoint: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    assert checkpoint.names() == list(expected) == list(checkpoint)
    assert len(checkpoint) == len(expected)
    for name, tensor in expected.items():
        found = checkpoint.tensor(name)
        assert name in checkpoint
        assert type(found) is torch.Tensor and not found.requires_grad
        assert checkpoint.shape(name) == tuple(tensor.shape) == tuple(found.shape)
        assert checkpoint.dtype(name) == tensor.dtype == found.dtype
        assert torch.equal(found, tensor.detach()), name
        assert not found.numel() or found.data_ptr() % found.element_size() == 0
        checkpoint.verify(name)


def test_bare_tensors(save):
    assert_holds(open_checkpoint(save(example())), example())


def test_tensors_under_state_dict_hide_others(save):
    content = {"epoch": 3, "other": torch.ones(2), "state_dict": OrderedDict(example())}
    assert_holds(open_checkpoint(save(content)), example())


def test_tensors_under_module_lose_their_prefix(save):
    content = {"module": {"_forward_module." + name: tensor for name, tensor in example().items()}, "step": 1}
    assert_holds(open_checkpoint(save(content)), example())


def test_module_without_a_common_prefix_keeps_its_names(save):
    assert_holds(open_checkpoint(save({"module": example()})), example())


def test_state_dict_of_a_real_module_with_its_metadata(save):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    assert_holds(open_checkpoint(save({"state_dict": module.state_dict()})), dict(module.state_dict()))


def test_only_text_names_and_tensors_count(save):
    content = {"weight": torch.ones(2), 5: torch.ones(2), "steps": 4, "names": ["x"], "size": torch.Size([1, 2])}
    assert_holds(open_checkpoint(save(content)), {"weight": torch.ones(2)})


def test_tensor_subclasses_and_attributes_come_plain(save):
    tensor = torch.arange(4.0)
    tensor.note = "kept beside the numbers"
    assert_holds(open_checkpoint(save({"weight": tensor})), {"weight": torch.arange(4.0)})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16, torch.complex64], ids=str)
def test_rarer_types(tmp_path, dtype):
    tensor = torch.arange(6.0).to(dtype)[1:5]
    torch.save({"weight": tensor}, tmp_path / "a.pt")
    found = open_checkpoint(tmp_path / "a.pt").tensor("weight")
    assert found.dtype == dtype and found.shape == tensor.shape
    assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


def test_parts_of_a_storage_are_read_alone(tmp_path):
    base = torch.arange(10.0)
    torch.save({"all": base, "tail": base[5:], "twos": base[2:9:2]}, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    assert torch.equal(checkpoint.tensor("tail"), base[5:]) and checkpoint.tensor("tail").untyped_storage().nbytes() == 5 * 4
    assert checkpoint.sound_tensor("twos").tolist() == [2, 4, 6, 8]


def test_the_file_is_told_by_its_bytes_and_any_name_will_do(tmp_path):
    torch.save(example(), tmp_path / "größe é: 模型.safetensors")
    assert_holds(open_checkpoint(tmp_path / "größe é: 模型.safetensors"), example())
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    save_file(tensors, tmp_path / "model.ckpt")
    assert set(open_checkpoint(str(tmp_path / "model.ckpt"))) == {"a", "b"}


def test_lightning_checkpoint_loads_by_its_tensors_alone(save, monkeypatch):
    """Callbacks, hyper-parameters and optimizer states are of classes that are not even there when the file is read."""
    module = types.ModuleType("fabled_lightning")
    imported = []

    class Callback:
        def __init__(self):
            self.best, self.shapes, self.scores = Path("best.ckpt"), {(1, 2): {3}}, frozenset([1.0])

        def __setstate__(self, state):
            imported.append("callback")

    class Config(dict):
        def __reduce__(self):
            return (Config, (), {"flags": None}, None, iter([("lr", 1e-4)]))

    class Mode(enum.Enum):
        MIN = "min"

    Callback.Inner = type("Inner", (), {"__module__": module.__name__, "__qualname__": "Callback.Inner"})
    for kind in (Callback, Config, Mode):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    weight = torch.nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    content = {
        "epoch": 1,
        "pytorch-lightning_version": "1.9.3",
        "callbacks": {Callback: Callback(), Mode.MIN: Callback.Inner, "best": [Callback(), Callback.Inner()]},
        "hyper_parameters": Config(lr=1e-4),
        "optimizer_states": [optimizer.state_dict()],
        "loops": defaultdict(list, fit=[{"done": b"\x00\xff", "rng": __import__("numpy").random.get_state()}]),
        "lr_schedulers": [{"call": weight.detach().numpy()[0, 0], "method": [1].append}],
        "state_dict": OrderedDict(weight=weight),
    }
    path = save(content)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert_holds(open_checkpoint(path), {"weight": weight})
    assert module.__name__ not in sys.modules and not imported


#: In a process of its own, whose memory no other test has used before.
RESIDENT = """
import sys, torch
from pathlib import Path
from vc_core.checkpoint import open_checkpoint
def resident_megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) >> 10
before = resident_megabytes()
checkpoint = open_checkpoint(Path(sys.argv[1]))
assert checkpoint.shape("large") == (24 << 20,)
assert checkpoint.tensor("small").tolist() == [1, 1, 1]
assert resident_megabytes() - before < 24
large = checkpoint.sound_tensor("large")
assert resident_megabytes() - before < 120, "the tensor is in memory once"
assert large.sum() == 24 << 20
assert resident_megabytes() - before > 72, "the measure itself must be able to see 96 MB"
"""


@pytest.mark.parametrize(("suffix", "write"), [(".ckpt", torch.save), (".safetensors", save_file)])
def test_opening_and_reading_touch_only_what_is_asked_for(tmp_path, suffix, write):
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say how much memory is in use")
    path = tmp_path / f"a{suffix}"
    write({"small": torch.ones(3), "large": torch.ones(24 << 20)}, path)  # 96 MB
    done = subprocess.run([sys.executable, "-c", RESIDENT, path], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "a.ckpt")
    open_checkpoint(tmp_path / "a.ckpt").tensor("a").zero_()
    assert open_checkpoint(tmp_path / "a.ckpt").tensor("a").tolist() == [1, 1, 1]


def test_safetensors_with_metadata(tmp_path):
    tensors = {"b": torch.ones(2), "a": torch.arange(3), "c.h": torch.ones(2, 2).half(), "0": torch.tensor(1.5)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"vc_core.config": "unet: {}"})
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.metadata == {"vc_core.config": "unet: {}"}
    assert_holds(checkpoint, {name: tensors[name] for name in sorted(tensors)})


def test_wrapped_safetensors_lose_their_prefix(tmp_path):
    save_file({"_forward_module.a": torch.ones(2), "_forward_module.b": torch.ones(1)}, tmp_path / "a.safetensors")
    assert set(open_checkpoint(tmp_path / "a.safetensors")) == {"a", "b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull"),
        (b'{"error": "not found"}', "JSON"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"\x1f\x8b\x08\x00", "Unpack it"),
        (b"\0" * 600, "zeros"),
        (b"\x89PNG\r\n\x1a\n", "possible are .safetensors, and .ckpt"),
        (b"\x80\x04N.", "not one that torch.save wrote"),
        (b"PK\x03\x04" + b"\0" * 100, "cut short"),
        ((60).to_bytes(8, "little") + b'{"a":', "damaged or cut short"),
        ((8).to_bytes(8, "little") + b'{"a": 12', "damaged or cut short"),
        ((200_000).to_bytes(8, "little") + b'{"a":' + b"[" * 199_995, "damaged or cut short"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, content, message):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no tensors"),
        ({"epoch": 3, "nets": {"a": torch.ones(1)}}, r"'nets' \(with 1 tensors\)"),
        (torch.ones(3), "without a name"),
        ([torch.ones(3)], "a list"),
        (torch.nn.Linear(2, 2), "whole Python object .*Linear"),
        ({"a": torch.ones(2).to_sparse()}, "sparse"),
    ],
)
def test_files_without_named_tensors(save, content, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(save(content))


def test_missing_files_and_folders(tmp_path):
    torch.save(example(), tmp_path / "VideoCrafter2_model.ckpt")
    with pytest.raises(CheckpointError, match="no such file.*VideoCrafter2_model.ckpt"):
        open_checkpoint(tmp_path / "videocrafter2-model.safetensors")
    with pytest.raises(CheckpointError, match="nor is there a folder"):
        open_checkpoint(tmp_path / "models" / "a.ckpt")
    with pytest.raises(CheckpointError, match="a folder.*VideoCrafter2_model.ckpt"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no tensor 'z.wieght'.*z.weight"):
        open_checkpoint(tmp_path / "VideoCrafter2_model.ckpt").tensor("z.wieght")


def safetensors(path: Path, header: str, data: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    return path


@pytest.mark.parametrize("second", ["F32", "I32"])
def test_safetensors_with_a_name_twice(tmp_path, second):
    """The library itself takes the last one."""
    first, last = (f'"a":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,4]}}' for dtype in ("F32", second))
    path = safetensors(tmp_path / "a.safetensors", f"{{{first},{last}}}", bytes(4))
    assert safe_open(path, "pt").keys() == ["a"]
    with pytest.raises(CheckpointError, match="'a' twice"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        ('{"dtype":"F32","shape":[2],"data_offsets":[0,8]}', 7),
        ('{"dtype":"F32","shape":[2],"data_offsets":[0,8]}', 9),
        ('{"dtype":"F32","shape":[2],"data_offsets":[4,12]}', 12),
        ('{"dtype":"F32","shape":[3],"data_offsets":[0,8]}', 8),
        ('{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}', 8),
        ('{"dtype":"F32","shape":[2],"data_offsets":[8,0]}', 8),
        ('{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}', 0),
        ('{"dtype":"F32","shape":[2]}', 8),
        ('{"dtype":"X32","shape":[2],"data_offsets":[0,8]}', 8),
        ("12", 8),
    ],
)
def test_safetensors_with_a_wrong_header(tmp_path, entry, size):
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        open_checkpoint(safetensors(tmp_path / "a.safetensors", f'{{"a":{entry}}}', bytes(size)))
