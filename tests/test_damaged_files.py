"""Damaged and lying files: each ends in a CheckpointError that says so, none in a hang or a crash."""

from __future__ import annotations

import io
import pickle
import random
import struct
import sys
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.hostile import in_zip, members, record, refusal, text, zipped
from vc_core.checkpoint import CheckpointError, open_checkpoint

# Storages and tensors that are not what the file says.


def test_the_sound_record_is_read(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(in_zip(record()))
    assert open_checkpoint(tmp_path / "model.ckpt").tensor("a").tolist() == [0.0] * 4


def test_a_storage_that_is_not_aligned_is_read(tmp_path):
    """torch.save pads its zips; packed again by another program, a storage can begin at an odd byte."""
    values = torch.arange(4.0)
    for padding in range(4):
        content = members(("archive/data.pkl", record()), ("archive/pad", bytes(padding)), ("archive/data/0", values.numpy().tobytes()))
        (tmp_path / "model.ckpt").write_bytes(content)
        found = open_checkpoint(tmp_path / "model.ckpt").tensor("a")
        assert torch.equal(found, values) and found.data_ptr() % 4 == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"numel": 5, "shape": (5,)}, "20 bytes, but the file has 16"),
        ({"numel": 2**62, "shape": (2**62,)}, "bytes, but the file has 16"),
        ({"numel": -1}, "has -1 numbers"),
        ({"shape": (5,)}, "reaches to number 4"),
        ({"offset": 1}, "reaches to number 4"),
        ({"offset": -1}, "offset -1"),
        ({"offset": 2**70}, "offset 1180591620717411303424"),
        ({"stride": (2,)}, "reaches to number 6"),
        ({"stride": (-1,)}, r"strides \(-1,\)"),
        ({"stride": (1, 1)}, "1 dimensions and 2 strides"),
        ({"shape": (-4,)}, r"shape \(-4,\)"),
        ({"shape": (2.0,)}, "shape"),
        ({"shape": "4"}, "not lists of numbers"),
        ({"shape": (2**40,), "stride": (0,)}, "repeated out of the 4"),
        ({"shape": (0,), "offset": 5}, "reaches to number 4"),
        ({"shape": (1,) * 65, "stride": (1,) * 65}, "65 dimensions"),
        ({"key": "1"}, "not in the file"),
        ({"key": "../data.pkl"}, "not in the file"),
        ({"kind": "QInt8Storage"}, "QInt8Storage; possible are"),
    ],
    ids=str,
)
def test_numbers_that_do_not_fit(tmp_path, wrong, message):
    refusal(tmp_path / "model.ckpt", in_zip(record(**wrong)), message)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02Q.", "can't be read"),
        (b"\x80\x02NQ.", "no storage"),
        (b"\x80\x02Pabc\n.", "PERSID"),
        (b"\x80\x02" + text("module") + b"NNN(tQ.", "no storage"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x06N.", "protocol is 6"),
        (b"\x80\x02}(" + text("a") + b"N" + text("a") + b"Nu.", "'a' twice"),
        (b"\x80\x02}" + text("a"), "can't be read|end mark"),
        (b"\x80\x02.", "can't be read"),
        (b"\x80\x02h\x07.", "can't be read"),
        (b"\x80\x02t.", "can't be read"),
        (b"\x80\x02NK\x01\x86b.", "can't be read"),
        (b"\x80\x04\x8d" + b"\xff" * 8 + b"a.", "can't be read"),
        (b"\x80\x02ccollections\nOrderedDict\nNR.", "damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))I00\nNtR.", "not a storage"),
    ],
)
def test_pickles_that_make_no_sense(tmp_path, pickled, message):
    refusal(tmp_path / "model.ckpt", zipped(pickled), message)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02" + b"]" * 190_000 + b"a" * 189_999 + b".",
        b"\x80\x02" + b"(" * 190_000 + b"t" * 190_000 + b".",
        b"\x80\x02)" + b"2\x86" * 5_000 + b"}" + b"q\x000h\x00" + b")" + b"2\x86" * 64 + b"Ns.",
        b"\x80\x02]q\x00" + b"h\x00a" * 10_000 + b".",
    ],
    ids=["deep list", "deep tuple", "doubling key", "endless list"],
)
def test_pickles_meant_to_hang_or_crash(tmp_path, pickled):
    start = time.monotonic()
    refusal(tmp_path / "model.ckpt", zipped(pickled), "no tensors|not tensors")
    assert time.monotonic() - start < 20


