"""Files and configurations as strangers might write them, each out of a seed: genuine ones, changed at random."""

from __future__ import annotations

import io
import json
import pickletools
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from harness import goldens
from harness.hostile import record, text
from vc_core.config import CONFIGS, load_config, to_yaml
from vc_core.family.model_file import ModelFile

#: Whole numbers at the edges of types and bounds.
NUMBERS = (0, 1, -1, 2, 3, 7, 64, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30)
TEXTS = (
    "", "x", "a.b", "\x1b[31mred", "a\nb", "\u202eabc", "\0", "${oc.env:HOME}", "\\x24{oc.env:HOME}", "'", "é", "\U0001f600",
    "x" * 300, "..", "state_dict", "module", "module.", "_orig_mod.", "model.diffusion_model.", "time_cond_proj.weight", "1", "nan",
    "???", "%s{}", "-", "null",
)  # fmt: skip
DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "C64", "I64", "U16", "BOOL", "X", "", None, 5)
MODELS = ("t2v_512_v2", "i2v_512_v1", "dynamicrafter_512_v1", "t2v_512_v1")


def odd(draw: random.Random, depth: int = 0) -> Any:
    """A value that may be anything that JSON and YAML can hold."""
    kind = draw.randrange(10 if depth < 4 else 7)
    if kind < 2:
        return draw.choice(NUMBERS)
    if kind < 4:
        return draw.choice(TEXTS)
    if kind < 7:
        return draw.choice((None, True, False, 0.0, -0.5, 1e308, 1e-308, float("nan"), float("inf"), 0.5, 12.0))
    if kind < 9:
        return [odd(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(TEXTS): odd(draw, depth + 1) for _ in range(draw.randrange(4))}


def changed_bytes(draw: random.Random, data: bytes) -> bytes:
    """Bytes with a few flipped, removed, repeated, moved or replaced."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(out) + 1)
        length = min(draw.choice((1, 1, 2, 4, 8, 64, 1000)), len(out) - at)
        match draw.randrange(6):
            case 0 if length:
                out[at] ^= 1 << draw.randrange(8)
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = out[at : at + length] * draw.choice((1, 2, 10, 1000))
            case 3:
                out[at : at + length] = draw.randbytes(length)
            case 4:
                out[at : at + 8] = struct.pack(draw.choice("<>") + "q", draw.choice([n for n in NUMBERS if -(2**63) <= n < 2**63]))
            case _:
                out[at:at] = draw.choice(TEXTS).encode("utf-8", "surrogatepass")
        del out[4 << 20 :]
    return bytes(out)


def changed_tree(draw: random.Random, value: Any) -> Any:
    """A nested value with something in it replaced, renamed, removed or doubled."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        match draw.randrange(8):
            case 0:
                return {each: inner for each, inner in value.items() if each != key}
            case 1:
                return {(draw.choice(TEXTS) if each == key else each): inner for each, inner in value.items()}
            case 2:
                return value | {draw.choice(TEXTS): odd(draw)}
            case _:
                return value | {key: changed_tree(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], changed_tree(draw, value[at]), *value[at + draw.randrange(2) :]]
    if type(value) is int and draw.random() < 0.5:
        return value + draw.choice((-1, 1, 8, value))
    return odd(draw)


# Pickles.


@cache
def genuine_pickles() -> tuple[bytes, ...]:
    """The descriptions of files that torch.save wrote."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    base = torch.arange(8.0)
    contents = (
        {"a": base, "b": base[2:6:2], "c": base.expand(3, 8)},
        {"state_dict": {"module.a": base.half(), "module.b": torch.ones(2, dtype=torch.complex64).conj()}, "epoch": 3},
        {"model": {"weight": weight}, "optimizer": optimizer.state_dict(), "config": {"size": torch.Size([1]), "bytes": b"\0\1"}},
        {"module": {"a": torch.ones(2).to_sparse(), "b": torch.ones(3).to(torch.float8_e4m3fn)}, "rng": [1.5, (2, None), True]},
    )
    pickles = [record()]
    for content in contents:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with zipfile.ZipFile(buffer) as archive:
            pickles.append(next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")))
    return tuple(pickles)


@cache
def pieces() -> tuple[bytes, ...]:
    """Single opcodes with their arguments, of genuine pickles and others."""
    found = {bytes([code]) for code in b"()]}.0123NaebsutlodRQ\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94"}
    found |= {text(each) for each in TEXTS if each.isprintable()} | {text(name) for name in ("neg", "conj", "storage", "0", "1", "cpu")}
    found |= {b"ctorch\nQInt8Storage\n", b"iinnocent\nTrap\n", b"cinnocent\nTrap\n"}
    found |= {b"cos\nsystem\n", b"cbuiltins\ngetattr\n", b"ctorch\nSize\n"}
    found |= {b"ctorch._utils\n_rebuild_" + name + b"\n" for name in (b"tensor", b"tensor_v3", b"parameter", b"qtensor", b"sparse_tensor")}
    found |= {b"\x8a\x09" + struct.pack("<q", n) + b"\0" for n in NUMBERS if 0 <= n < 2**63}
    found |= {b"J" + struct.pack("<i", n) for n in (-1, 2**31 - 1)}
    for pickled in genuine_pickles():
        found |= set(split(pickled))
    return tuple(sorted(found))


def split(pickled: bytes) -> list[bytes]:
    """The opcodes of a pickle, each with its argument."""
    places = [place for _, _, place in pickletools.genops(pickled)] + [len(pickled)]
    return [pickled[start:end] for start, end in zip(places, places[1:], strict=False)]  # type: ignore[misc]


def pickle_file(draw: random.Random) -> bytes:
    """A zip as torch.save writes it, whose description is changed by opcodes or bytes, or made of opcodes at random."""
    genuine = draw.choice(genuine_pickles())
    kind = draw.randrange(4)
    if kind == 0:
        pickled = changed_bytes(draw, genuine)
    elif kind == 1:
        pickled = b"\x80\x02" + b"".join(draw.choices(pieces(), k=draw.randrange(1, 60))) + b"."
    else:
        parts = split(genuine)
        for _ in range(draw.choice((1, 2, 5))):
            at, end = sorted(draw.choices(range(len(parts)), k=2))
            match draw.randrange(4):
                case 0:
                    parts[at] = draw.choice(pieces())
                case 1:
                    parts[at:at] = parts[at : end + 1] * draw.choice((1, 2, 50))
                case 2:
                    del parts[at : at + 3]
                case _:
                    parts[at:at] = draw.choices(pieces(), k=draw.randrange(1, 6)) * draw.choice((1, 1, 1000))
        pickled = b"".join(parts)
    data = {f"a/data/{key}": bytes(draw.choice((0, 4, 16, 64))) for key in range(6)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"a/data.pkl": pickled, "a/version": b"3\n", **data}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zip_file(draw: random.Random) -> bytes:
    """A file of torch.save's, changed anywhere."""
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(8.0), "b": torch.ones(3).half()}, buffer)
    return changed_bytes(draw, buffer.getvalue())


