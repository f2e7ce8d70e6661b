"""Files that are broken, or lie about themselves: each ends in a CheckpointError that says so, none in a hang or a crash."""

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

from harness.hostile import in_legacy, in_zip, legacy, members, record, refusal, text, zipped
from vc_core.checkpoint import CheckpointError, open_checkpoint

# Storages and tensors that are not what they say.


def test_the_sound_record_is_read(tmp_path):
    for content in (in_zip(record()), in_legacy(record())):
        (tmp_path / "model.ckpt").write_bytes(content)
        assert open_checkpoint(tmp_path / "model.ckpt").tensor("a").tolist() == [0.0] * 4


@pytest.mark.parametrize("wrap", [in_zip, in_legacy])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"numel": 5, "shape": (5,)}, "20 bytes, but the file has 16|another length"),
        ({"numel": 2**62, "shape": (2**62,)}, "bytes, but the file has|another length"),
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
        ({"shape": "4"}, "no lists of numbers"),
        ({"shape": (2**40,), "stride": (0,)}, "repeated out of the 4"),
        ({"shape": (0,), "offset": 5}, "reaches to number 4"),
        ({"shape": (1,) * 65, "stride": (1,) * 65}, "65 dimensions"),
        ({"key": "1"}, "not in the file|no tensor has"),
        ({"key": "../data.pkl"}, "not in the file|no tensor has"),
        ({"kind": "QInt8Storage"}, "QInt8Storage; possible are"),
    ],
    ids=str,
)
def test_numbers_that_do_not_fit(tmp_path, wrap, wrong, said):
    refusal(tmp_path / "model.ckpt", wrap(record(**wrong)), said)


@pytest.mark.parametrize(
    ("pickled", "said"),
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
def test_pickles_that_make_no_sense(tmp_path, pickled, said):
    refusal(tmp_path / "model.ckpt", zipped(pickled), said)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
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
@pytest.mark.parametrize("wrap", [in_zip, in_legacy])
def test_values_whose_text_or_sums_have_no_end(tmp_path, wrap, pickled):
    start = time.monotonic()
    refusal(tmp_path / "model.ckpt", wrap(pickled), "refused|damaged|no tensors|not tensors|has the type")
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


def test_many_names_for_one_large_dictionary(tmp_path):
    shared: dict[str, int] = {str(i): i for i in range(20_000)}
    refusal(tmp_path / "model.ckpt", zipped(pickle.dumps({str(i): shared for i in range(20_000)}, 2)), "no tensors")


# Zips that are not torch.save's.


PKL = ("archive/data.pkl", record())
DATA = ("archive/data/0", bytes(16))


@pytest.mark.parametrize(
    ("content", "said"),
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
def test_zips_that_torch_never_writes(tmp_path, content, said):
    refusal(tmp_path / "model.ckpt", content, said)


def patched(content: bytes, name: bytes, field: int, value: bytes) -> bytes:
    """Overwrites a field of a member's entry in the zip's directory."""
    entry = content.rindex(name) - 46
    assert content[entry : entry + 4] == b"PK\x01\x02"
    return content[: entry + field] + value + content[entry + field + len(value) :]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (20, struct.pack("<II", 10**6, 10**6), "not where the directory says"),
        (24, struct.pack("<I", 10**9), "compressed"),
        (42, struct.pack("<I", 0), "not where the directory says"),
        (42, struct.pack("<I", 10**9), "not where the directory says"),
        (8, struct.pack("<H", 1), "encrypted"),
    ],
)
def test_zips_whose_directory_lies(tmp_path, field, value, said):
    refusal(tmp_path / "model.ckpt", patched(members(PKL, DATA), b"archive/data/0", field, value), said)


@pytest.mark.parametrize("broken", [b"PK\x03\x05", b"PK\x01\x02"])
def test_members_without_a_header_of_their_own(tmp_path, broken):
    content = members(PKL, DATA)
    at = content.index(b"PK\x03\x04", 4)
    refusal(tmp_path / "model.ckpt", content[:at] + broken + content[at + 4 :], "not where the directory says")


def test_members_with_two_names(tmp_path):
    content = members(PKL, DATA).replace(b"archive/data/0", b"archive/data/1", 1)
    refusal(tmp_path / "model.ckpt", content, "not where the directory says")


def test_older_form_with_storages_left_out_or_twice(tmp_path):
    numbers = struct.pack("<q", 4) + bytes(16)
    refusal(tmp_path / "model.ckpt", legacy(record()), "storage '0' are not in the file")
    refusal(tmp_path / "model.ckpt", legacy(record(), ["0", "0"], 2 * numbers), "lists it twice")
    refusal(tmp_path / "model.ckpt", legacy(record(), ["0"], numbers[:-1]), "16 bytes, but the file has 15")


@pytest.mark.parametrize(("start", "numel", "sound"), [(1, 3, True), (1, 4, False), (-1, 2, False), (4, 0, True)])
def test_views_of_storages_in_the_older_form(tmp_path, start, numel, sound):
    """Before 2017, a tensor's storage could be a part of another one."""
    plain = record(shape=(numel,))
    at = plain.index(b"Q")
    opened = plain[: plain.rindex(b"t", 0, at)]  # up to the end of the identifier's tuple
    numbers = b"J" + struct.pack("<i", start) + b"J" + struct.pack("<i", numel)
    pickled = opened + b"(" + text("0_view") + numbers + b"tt" + plain[at:]
    content = legacy(pickled, ["0"], struct.pack("<q", 4) + torch.arange(4.0).numpy().tobytes())
    if not sound:
        return refusal(tmp_path / "model.ckpt", content, "beyond its end")
    (tmp_path / "model.ckpt").write_bytes(content)
    assert open_checkpoint(tmp_path / "model.ckpt").tensor("a").tolist() == [1.0, 2.0, 3.0][:numel]
    return None


def test_overlapping_members(tmp_path):
    inner = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 14, 0) + b"archive/data/1" + bytes(16)
    content = members(PKL, ("archive/data/0", inner), ("archive/data/1", bytes(16)))
    content = patched(content, b"archive/data/1", 42, struct.pack("<I", content.index(inner)))
    refusal(tmp_path / "model.ckpt", content, "overlaps")


def test_old_tar_files_are_told(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    refusal(tmp_path / "model.ckpt", buffer.getvalue(), "tar archive")


# Damage of any kind ends in a CheckpointError or in tensors of the right kind, and never in anything else.


def genuine(folder: Path, form: str) -> bytes:
    draw = torch.Generator().manual_seed(0)
    tensors = {f"block.{i}.weight": torch.randn(3, 4, generator=draw) for i in range(3)}
    path = folder / "genuine"
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 1}, path, _use_new_zipfile_serialization=form == "zip")
    return path.read_bytes()


def read_all(path: Path) -> None:
    try:
        checkpoint = open_checkpoint(path)
        for name in checkpoint:
            assert tuple(checkpoint.tensor(name).shape) == checkpoint.shape(name)
            checkpoint.verify(name)
            checkpoint.tensor(name).clone()
    except CheckpointError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_cut_short_anywhere(tmp_path, form):
    content = genuine(tmp_path, form)
    path = tmp_path / "model.ckpt"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_flipped_bits_anywhere(tmp_path, form):
    content = genuine(tmp_path, form)
    path, draw = tmp_path / "model.ckpt", random.Random(0)
    for _ in range(600):
        broken = bytearray(content)
        for _ in range(draw.choice((1, 1, 4))):
            broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        read_all(path)


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
        read_all(tmp_path / "model.ckpt")