DOUBLED = b")" + b"2\x86" * 60  # a tuple of itself twice, sixty times: its text would have 2**60 parts
NESTED = b")" + b"\x85" * 100_000
HUGE = b"\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000  # a number of 240,000 digits
STORED = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n("


@pytest.mark.parametrize(
    "pickled",
    [
        *(b"\x80\x02" + value + b"Q." for value in (DOUBLED, NESTED, HUGE)),
        *(b"\x80\x02" + value + b")R." for value in (DOUBLED, NESTED, HUGE)),
        *(b"\x80\x02cbuiltins\ngetattr\n" + value + text("__init__") + b"\x86R." for value in (DOUBLED, NESTED, HUGE)),
        *(b"\x80\x02cbuiltins\ngetattr\n" + text("a") + value + b"\x86R." for value in (DOUBLED, NESTED, HUGE)),
        *(b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n(NNNNNN" + value + b"tR." for value in (DOUBLED, NESTED, HUGE)),
        *(b"\x80\x02" + REBUILD + STORED + b"K\x00" + value + b"\x85)I00\nNtR." for value in (DOUBLED, NESTED, HUGE)),
        *(b"\x80\x02" + REBUILD + STORED + value + b"K\x04\x85K\x01\x85I00\nNtR." for value in (DOUBLED, NESTED, HUGE)),
        b"\x80\x02" + REBUILD + STORED + b"K\x00(" + HUGE + b"q\x00" + b"h\x00" * 63 + b"t(" + b"h\x00" * 64 + b"tI00\nNtR.",
        b"\x80\x02" + STORED.replace(b"K\x04t", HUGE + b"t") + b".",
        b"\x80\x02}(" + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(60_000)) + b"u.",
        b"\x80\x02](" + b"]" * 1000 + b"e" + b"q\x00" + b"ctorch\nSize\nh\x00\x85R0" * 50_000 + b".",
    ],
)
def test_values_whose_text_or_sums_have_no_end(tmp_path, pickled):
    start = time.monotonic()
    refusal(tmp_path / "model.ckpt", in_zip(pickled), "refused|damaged|no tensors|not tensors|has the type")
    assert time.monotonic() - start < 20


def test_dictionaries_out_of_one_list_without_end(tmp_path):
    """Each of these would have been of a thousand entries, and there are ten thousand."""
    pairs = b"](" + b"".join(text(f"name {i}") + b"N\x86" for i in range(1000)) + b"eq\x000"
    copies = b"](" + b"ccollections\nOrderedDict\nh\x00\x85R" * 10_000 + b"e."
    tracemalloc.start()
    try:
        refusal(tmp_path / "model.ckpt", zipped(b"\x80\x02" + pairs + copies), "not tensors")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_more_steps_than_any_checkpoint_takes(tmp_path, monkeypatch):
    monkeypatch.setattr("vc_core.checkpoint.unpickling.MAX_OPCODES", 1000)
    refusal(tmp_path / "model.ckpt", zipped(b"\x80\x02" + b"]" * 1001 + b"."), "more than 1000 steps")


def test_messages_have_no_control_characters(tmp_path):
    """A terminal would obey them, and lone surrogates can't be printed at all."""
    for pickled in (b"\x80\x02cos\nsys\x1b[2Jtem\n)R.", b"\x80\x02cinnocent\n\xed\xb2\x80\x1b[2J\n)R."):
        path = tmp_path / "model.ckpt"
        path.write_bytes(zipped(pickled))
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path)
        assert str(caught.value).isprintable()


@pytest.mark.full
def test_many_names_for_one_large_dictionary(tmp_path):
    shared: dict[str, int] = {str(i): i for i in range(20_000)}
    refusal(tmp_path / "model.ckpt", zipped(pickle.dumps({str(i): shared for i in range(20_000)}, 2)), "no tensors")


# Zips that are not torch.save's.


PKL = ("archive/data.pkl", record())
DATA = ("archive/data/0", bytes(16))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (members(PKL, PKL, DATA), "'archive/data.pkl' twice"),
        (members(PKL, DATA, DATA), "'archive/data/0' twice"),
        (members(PKL, ("other/data.pkl", record()), DATA), "2 pickles"),
        (members(PKL, ("archive/other.PKL", b""), DATA), "2 pickles"),
        (members(PKL, DATA, ("archive/code/model.py", b"")), "TorchScript"),
        (members(("archive/readme.txt", b"hello"), DATA), "no data.pkl"),
        (members(PKL, ("/etc/passwd", b""), DATA), "points out"),
        (members(PKL, ("../../evil", b""), DATA), "points out"),
        (members(PKL, ("archive/../../evil", b""), DATA), "points out"),
        (members(PKL, ("archive\\evil", b""), DATA), "points out"),
        (members(PKL, ("C:/evil", b""), DATA), "points out"),
        (members(PKL, DATA).replace(b"archive/data/0", b"archive/data/\0"), "points out"),
        (zipped(record(), {"archive/data/0": bytes(50_000_000)}, zipfile.ZIP_DEFLATED), "compressed"),
        (zipped(record(), {"archive/data/0": bytes(50_000_000)}, zipfile.ZIP_LZMA), "compressed"),
        (members(PKL, DATA, ("archive/byteorder", b"big" if sys.byteorder == "little" else b"little")), "-endian"),
    ],
)
def test_zips_that_torch_never_writes(tmp_path, content, message):
    refusal(tmp_path / "model.ckpt", content, message)


