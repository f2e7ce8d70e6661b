"""Converting: the new file is exact to the bit, and appears complete or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vc_core.checkpoint import CheckpointError, convert, open_checkpoint
from vc_core.errors import FileWriteError
from vc_core.files import replacing


def example() -> dict[str, torch.Tensor]:
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    return {
        "count": torch.tensor(7),
        "scalar": torch.tensor(0.5),
        "flags": torch.tensor([True, False, True]),
        "weight": base,
        "transposed": base.T,
        "part": base[1:4, 2:7:2],
        "half": base.half(),
        "double": base.double(),
        "empty": torch.empty(0, 3),
        "expanded": base[:1].expand(5, 8),
    }


@pytest.fixture
def source(tmp_path) -> Path:
    torch.save({"state_dict": example()}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_every_tensor_is_its_cast_to_the_bit(tmp_path, dtype):
    torch.save(example(), tmp_path / "model.ckpt")
    report = convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors", dtype, config_text="unet: {ä: 1}\n")
    with safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "vc_core.config": "unet: {ä: 1}\n"}
        assert set(file.keys()) == set(example()) == set(report.names)
        for name, tensor in example().items():
            expected = tensor.to(dtype) if tensor.is_floating_point() else tensor
            found = file.get_tensor(name)
            assert found.dtype == expected.dtype and torch.equal(found, expected), name
    assert report.size == (tmp_path / "new.safetensors").stat().st_size
    assert report.dropped == () and report.target == tmp_path / "new.safetensors"
    assert open_checkpoint(report.target).names() == list(report.names)


def test_numbers_begin_at_multiples_of_their_size(tmp_path, source):
    report = convert(source, tmp_path / "new.safetensors", torch.float32)
    checkpoint = open_checkpoint(report.target)
    for name in checkpoint:
        tensor = checkpoint.tensor(name)
        assert not tensor.numel() or tensor.data_ptr() % tensor.element_size() == 0


@pytest.mark.parametrize("names", [lambda name: name.startswith("w"), ["weight"], iter(["weight"])])
def test_only_the_tensors_asked_for(tmp_path, source, names):
    report = convert(source, tmp_path / "new.safetensors", names=names)
    assert report.names == ("weight",) and set(report.dropped) == set(example()) - {"weight"}
    assert open_checkpoint(report.target).names() == ["weight"]


def test_names_that_are_not_there(tmp_path, source):
    with pytest.raises(CheckpointError, match="1 of the 2 requested tensors.*wieght"):
        convert(source, tmp_path / "new.safetensors", names=["weight", "wieght"])
    with pytest.raises(CheckpointError, match="none of its 10 tensors is selected"):
        convert(source, tmp_path / "new.safetensors", names=lambda name: False)
    assert leftovers(tmp_path) == {"model.ckpt"}


def test_converted_again_the_metadata_stay(tmp_path, source):
    convert(source, tmp_path / "a.safetensors", torch.float32, config_text="a")
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert open_checkpoint(tmp_path / "b.safetensors").metadata == {"format": "pt", "vc_core.config": "a"}
    assert torch.equal(open_checkpoint(tmp_path / "b.safetensors").tensor("weight"), example()["weight"].half())


def test_the_order_of_names_and_of_the_source_does_not_matter(tmp_path, source):
    torch.save(dict(reversed(example().items())), tmp_path / "reversed.ckpt")
    names = [name for name in example() if name != "half"]
    for index, (path, chosen) in enumerate([(source, names), (source, names[::-1]), (tmp_path / "reversed.ckpt", names)]):
        convert(path, tmp_path / f"{index}.safetensors", names=chosen)
    contents = {(tmp_path / f"{index}.safetensors").read_bytes() for index in range(3)}
    assert len(contents) == 1


def test_progress_counts_the_bytes_of_the_tensors(tmp_path, source):
    seen: list[tuple[int, int]] = []
    report = convert(source, tmp_path / "new.safetensors", progress=lambda done, total: seen.append((done, total)))
    size = sum(tensor.numel() * (2 if tensor.is_floating_point() else tensor.element_size()) for tensor in example().values())
    done = [step[0] for step in seen]
    assert len(seen) == len(report.names) and done == sorted(done)
    assert seen[-1] == (size, size) and {total for _, total in seen} == {size}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("there", [True, False], ids=["old file", "no old file"])
@pytest.mark.parametrize("writing", [True, False], ids=["writing", "reading"])
def test_interrupted_it_leaves_what_was_there(tmp_path, source, error, there, writing, monkeypatch):
    target = tmp_path / "new.safetensors"
    if there:
        target.write_bytes(b"the old file")
    parts = []

    def interrupted_save(tensors, path, metadata):
        save_file({"a": torch.ones(100)}, path)  # a part of it
        parts.extend(leftovers(tmp_path) - {"model.ckpt", "new.safetensors"})
        raise error

    def interrupt(done: int, total: int) -> None:
        if done > total // 2 and not writing:
            raise error

    if writing:
        monkeypatch.setattr(sys.modules["vc_core.checkpoint.convert"], "save_file", interrupted_save)
    with pytest.raises(error):
        convert(source, target, progress=interrupt)
    assert bool(parts) == writing, "the file is written beside the target first"
    assert leftovers(tmp_path) == ({"model.ckpt", "new.safetensors"} if there else {"model.ckpt"})
    assert not there or target.read_bytes() == b"the old file"


KILLED = """
import os, signal, sys
from vc_core.checkpoint import convert
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)  # the new file is written, but not yet in its place
convert(*sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_killed_it_leaves_the_old_file_and_goes_through_the_next_time(tmp_path, source):
    target = tmp_path / "new.safetensors"
    target.write_bytes(b"the old file")
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", KILLED, source, target], cwd=root, check=False).returncode < 0
    assert target.read_bytes() == b"the old file" and len(leftovers(tmp_path)) == 3
    convert(source, target)
    assert open_checkpoint(target).names()


LIMITED = """
import resource, sys
from vc_core.checkpoint import convert
from vc_core.errors import FileWriteError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    convert(*sys.argv[1:])
except FileWriteError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path):
    """A limit on files' size stands in for the disk: the system refuses to write on in the middle of the file."""
    torch.save({"large": torch.ones(1 << 20)}, tmp_path / "model.ckpt")
    (tmp_path / "new.safetensors").write_bytes(b"the old file")
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", LIMITED, tmp_path / "model.ckpt", tmp_path / "new.safetensors"]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    assert "can't be written" in output and "File too large" in output and "nothing was changed" in output
    assert leftovers(tmp_path) == {"model.ckpt", "new.safetensors"}
    assert (tmp_path / "new.safetensors").read_bytes() == b"the old file"


def test_too_little_room_is_said_before_the_start(tmp_path, source, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(CheckpointError, match="the disk has 100 left"):
        convert(source, tmp_path / "new.safetensors")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_the_new_file_has_ordinary_permissions(tmp_path, source):
    (tmp_path / "plain").touch()
    report = convert(source, tmp_path / "new.safetensors")
    assert stat.S_IMODE(report.target.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_targets_that_can_not_be(tmp_path, source):
    convert(source, tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "a.safetensors")
    for same in ("a.safetensors", "link.safetensors"):
        with pytest.raises(CheckpointError, match="the file to convert itself"):
            convert(tmp_path / "a.safetensors", tmp_path / same)
    with pytest.raises(CheckpointError, match="must end in .safetensors"):
        convert(source, tmp_path / "new.ckpt")
    with pytest.raises(CheckpointError, match="there is no folder"):
        convert(source, tmp_path / "nowhere" / "new.safetensors")
    with pytest.raises(CheckpointError, match="float64; possible are float16"):
        convert(source, tmp_path / "new.safetensors", torch.float64)
    assert (tmp_path / "a.safetensors").read_bytes() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_nan_and_infinity_in_the_source(tmp_path, value, dtype):
    torch.save({"sound": torch.ones(4), "broken.weight": torch.tensor([1.0, value, 2.0])}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="'broken.weight' has 1 numbers of 3 that are NaN or infinite"):
        convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors", dtype)
    assert leftovers(tmp_path) == {"model.ckpt"}


def test_numbers_too_large_for_the_type(tmp_path):
    torch.save({"large": torch.tensor([65504.0, -65536.0])}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="'large' has the number 65536.*whose largest is 65504.*--dtype bfloat16 or float32"):
        convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors")
    convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors", torch.bfloat16)
    torch.save({"larger": torch.tensor([3.4e38])}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="too large for bfloat16.*--dtype float32"):
        convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors", torch.bfloat16)


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    torch.save({"good": torch.ones(16), "bad": torch.full((16,), 3.0)}, tmp_path / "model.ckpt")
    raw = bytearray((tmp_path / "model.ckpt").read_bytes())
    raw[raw.index(torch.full((4,), 3.0).numpy().tobytes()) + 9] ^= 1
    (tmp_path / "model.ckpt").write_bytes(raw)
    with pytest.raises(CheckpointError, match="'bad' does not have the checksum"):
        convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors", torch.float32)
    convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors", torch.float32, names=["good"])


@pytest.mark.parametrize("name, dtype", [("\udc80", torch.float32), ("__metadata__", torch.float32), ("a", torch.complex128)])
def test_tensors_that_the_format_can_not_hold(tmp_path, name, dtype):
    torch.save({name: torch.ones(1, dtype=dtype)}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="can't be stored in a .safetensors file"):
        convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors")
    assert leftovers(tmp_path) == {"model.ckpt"}


MEASURE = """
import sys
from pathlib import Path
from vc_core.checkpoint import convert

def highest():  # MB that this process ever had in memory
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) >> 10

before = highest()
convert(*sys.argv[1:])
print(highest() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say how much memory is in use")
def test_memory_is_at_most_the_sources_mapping_and_twice_the_new_file(tmp_path):
    torch.save({str(i): torch.full((2 << 20,), float(i)) for i in range(16)}, tmp_path / "model.ckpt")  # 128 MB, as float16 64 MB
    command = [sys.executable, "-c", MEASURE, tmp_path / "model.ckpt", tmp_path / "new.safetensors"]
    root = Path(__file__).resolve().parents[1]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    assert 64 <= int(output) <= 128 + 2 * 64 + 20


# The helper that convert and others write with.


def test_replacing_a_file(tmp_path):
    target = tmp_path / "file"
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists() and temporary.parent.parent == tmp_path and temporary.name == target.name
    assert target.read_text() == "new" and leftovers(tmp_path) == {"file"}
    with pytest.raises(KeyError), replacing(target) as temporary:
        temporary.write_text("newer")
        raise KeyError
    assert target.read_text() == "new" and leftovers(tmp_path) == {"file"}


def test_replacing_says_why_a_file_can_not_be_written(tmp_path):
    missing = tmp_path / "none" / "file"
    with pytest.raises(FileWriteError, match=f"{missing}: can't be written.*No such file.*nothing was changed"), replacing(missing):
        pytest.fail("there is no folder to write in")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileWriteError, match="can't be written"), replacing(tmp_path / "folder"):
        pass
    assert leftovers(tmp_path) == {"folder"}
