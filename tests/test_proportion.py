"""No file costs more work than it can hold: 2 s and 200 MB beyond its size, measured in processes of their own with limits."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from harness import goldens
from harness.bounded import MEGABYTES, SECONDS, Bounded, Cost
from harness.hostile import in_zip, text, zipped
from vc_core.checkpoint import open_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and peaks of memory are measured as Linux has them")
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORED = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
STEPS = 160_000


def pickled(body: bytes) -> bytes:
    return in_zip(b"\x80\x02" + body + b".")


def memoized(value: bytes, each: bytes) -> bytes:
    """``value`` once, then ``each`` many times, which fetches it by ``h\\0``."""
    return pickled(value + b"q\x000" + each * STEPS + b"N")


def huge(size: int) -> bytes:
    """A whole number of so many bytes."""
    return b"\x8b" + struct.pack("<i", size) + b"\x7f" * size


@cache
def sound() -> dict[str, torch.Tensor]:
    return dict(goldens.weights("t2v_512_v2"))


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def model(extra: Iterator[str] | list[str] = (), metadata: dict[str, str] | None = None) -> bytes:
    """A sound model, with further names that have no numbers, as safetensors."""
    kinds = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    data, at = io.BytesIO(), 0
    for name, value in sound().items():
        raw = value.contiguous().numpy().tobytes()
        header[name] = {"dtype": kinds[value.dtype], "shape": list(value.shape), "data_offsets": [at, at + len(raw)]}
        data.write(raw)
        at += len(raw)
    for name in extra:
        header[name] = {"dtype": "F16", "shape": [0], "data_offsets": [at, at]}
    return safetensors(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(), data.getvalue())


def numbered(pattern: str, count: int) -> bytes:
    return model([pattern.format(number) for number in range(1000, 1000 + count)])


def directory(members: int) -> bytes:
    """A zip whose directory has so many members, all of the same name."""
    local = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 1, 0) + b"a"
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, min(members, 65535), min(members, 65535), len(entry) * members, len(local), 0)
    return local + entry * members + end


def many_members(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        for number in range(count):
            archive.writestr(f"a/data/{number}", b"")
    return buffer.getvalue()


def described(yaml: str) -> bytes:
    return model(metadata={"vc_core.config": yaml})


UNET = "model.diffusion_model."
HOSTILE: dict[str, Callable[[], bytes]] = {
    "a storage's long key at each mention": lambda: memoized(
        text("k" * 200_000), b"(" + text("storage") + b"ctorch\nFloatStorage\nh\x00" + text("cpu") + b"K\x04tQ0"
    ),
    "a long module at each mention": lambda: memoized(text("a." * 100_000), b"h\x00h\x00\x930"),
    "a long attribute at each mention": lambda: memoized(text("a" * 200_000), b"cbuiltins\ngetattr\nNh\x00\x86R0"),
    "a long list of arguments at each mention": lambda: memoized(b"(" + b"N" * 100_000 + b"l", REBUILD + b"h\x00R0"),
    "a long shape at each mention": lambda: memoized(b"(" + b"K\x01" * 60_000 + b"t", REBUILD + b"(" + STORED + b"K\x00h\x00h\x00tR0"),
    "many dimensions at each mention": lambda: memoized(b"(" + b"K\x01" * 64 + b"t", b"ctorch\nSize\nh\x00\x85R"),
    "a huge number as a key at each mention": lambda: memoized(huge(8_000_000), b"}h\x00Ns0"),
    "a huge number as an index": lambda: pickled(b"(" + b"q\x00h\x00" * STEPS + huge(8_000_000) + b"tQ"),
    "many empty steps": lambda: pickled(b"]0" * 2_500_000 + b"N"),
    "many lists": lambda: pickled(b"]" * 5_000_000),
    "many dictionaries": lambda: pickled(b"}" * 5_000_000),
    "many copies of the top": lambda: pickled(b"]" + b"2" * 5_000_000),
    "many marks": lambda: pickled(b"(" * 5_000_000),
    "many names": lambda: pickled(b"ca\nb\n" * 1_000_000),
    "many objects": lambda: pickled(b"ca\nb\nq\x00" + b"h\x00)R" * 1_200_000),
    "objects made of objects": lambda: pickled(b"ca\nb\n" + b")R" * 2_000_000),
    "many memories": lambda: pickled(b"N" + b"".join(b"r" + struct.pack("<I", number) for number in range(1_000_000))),
    "many tensors of one storage": lambda: pickled(
        REBUILD + b"q\x000(" + STORED + b"K\x00(K\x02K\x02t(K\x02K\x01tI00\nNtq\x010" + b"h\x00h\x01R" * STEPS + b"l"
    ),
    "a deep list": lambda: pickled(b"]" * 200_000 + b"a" * 199_999),
    "a deep tuple": lambda: pickled(b")" + b"\x85" * 390_000),
    "a deep dictionary of wrappers": lambda: pickled(b"}" * 100_000 + (text("module") + b"N") + b"s" * 1),
    "a long text of wide characters": lambda: pickled(text("x" * 15_000_000 + "\U0001f600")),
    "a long number": lambda: pickled(huge(15_000_000)),
    "a long decimal number": lambda: pickled(b"I" + b"9" * 15_000_000 + b"\n"),
    "a long hexadecimal text": lambda: pickled(b"S'" + b"\\x41" * 3_500_000 + b"'\n"),
    "a large description": lambda: pickled(bytes(17 << 20)),
    "expanded tensors": lambda: pickled(
        b"}(" + b"".join(text(f"n{n}") + REBUILD + b"(" + STORED + b"K\x00J\x00\x00\xff\x00\x85K\x00\x85I00\nNtR" for n in range(99)) + b"u"
    ),
    "a zip directory of two million members": lambda: directory(2_000_000),
    "a zip directory of 44,000 members": lambda: directory(44_000),
    "a zip of 30,000 members": lambda: many_members(30_000),
    "a header of 100 MB": lambda: safetensors(b"{" + b" " * 99_000_000 + b"}"),
    "a header of too many lists": lambda: safetensors(b'{"a":[' + b"[]," * 1_600_000 + b"[]]}"),
    "a header of many lists": lambda: safetensors(b'{"a":[' + b"[]," * 199_000 + b"[]]}"),
    "a header of many mappings": lambda: safetensors(b'{"a":[' + b"{}," * 199_000 + b"{}]}"),
    "a header of many numbers": lambda: safetensors(b'{"a":[' + b"1234," * 990_000 + b"1]}"),
    "a header of many texts": lambda: safetensors(b'{"a":[' + b'"\xc3\xa4\xc3\xb6",' * 700_000 + b"1]}"),
    "a deep header": lambda: safetensors(b'{"a":' + b"[" * 500_000),
    "a long number in a header": lambda: safetensors(b'{"a":' + b"9" * 4_900_000 + b"}"),
    "a name twice behind many names": lambda: safetensors(
        b"{" + b"".join(b'"%d":{},' % number for number in range(190_000)) + b'"189999":{}}'
    ),
    "many tensors": lambda: model([f"n{number}" for number in range(18_000)]),
    "too many tensors": lambda: model([f"n{number}" for number in range(60_000)]),
    "one tensor with a long name": lambda: model([UNET + "x" * 4_000_000]),
    "tensors with long names": lambda: model([f"{number}" + "embed_proj" * 10_000 for number in range(40)]),
    "names of many parts": lambda: model(["_orig_mod." * 400_000]),
    "metadata of 50 MB": lambda: model(metadata={"workflow": "x" * 50_000_000}),
    "metadata of 4 MB with wide characters": lambda: model(metadata={"workflow": "x" * 4_000_000 + "\U0001f600"}),
    "many metadata": lambda: model(metadata={str(number): "" for number in range(290_000)}),
    "many numbers of text layers": lambda: numbered("cond_stage_model.model.transformer.resblocks.{}.ln_1.weight", 18_000),
    "many numbers of input blocks": lambda: numbered(UNET + "input_blocks.{}.0.x", 18_000),
    "many numbers of transformers": lambda: numbered(UNET + "middle_block.1.transformer_blocks.{}.x", 18_000),
    "many numbers of levels": lambda: numbered("first_stage_model.decoder.up.{}.x", 18_000),
    "many numbers of blocks": lambda: numbered("first_stage_model.decoder.up.0.block.{}.x", 18_000),
    "199 text layers": lambda: numbered("cond_stage_model.model.transformer.resblocks.{}.ln_1.weight", 190),
    "120 text layers": lambda: numbered("cond_stage_model.model.transformer.resblocks.{}.ln_1.weight", 120),
    "30 transformers in a block": lambda: numbered(UNET + "middle_block.1.transformer_blocks.{}.x", 20),
    "numbers of a million digits": lambda: model([UNET + "input_blocks." + "9" * 1_000_000 + ".0.x"]),
    "a configuration of many lists": lambda: described("a: [" + "[]," * 2_700 + "]"),
    "a configuration of many numbers": lambda: described("a: [" + "1," * 4_000 + "]"),
    "a deep configuration": lambda: described("[" * 8_000),
    "a configuration of one long number": lambda: described("unet: {in_channels: 0x" + "f" * 8_000 + "}"),
    "a configuration of one long sexagesimal number": lambda: described("unet: {in_channels: 1" + ":1" * 4_000 + "}"),
    "a configuration that is long": lambda: described("a: " + "x" * 4_000_000),
    "a configuration that refers to itself": lambda: described("a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(99))),
    "a configuration of many timesteps": lambda: described("schedule: {timesteps: 100000, scale_end: 0.5, scale_steps: 100000}"),
}


@pytest.fixture(scope="module")
def bounded() -> Iterator[Bounded]:
    process = Bounded()
    yield process
    process.close()


def figures(cost: Cost) -> str:
    return f"{cost.outcome}: {cost.seconds:.2f} s, {cost.megabytes:.0f} MB: {cost.message:.200}"


@pytest.mark.full
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_cost_little(case, bounded, tmp_path, record_property):
    path = tmp_path / "model.ckpt"
    path.write_bytes(HOSTILE[case]())
    cost = bounded.open(path)
    record_property("cost", figures(cost))
    print(f"{case} ({path.stat().st_size / 1e6:.1f} MB): {figures(cost)}")
    assert cost.outcome in ("opened", "CheckpointError"), figures(cost)
    assert cost.seconds <= SECONDS and cost.megabytes <= MEGABYTES + path.stat().st_size / 2**20, figures(cost)


def test_the_measure_sees_time_and_memory(bounded, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(model())
    cost = bounded.open(tmp_path / "model.ckpt")
    assert cost.outcome == "opened" and cost.seconds > 0 and cost.megabytes > 0
    assert bounded.open(tmp_path / "missing.ckpt").outcome == "ended", "a failure of the process itself is none of the file's"


def published_like(path: Path, tensors: int, gigabytes: float) -> int:
    """Write a zip as torch.save writes it, of a model with its optimizer, whose storages are holes in the file.

    Returns:
        The number of the pickle's steps.
    """
    size = int(gigabytes * 2**30 / tensors) // 64 * 64
    state = {f"model.diffusion_model.input_blocks.{number}.weight": number for number in range(tensors // 3)}
    body = bytearray(b"\x80\x02}" + text("state_dict") + b"}(")
    steps, number = 6, 0

    def tensor() -> None:
        nonlocal steps, number
        key = text("storage") + b"ctorch\nFloatStorage\n" + text(str(number)) + text("cpu")
        storage = b"((" + key + b"J" + struct.pack("<i", size // 4)
        body.extend(REBUILD + storage + b"tQK\x00J" + struct.pack("<i", size // 4) + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR")
        steps += 20
        number += 1

    for name in state:
        body.extend(text(name))
        tensor()
    body.extend(b"us" + text("optimizer_states") + b"](}(")
    while number < tensors:
        body.extend(b"K" + bytes([number % 256]) + b"0" + text(f"exp_avg {number}") + text("x" * 8) + b"0" * 1)
        tensor()
        steps += 4
    body.extend(b"ues" + b"N0" * 35_000 + b".")
    steps += 70_000
    entries = []
    with path.open("wb") as file:
        for name, length, data in [("m/data.pkl", len(body), bytes(body)), *((f"m/data/{n}", size, None) for n in range(number))]:
            at, crc = file.tell(), zlib.crc32(data) if data else 0
            raw, extra = name.encode(), struct.pack("<HHQQQ", 1, 24, length, length, at)
            file.write(struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(raw), 20) + raw)
            file.write(struct.pack("<HHQQ", 1, 16, length, length))
            file.write(data) if data else file.seek(length, os.SEEK_CUR)
            fields = (b"PK\x01\x02", 45, 45, 0, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(raw), 28, 0, 0, 0, 0, 0xFFFFFFFF)
            entries.append(struct.pack("<4s6H3I5H2I", *fields) + raw + extra)
        start, listing = file.tell(), b"".join(entries)
        file.write(listing)
        end = file.tell()
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, len(entries), len(entries), len(listing), start))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    return steps


def test_an_honest_file_of_ten_gigabytes_with_its_optimizer_is_read(tmp_path):
    steps = published_like(tmp_path / "model.ckpt", 6000, 10)
    assert steps > 200_000 and (tmp_path / "model.ckpt").stat().st_size > 10 * 2**30
    checkpoint = open_checkpoint(tmp_path / "model.ckpt")
    assert len(checkpoint) == 2000
    name = "model.diffusion_model.input_blocks.1999.weight"
    assert checkpoint.tensor(name).shape == checkpoint.shape(name) and not checkpoint.tensor(name).any()


def test_every_zip_without_padding_is_one(tmp_path):
    """The helper's own zips are read by the zipfile library."""
    (tmp_path / "a.zip").write_bytes(zipped(b"N."))
    published_like(tmp_path / "b.zip", 30, 0.001)
    for name in ("a.zip", "b.zip"):
        assert zipfile.ZipFile(tmp_path / name).testzip() in (None, "m/data/0")