def patched(content: bytes, name: bytes, field: int, value: bytes) -> bytes:
    """Overwrites a field of a member's entry in the zip's directory."""
    entry = content.rindex(name) - 46
    assert content[entry : entry + 4] == b"PK\x01\x02"
    return content[: entry + field] + value + content[entry + field + len(value) :]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (20, struct.pack("<II", 10**6, 10**6), "not where the directory says"),
        (24, struct.pack("<I", 10**9), "compressed"),
        (42, struct.pack("<I", 0), "not where the directory says"),
        (42, struct.pack("<I", 10**9), "not where the directory says"),
        (8, struct.pack("<H", 1), "encrypted"),
    ],
)
def test_zips_whose_directory_lies(tmp_path, field, value, message):
    refusal(tmp_path / "model.ckpt", patched(members(PKL, DATA), b"archive/data/0", field, value), message)


@pytest.mark.parametrize("broken", [b"PK\x03\x05", b"PK\x01\x02"])
def test_members_without_a_header_of_their_own(tmp_path, broken):
    content = members(PKL, DATA)
    at = content.index(b"PK\x03\x04", 4)
    refusal(tmp_path / "model.ckpt", content[:at] + broken + content[at + 4 :], "not where the directory says")


def test_members_with_two_names(tmp_path):
    content = members(PKL, DATA).replace(b"archive/data/0", b"archive/data/1", 1)
    refusal(tmp_path / "model.ckpt", content, "not where the directory says")


def test_overlapping_members(tmp_path):
    inner = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 14, 0) + b"archive/data/1" + bytes(16)
    content = members(PKL, ("archive/data/0", inner), ("archive/data/1", bytes(16)))
    content = patched(content, b"archive/data/1", 42, struct.pack("<I", content.index(inner)))
    refusal(tmp_path / "model.ckpt", content, "overlaps")


def test_old_tar_files(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    refusal(tmp_path / "model.ckpt", buffer.getvalue(), "tar archive")


@pytest.mark.parametrize("wrapped", [False, True])
def test_files_older_than_torch_1_6_are_refused_with_the_remedy(tmp_path, wrapped):
    tensors = {"weight": torch.arange(4.0)}
    torch.save({"state_dict": tensors} if wrapped else tensors, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    remedy = "before torch 1.6.*open it with a recent torch and save it again"
    refusal(tmp_path / "model.ckpt", (tmp_path / "old.ckpt").read_bytes(), remedy)
    torch.save(torch.load(tmp_path / "old.ckpt", map_location="cpu", weights_only=True), tmp_path / "new.ckpt")  # as the message says
    assert torch.equal(open_checkpoint(tmp_path / "new.ckpt").tensor("weight"), tensors["weight"])


# Random damage. In a zip, a checksum covers the description and each storage, so that damage there must be found.


def genuine(path: Path, form: str) -> dict[str, torch.Tensor]:
    """Save three tensors in a file."""
    draw = torch.Generator().manual_seed(0)
    tensors = {f"block.{i}.weight": torch.randn(3, 4, generator=draw) for i in range(3)}
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 1}, path)
    return tensors


