"""Files made by hand for the tests of reading: of any content, in both of torch.save's forms."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vc_core.checkpoint import CheckpointError, open_checkpoint
from vc_core.checkpoint.pickles import MAGIC_NUMBER, PROTOCOL_VERSION


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def zipped(pickled: bytes, extra: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip as torch.save lays it out, with `pickled` as its data.pkl."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in {"archive/data.pkl": pickled, "archive/version": b"3\n", **(extra or {})}.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def legacy(pickled: bytes, keys: list[str] | None = None, data: bytes = b"") -> bytes:
    """A file as torch.save wrote it before its zips, with `pickled` as its object."""
    system = {"protocol_version": PROTOCOL_VERSION, "little_endian": sys.byteorder == "little", "type_sizes": {}}
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC_NUMBER, PROTOCOL_VERSION, system))
    return head + pickled + pickle.dumps(keys or [], 2) + data


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {"zip": zipped, "legacy": legacy}


def refusal(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)


def record(kind: str = "FloatStorage", key: str = "0", numel: int = 4, offset=0, shape=(4,), stride=(1,)) -> bytes:
    """The pickle of `{"a": tensor}` as torch.save writes it, with these numbers in it."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, shape, stride, False, {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", getattr(torch, kind), key, "cpu", numel) if isinstance(value, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"a": Tensor()})
    return buffer.getvalue()


def in_zip(pickled: bytes) -> bytes:
    return zipped(pickled, {"archive/data/0": bytes(16)})


def in_legacy(pickled: bytes) -> bytes:
    return legacy(pickled, ["0"], struct.pack("<q", 4) + bytes(16))


def members(*pairs: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of a name that occurs twice
        for name, data in pairs:
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()
