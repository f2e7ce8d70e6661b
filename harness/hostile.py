"""Checkpoint files of any content, made by hand for the tests of reading."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from vc_core.checkpoint import CheckpointError, open_checkpoint


def text(value: str) -> bytes:
    """The opcode that pushes a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def zipped(pickled: bytes, extra: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with the layout of torch.save's, and ``pickled`` as its data.pkl."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in {"archive/data.pkl": pickled, "archive/version": b"3\n", **(extra or {})}.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def refusal(path: Path, content: bytes, message: str) -> None:
    """Write a file and check that opening it is refused with a message that matches, and that names the file."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)


def record(kind: str = "FloatStorage", key: str = "0", numel: int = 4, offset=0, shape=(4,), stride=(1,)) -> bytes:
    """The pickle of ``{"a": tensor}`` as torch.save writes it, with these numbers in it."""

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
    """A zip with a storage "0" of 16 zero bytes."""
    return zipped(pickled, {"archive/data/0": bytes(16)})


def members(*pairs: tuple[str, bytes]) -> bytes:
    """A zip with these members, whose names may repeat."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of names that repeat
        for name, data in pairs:
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()