def read_all(path: Path) -> dict[str, torch.Tensor] | None:
    """Every tensor of a file after a check of its checksum; None where the file or a tensor is refused."""
    try:
        checkpoint = open_checkpoint(path)
        found = {}
        for name in checkpoint:
            checkpoint.verify(name)
            found[name] = checkpoint.tensor(name).clone()
            assert tuple(found[name].shape) == checkpoint.shape(name)
    except CheckpointError as error:
        assert str(path) in str(error)
        return None
    return found


@pytest.mark.parametrize("form", ["zip", "safetensors"])
def test_cut_short_anywhere(tmp_path, form):
    path = tmp_path / "model.ckpt"
    genuine(path, form)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


def test_every_flipped_bit_that_a_checksum_covers_is_found(tmp_path):
    """One flipped bit in each byte of the three tensors and of the description."""
    path = tmp_path / "model.ckpt"
    tensors = genuine(path, "zip")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("model/data.pkl")
    covered = {name: range(at := content.index(tensor.numpy().tobytes()), at + 48) for name, tensor in tensors.items()}
    start = content.index(pickled)
    draw, found = random.Random(0), 0
    for name, places in covered.items():
        for place in places:
            broken = bytearray(content)
            broken[place] ^= 1 << draw.randrange(8)
            path.write_bytes(broken)
            checkpoint = open_checkpoint(path)
            with pytest.raises(CheckpointError, match=f"'{name}' does not have the checksum"):
                checkpoint.sound_tensor(name)
            for other in set(tensors) - {name}:
                assert torch.equal(checkpoint.sound_tensor(other), tensors[other])
            found += 1
    for place in range(start, start + len(pickled)):
        broken = bytearray(content)
        broken[place] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match="its description does not have the checksum"):
            open_checkpoint(path)
        found += 1
    assert found == 3 * 48 + len(pickled) > 400


@pytest.mark.parametrize("form", ["zip", "safetensors"])
def test_flipped_bits_anywhere(tmp_path, form):
    """A zip is refused, or its tensors are right. A safetensors file has no checksums: there, damaged values can pass."""
    path = tmp_path / "model.ckpt"
    tensors, draw = genuine(path, form), random.Random(0)
    content = path.read_bytes()
    refused = 0
    for _ in range(600):
        broken = bytearray(content)
        for _ in range(draw.choice((1, 1, 4))):
            broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        found = read_all(path)
        refused += found is None
        if form == "zip" and found is not None:
            assert set(found) == set(tensors) and all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert refused >= 100, f"{refused} of 600 were refused"


def test_opcodes_at_random(tmp_path):
    """Pickles put together from genuine pieces in the wrong order."""
    draw = random.Random(1)
    pieces = [bytes([code]) for code in b"()]}.0123NaebsutlodRQ\x81\x85\x86\x87\x88\x90\x91\x93\x94"]
    pieces += [text("state_dict"), b"K\x01", b"q\x00", b"h\x00", b"ctorch._utils\n_rebuild_tensor_v2\n"]
    pieces += [b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"cbuiltins\ngetattr\n", b"iinnocent\nTrap\n"]
    pieces.append(record()[2:-1])
    for _ in range(1500):
        pickled = b"\x80\x02" + b"".join(draw.choices(pieces, k=draw.randrange(2, 30))) + b"."
        (tmp_path / "model.ckpt").write_bytes(in_zip(pickled))
        found = read_all(tmp_path / "model.ckpt")
        # The storage of this zip holds zeros, so whatever is read must be zeros too.
        assert found is None or not any(tensor.any() for tensor in found.values())
