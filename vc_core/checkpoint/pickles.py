"""Reading the tensors of zip files written by torch.save (1.6 and later), without running anything that they ask for.

The layout is torch.serialization's: ``NAME/data.pkl`` describes the object, and ``NAME/data/KEY`` is one uncompressed member for
each storage. Storages are memory-mapped and read on use.
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import torch

from .errors import CheckpointError, short_repr
from .globals import STORAGE_TYPES, Global, Storage, TensorRecord, described, is_storage_type
from .unpickling import MAX_PICKLE_BYTES, read_pickle

# Python has the name since 3.13. Without the flag, Linux refuses to map a file larger than its memory for copy on write.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED, _UTF8 = 0x1, 0x800


@dataclass(frozen=True)
class _Block:
    """The position of a storage's bytes in the file; ``crc`` is their CRC-32, or 0 where the writer gave none."""

    start: int
    nbytes: int
    crc: int = 0


@dataclass(frozen=True)
class PickledTensor:
    """One tensor of a memory-mapped file."""

    record: TensorRecord
    _mapping: mmap.mmap
    _blocks: dict[str, _Block]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.record.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.record.storage.dtype

    def read(self) -> torch.Tensor:
        """The tensor, in the file's memory mapping; writing to it changes it in memory only."""
        storage = self.record.storage
        if not storage.numel:
            return torch.empty(self.shape, dtype=self.dtype)
        size = self.dtype.itemsize
        start = self._blocks[storage.key].start
        if start % size:
            # torch.save aligns storages, but a zip that was packed again may not; kernels expect aligned elements.
            flat = torch.frombuffer(self._mapping, dtype=torch.uint8, count=storage.numel * size, offset=start)
            flat = flat.clone().view(self.dtype)
        else:
            flat = torch.frombuffer(self._mapping, dtype=self.dtype, count=storage.numel, offset=start)
        return flat.as_strided(self.shape, self.record.stride, self.record.offset)

    def intact(self) -> bool:
        """Whether the bytes have the checksum in the file; True if it has none."""
        block = self._blocks[self.record.storage.key]
        with memoryview(self._mapping) as view:
            return not block.crc or zlib.crc32(view[block.start : block.start + block.nbytes]) == block.crc


@dataclass(frozen=True)
class PickledFile:
    """A memory-mapped file and the object in it, whose TensorRecords are read by :meth:`bind`."""

    content: object
    _mapping: mmap.mmap
    _blocks: dict[str, _Block]

    def bind(self, record: TensorRecord) -> PickledTensor:
        """The tensor of this file that a record describes."""
        return PickledTensor(record, self._mapping, self._blocks)


def open_zip(file: BinaryIO) -> PickledFile:
    """Open a zip file written by torch.save.

    Raises:
        CheckpointError: the archive is damaged or hostile, or something else wrote it.
    """
    mapping = _map(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"cut short or damaged: its zip directory, which is at its end, can't be read ({error!s:.120}). "
            "Download it again"
        ) from error
    blocks, root = _members(members, mapping)
    order = _text(mapping, blocks.get(root + "byteorder"))
    if order and order != sys.byteorder:
        raise CheckpointError(f"written with {order}-endian numbers, which this {sys.byteorder}-endian machine does not read")

    def storage(identifier: object) -> Storage:
        declared = _declared(identifier)
        block = blocks.get(f"{root}data/{declared.key}")
        if block is None:
            raise CheckpointError(f"damaged: the bytes of storage {short_repr(declared.key, 60)} are not in the file. Download it again")
        _check_size(declared, block.nbytes)
        return Storage(f"{root}data/{declared.key}", declared.dtype, declared.numel)

    description = blocks[root + "data.pkl"]
    if description.nbytes > MAX_PICKLE_BYTES:
        raise CheckpointError(f"refused: its description is larger than {MAX_PICKLE_BYTES >> 20} MB")
    data = mapping[description.start : description.start + description.nbytes]
    if description.crc and zlib.crc32(data) != description.crc:
        raise CheckpointError("damaged: its description does not have the checksum it was saved with. Download it again")
    return PickledFile(read_pickle(data, storage), mapping, blocks)


def _map(file: BinaryIO) -> mmap.mmap:
    """Map the file; writes to the mapping stay in memory, and no memory is reserved for them."""
    if sys.platform == "win32":
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
    return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def _members(members: list[zipfile.ZipInfo], mapping: mmap.mmap) -> tuple[dict[str, _Block], str]:
    """The position of each member's bytes, and the folder (with its slash) of data.pkl. Anything unusual is refused."""
    blocks: dict[str, _Block] = {}
    for member in members:
        name = member.orig_filename
        _check_member(member)
        if name in blocks:
            raise CheckpointError(f"refused: its zip has {name!r:.120} twice")
        blocks[name] = _Block(_start(member, mapping), member.file_size, member.CRC)
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


def _start(member: zipfile.ZipInfo, mapping: mmap.mmap) -> int:
    """The position of a member's first byte, after its local header, which must agree with the directory."""
    name, at = member.orig_filename, member.header_offset
    encoding = "utf-8" if member.flag_bits & _UTF8 else "cp437"
    head = mapping[at : at + _LOCAL_HEADER.size] if at >= 0 else b""
    if len(head) == _LOCAL_HEADER.size:
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(head)
        start: int = at + len(head) + name_length + extra_length
        own = mapping[at + len(head) : at + len(head) + name_length]
        if signature == b"PK\x03\x04" and own == name.encode(encoding, "replace") and start + member.file_size <= len(mapping):
            return start
    raise CheckpointError(f"damaged: {name!r:.120} in its zip is not where the directory says. Download it again")


def _text(mapping: mmap.mmap, block: _Block | None) -> str:
    return mapping[block.start : block.start + min(block.nbytes, 16)].decode("ascii", "replace") if block else ""


def _declared(identifier: object) -> Storage:
    """The storage that a persistent identifier ``("storage", type, key, device, numel)`` declares."""
    if not isinstance(identifier, tuple) or len(identifier) != 5 or identifier[0] != "storage":
        raise CheckpointError(f"refused: it refers to {short_repr(identifier, 80)}, which is no storage of a tensor")
    _, kind, key, _, numel = identifier
    if not is_storage_type(kind) or not isinstance(kind, Global):
        raise CheckpointError(f"it has a tensor stored as {described(kind)}; possible are {', '.join(STORAGE_TYPES)}")
    if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**63:
        raise CheckpointError(f"damaged: a storage is called {short_repr(key, 60)} and has {short_repr(numel, 40)} numbers")
    return Storage(key, STORAGE_TYPES[kind.name], numel)


def _check_size(declared: Storage, nbytes: int) -> None:
    needed = declared.numel * declared.dtype.itemsize
    if needed > nbytes:
        raise CheckpointError(
            f"damaged or cut short: storage {short_repr(declared.key, 60)} is declared with {needed} bytes, but the file has {nbytes} "
            "for it. Download it again"
        )