# Safetensors files.


@cache
def shapes(model: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's tensors, without the tables of its schedule."""
    return {name: tuple(value.shape) for name, value in goldens.weights(model).items() if "." in name}


def sparse_file(header: Any, size: int) -> bytes:
    """A safetensors file's header and the length of what follows, which is zeros: see :func:`tail`."""
    raw = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<QQ", size, len(raw)) + raw


def model_header(model: str, metadata: Any = None) -> tuple[dict[str, Any], int]:
    """The header of a model in 8 bits, and the length of its numbers."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, shape in shapes(model).items():
        size = torch.Size(shape).numel()
        header[name] = {"dtype": "F8_E4M3", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return header, at


def header_file(draw: random.Random) -> bytes:
    """A small file, or a model's, whose header is changed as JSON or as bytes."""
    if draw.random() < 0.7:
        header: Any = {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
        header["b"], size = {"dtype": "F16", "shape": [2, 2], "data_offsets": [8, 16]}, 16
    else:
        header, size = model_header(draw.choice(MODELS))
    for _ in range(draw.choice((0, 1, 1, 2, 4))):
        header = changed_tree(draw, header)
    if isinstance(header, dict) and header and draw.random() < 0.3:
        entry = draw.choice(list(header.values()))
        if isinstance(entry, dict):
            entry["dtype"] = draw.choice(DTYPES)
    raw = json.dumps(header).encode()
    if draw.random() < 0.3:
        raw = changed_bytes(draw, raw)
    return sparse_file(raw, draw.choice((size, size, size, size + 1, max(0, size - 1))))


# Configurations.


@cache
def configurations() -> tuple[dict[str, Any], ...]:
    """Those of published models, complete."""
    return tuple(yaml.safe_load(to_yaml(load_config(path.stem))) for path in sorted(CONFIGS.glob("*.yaml")))


@cache
def own_configuration(model: str) -> dict[str, Any]:
    """That of the small model of :func:`model_header`."""
    with tempfile.TemporaryDirectory() as folder:
        file = ModelFile.open(goldens.write_checkpoint(model, Path(folder) / "m.safetensors"))
    return yaml.safe_load(to_yaml(file.config))


def configuration(draw: random.Random, model: str | None = None) -> Any:
    """A configuration as a mapping, changed: of a published model, or of a small one."""
    value: Any = own_configuration(model) if model else draw.choice(configurations())
    for _ in range(draw.choice((0, 1, 1, 1, 2, 4))):
        value = changed_tree(draw, value)
    return value


def configuration_text(draw: random.Random, model: str | None = None) -> str:
    """The YAML of a configuration, changed before or after it was written."""
    try:
        written = yaml.safe_dump(configuration(draw, model), allow_unicode=draw.random() < 0.5)
    except (ValueError, yaml.YAMLError):
        written = "title: x\n"
    if draw.random() < 0.5:
        written = changed_bytes(draw, written.encode("utf-8", "replace")).decode("utf-8", "replace")
    if draw.random() < 0.1:
        written = draw.choice(("&a ", "*a", "!!python/name:os.system ", "<<: ", "- ", "[" * 500, "{" * 500, "? ", "%YAML 9.9\n")) + written
    return written


def metadata_file(draw: random.Random) -> bytes:
    """A sound model whose metadata describe it wrongly."""
    model = draw.choice(MODELS)
    metadata: Any = {"vc_core.config": configuration_text(draw, draw.choice((None, model, model, model)))}
    match draw.randrange(6):
        case 0:
            metadata["vc_core.shared"] = draw.choice(TEXTS + ("../../../etc/passwd", "/etc/passwd"))
        case 1:
            metadata = changed_tree(draw, metadata)
        case 2:
            metadata[draw.choice(TEXTS)] = draw.choice(TEXTS) * 100
    header, size = model_header(model, metadata)
    return sparse_file(header, size)


def choice(draw: random.Random) -> Any:
    """What a caller gives beside a sound model: a name, or a configuration."""
    if draw.random() < 0.3:
        name = draw.choice([*(each["name"] for each in configurations()), *TEXTS])
        return name if draw.random() < 0.5 else {"name": name}
    return configuration(draw, draw.choice((None, MODELS[0], MODELS[0])))


#: How the inputs of each kind are made; the files of some kinds end in zeros that are not written.
KINDS: dict[str, Callable[[random.Random], Any]] = {
    "pickle": pickle_file, "zip": zip_file, "header": header_file, "metadata": metadata_file, "yaml": configuration_text,
    "configuration": configuration, "choice": choice,
}  # fmt: skip
WITH_ZEROS = ("header", "metadata")
