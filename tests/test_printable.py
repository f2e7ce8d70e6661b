"""Nothing that a file contains reaches a terminal or a log as more than text: no message has control characters."""

from __future__ import annotations

import ast
import io
import json
import struct
import traceback
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness import goldens
from harness.hostile import in_zip, record, text, zipped
from vc_core.checkpoint import CheckpointError, open_checkpoint
from vc_core.config import from_yaml, load_config, to_yaml
from vc_core.errors import ConfigError, VideoCrafterError, printable
from vc_core.family.model_file import ModelFile

ROOT = Path(__file__).parents[1]
#: Colours, a cleared screen, a title, line ends, changes of direction, invisible and private characters.
EVIL = "\x1b[31m\x1b[2J\x1b]0;title\x07\r\n\x08\x7f\x85\x9b\u2028\u2029\u202e\u2066\u200b\ufeff\ue000"
UNET = "model.diffusion_model."


def shown(error: VideoCrafterError) -> str:
    """All that a log shows of an error: its text, and those of the errors that it came from."""
    assert all(line.isprintable() for line in str(error).split("\n  "))
    logged = "".join(traceback.format_exception(error))
    assert logged.replace("\n", "").isprintable(), repr(logged)
    return str(error)


@pytest.mark.parametrize("character", [each for each in EVIL if not each.isprintable()], ids=ascii)
def test_printable(character):
    assert printable(f"a{character}b").isprintable() and character not in printable(character)
    assert printable("größe 模型 'x' \\ é.ckpt") == "größe 模型 'x' \\ é.ckpt"
    assert len(printable(character * 10**6, 100)) <= 100
    error = VideoCrafterError(f"a{character}", [f"b{character}", "c"])
    assert str(error).count("\n") == 2 and shown(error)
    assert printable("\ud800") == "\\ud800"


def header(**entries) -> bytes:
    raw = json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(**changes):
    return {"dtype": "F32", "shape": [0], "data_offsets": [0, 0], **changes}


