"""Where the members of a zip lie in its file. Anything that torch.save never writes is refused."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, cast

from .errors import CheckpointError
from .filebytes import FileBytes

# A member takes about a hundred bytes there, and a large model with its optimizer has 5,000.
MAX_DIRECTORY = 2 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED, _UTF8 = 0x1, 0x800


@dataclass(frozen=True, slots=True)
class Block:
    """The position of a member's bytes in the file; ``crc`` is their CRC-32, or 0 where the writer gave none."""

    start: int
    nbytes: int
    crc: int = 0


class _DirectoryReader:
    """The file as the zipfile library reads it: no more at once than a checkpoint's directory can have."""

    def __init__(self, source: FileBytes) -> None:
        self._source, self._at = source, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if at < 0:
            raise OSError("a position before the file's beginning")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        count = self._source.size - self._at if size < 0 else size
        if count > MAX_DIRECTORY:
            raise CheckpointError(f"refused: the directory of its zip has {count} bytes; a checkpoint's has up to {MAX_DIRECTORY}")
        data = self._source.read(self._at, count)
        self._at += len(data)
        return data


def open_zip_members(source: FileBytes) -> tuple[dict[str, Block], str]:
    """The position of each member's bytes, and the folder (with its slash) of data.pkl.

    Raises:
        CheckpointError: the archive is damaged or hostile, or something else than torch.save wrote it.
    """
    try:
        with zipfile.ZipFile(cast("IO[bytes]", _DirectoryReader(source))) as archive:
            members = archive.infolist()
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"cut short or damaged: its zip directory, which is at its end, can't be read ({error!s:.120}). Download it again"
        ) from None
    blocks: dict[str, Block] = {}
    for member in members:
        name = member.orig_filename
        _check_member(member)
        if name in blocks:
            raise CheckpointError(f"refused: its zip has {name!r:.120} twice")
        blocks[name] = Block(_start(member, source), member.file_size, member.CRC)
    end = 0
    for name, block in sorted(blocks.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if block.start < end:
            raise CheckpointError(f"refused: {name!r:.120} in its zip overlaps another member")
        end = block.start + block.nbytes
    return blocks, _root(blocks)


def _check_member(member: zipfile.ZipInfo) -> None:
    """Refuse a member with a name, a compression or an encryption that torch.save never writes."""
    name = member.orig_filename
    if name.startswith("/") or re.search(r"[\\\x00-\x1f]|^[A-Za-z]:|(^|/)\.\.(/|$)", name) or name != member.filename:
        raise CheckpointError(f"refused: its zip has a member called {name!r:.120}, which points out of the archive")
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise CheckpointError(
            f"refused: {name!r:.120} in its zip is compressed ({member.compress_size} to {member.file_size} bytes), "
            "which torch.save never does; unpack and save it again with torch.save if you trust it"
        )
    if member.flag_bits & _ENCRYPTED:
        raise CheckpointError(f"refused: {name!r:.120} in its zip is encrypted")


def _root(names: Iterable[str]) -> str:
    """The folder (with its slash) of data.pkl, which must be the only pickle."""
    names = list(names)
    pickles = [name for name in names if name.lower().endswith(".pkl")]
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise CheckpointError("a TorchScript program, not a checkpoint. Get the model's checkpoint (its state_dict) instead")
    if len(pickles) > 1:
        raise CheckpointError(f"refused: its zip has {len(pickles)} pickles ({', '.join(pickles[:3])!r:.160}), not one")
    if not pickles or pickles[0].rpartition("/")[2] != "data.pkl":
        raise CheckpointError(
            f"a zip, but not one that torch.save wrote: it has no data.pkl, but {', '.join(names[:5]) or 'nothing'!r:.200}"
            ". Unpack it and use the checkpoint inside"
        )
    return pickles[0].removesuffix("data.pkl")


def _start(member: zipfile.ZipInfo, source: FileBytes) -> int:
    """The position of a member's first byte, after its local header, which must agree with the directory."""
    name, at = member.orig_filename, member.header_offset
    expected = name.encode("utf-8" if member.flag_bits & _UTF8 else "cp437", "replace")
    head = source.read(at, _LOCAL_HEADER.size + len(expected)) if at >= 0 else b""
    if len(head) == _LOCAL_HEADER.size + len(expected):
        signature, name_length, extra_length = _LOCAL_HEADER.unpack_from(head)
        start: int = at + _LOCAL_HEADER.size + name_length + extra_length
        sound = signature == b"PK\x03\x04" and name_length == len(expected) and head[_LOCAL_HEADER.size :] == expected
        if sound and start + member.file_size <= source.size:
            return start
    raise CheckpointError(f"damaged: {name!r:.120} in its zip is not where the directory says. Download it again")