def members(**contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


TAIL = EVIL.replace("\n", "").replace("\r", "")  # what a line of an old protocol can have
FILES: dict[str, bytes] = {
    "no checkpoint": EVIL.encode(),
    "tensor's name": header(**{EVIL: entry()}),
    "type": header(a=entry(dtype=EVIL)),
    "shape": header(a=entry(shape=[EVIL])),
    "place": header(a=entry(data_offsets=EVIL)),
    "entry": header(**{EVIL: EVIL}),
    "twice": struct.pack("<Q", 30) + (b'{"\\u001b":1,"\\u001b":2}' + b" " * 30)[:30],
    "rare type": header(**{EVIL: entry(dtype="F4")}),
    "JSON": struct.pack("<Q", 10) + b'{"a": "\x1b[',
    "member": members(**{"a/data.pkl": record(), f"a/{TAIL}": b""}),
    "root": members(**{f"{TAIL}/data.pkl": record()}),
    "no description": members(**{f"{TAIL}.txt": b""}),
    "two pickles": members(**{f"{TAIL}/data.pkl": b"", f"b{TAIL}/data.pkl": b""}),
    "byte order": members(**{"a/data.pkl": record(), "a/byteorder": TAIL.encode()}),
    "storage's key": in_zip(record(key=EVIL)),
    "storage's kind": in_zip(b"\x80\x02(" + text("storage") + f"c{TAIL}\nb\n".encode() + text("0") + text("cpu") + b"K\x04tQ."),
    "identifier": in_zip(b"\x80\x02" + text(EVIL) + b"Q."),
    "function": zipped(b"\x80\x02" + f"cos\n{TAIL}\n)R.".encode()),
    "module": zipped(b"\x80\x04" + text(f"os.{EVIL}") + text(EVIL) + b"\x93)R."),
    "harmless function": zipped(b"\x80\x04" + text(f"a{EVIL}") + text(EVIL) + b"\x93)R."),
    "attribute": zipped(b"\x80\x02cbuiltins\ngetattr\nN" + text(EVIL) + b"\x86R."),
    "top level": zipped(b"\x80\x02}" + text(EVIL) + b"}s."),
    "key twice": zipped(b"\x80\x02}(" + (text(EVIL) + b"N") * 2 + b"u."),
    "number": zipped(b"\x80\x02I" + TAIL.encode() + b"\n."),
    "float": zipped(b"\x80\x02F" + TAIL.encode() + b"\n."),
    "index": zipped(b"\x80\x02g" + TAIL.encode() + b"\n."),
    "string": zipped(b"\x80\x02S" + TAIL.encode() + b"\n."),
    "text in UTF-8": zipped(b"\x80\x02X\x02\x00\x00\x00\xff\x1b."),
    "quantized": in_zip(b"\x80\x02}" + text(EVIL) + b"ctorch._utils\n_rebuild_qtensor\n)Rs."),
    "properties": in_zip(record().replace(b"}q", b"}" + text(EVIL) + b"\x88sq", 1)),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("name", ["model.ckpt", f"a{EVIL}b.ckpt".replace("/", "")], ids=["plain", "odd name"])
def test_no_file_writes_to_the_terminal(case, name, tmp_path, capfd):
    (tmp_path / name).write_bytes(FILES[case])
    try:
        open_checkpoint(tmp_path / name)
    except CheckpointError as error:
        assert shown(error)
    assert capfd.readouterr() == ("", "")


def test_names_of_files_and_folders(tmp_path):
    folder = tmp_path / f"folder{EVIL}"
    folder.mkdir()
    torch.save({}, folder / f"b{EVIL}.ckpt")
    for path in (folder, folder / "missing.ckpt", folder / EVIL / "c.ckpt", folder / f"{EVIL}.ckpt", folder / f"b{EVIL}.ckpt"):
        with pytest.raises(CheckpointError) as error:
            open_checkpoint(path)
        assert shown(error.value)
    (tmp_path / b"\xff\xfe.ckpt".decode(errors="surrogateescape")).write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty") as error:
        open_checkpoint(tmp_path / b"\xff\xfe.ckpt".decode(errors="surrogateescape"))
    assert shown(error.value).encode()


MODELS = {
    "unknown beside it": {EVIL: torch.zeros(1)},
    "unexpected": {UNET + EVIL: torch.zeros(1)},
    "like a part": {f"time_cond_proj.{EVIL}": torch.zeros(1)},
    "scaled": {f"{EVIL}.scale_weight": torch.zeros(1)},
    "many numbers": {f"{UNET}input_blocks.{number}.{EVIL}": torch.zeros(0) for number in range(300)},
}


@pytest.mark.parametrize("case", MODELS)
def test_names_of_a_models_tensors(case, tmp_path):
    save_file(dict(goldens.weights("t2v_512_v2")) | MODELS[case], tmp_path / f"m{EVIL}.safetensors")
    try:
        file = ModelFile.open(tmp_path / f"m{EVIL}.safetensors")
        assert all(line.isprintable() for line in file.contents().left_out())
        for name in (EVIL, EVIL * 100):
            with pytest.raises(CheckpointError) as error:
                file.checkpoint.tensor(f"{name}?")
            assert shown(error.value)
    except CheckpointError as error:
        assert shown(error)


def test_files_of_no_model(tmp_path):
    for name, value in ((EVIL, 0.0), (UNET + EVIL, 0.0), (UNET + EVIL, torch.nan)):
        save_file({name: torch.full((2,), value)}, tmp_path / "m.safetensors")
        with pytest.raises(CheckpointError) as error:
            ModelFile.open(tmp_path / "m.safetensors")
        assert shown(error.value)
    with pytest.raises(CheckpointError, match="NaN") as error:
        open_checkpoint(tmp_path / "m.safetensors").sound_tensor(UNET + EVIL)
    assert shown(error.value)


@pytest.mark.parametrize("changes", [
    {EVIL: 1}, {"unet": {EVIL: 1}}, {"unet": EVIL}, {"name": EVIL}, {"title": EVIL}, {"keyframes": [EVIL]}, {"sampling": {"spacing": EVIL}},
    {"schedule": {"prediction": EVIL}}, {"unet": {"in_channels": EVIL}}, {"title": EVIL + "${"}, {EVIL: {EVIL: [EVIL]}}, {"unet": [EVIL]},
], ids=lambda changes: ascii(changes)[:40])  # fmt: skip
def test_values_of_configurations(changes, tmp_path):
    with pytest.raises(ConfigError) as error:
        load_config(changes)
    assert shown(error.value)
    save_file(goldens.weights("t2v_512_v2"), tmp_path / "m.safetensors")
    with pytest.raises(VideoCrafterError) as error:
        ModelFile.open(tmp_path / "m.safetensors", changes)
    assert shown(error.value)


@pytest.mark.parametrize("written", [
    EVIL, f"a: '{EVIL}", f'"{ascii(EVIL)[1:-1]}": 1', f'title: "{ascii(EVIL)[1:-1]}"', f'unet: {{"{ascii(EVIL)[1:-1]}": 1}}', "a: \x1b[31m",
    f"%{TAIL} 1\n---\na", f"!{TAIL} a", f'sampling: {{spacing: "{ascii(EVIL)[1:-1]}"}}', "\x00", "a: 1\n\x1b",
], ids=lambda written: ascii(written)[:40])  # fmt: skip
def test_texts_of_configurations(written, tmp_path):
    (tmp_path / f"c{EVIL}.yaml").write_text(written, encoding="utf-8")
    for read in (from_yaml, lambda _: load_config(tmp_path / f"c{EVIL}.yaml")):
        try:
            config = read(written)
            assert to_yaml(config).replace("\n", "").isprintable()
        except ConfigError as error:
            assert shown(error)


CLEANED = ("checkpoint", "family", "config.py", "limits.py", "plain_yaml.py")


def test_every_error_of_these_files_is_made_printable():
    """All that they raise are errors whose base class cleans its text, or are Python's own for what a file can't cause."""
    raised = set()
    for place in CLEANED:
        path = ROOT / "vc_core" / place
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    raised.add(ast.unparse(node.exc.func))
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "warnings.warn", "logging.warning"):
                    raised.add(ast.unparse(node.func))
    # Of the last three, the first makes a CheckpointError; those of the interpreter and the zip reader are caught beside them.
    assert raised == {"CheckpointError", "ConfigError", "_damaged", "IndexError", "TypeError", "OSError"}
