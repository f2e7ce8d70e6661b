"""The tensors of files written by torch.save, zip or older, without running anything that the files ask for.

The layout is torch.serialization's. A zip holds `NAME/data.pkl`, which describes the object, and `NAME/data/KEY`, one
uncompressed member a storage. The older form is five pickles (a magic number, a protocol, the writer's number sizes, the
object, the storages' keys) and then the storages, each behind its length. Storages are mapped, and read only when asked for.
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import torch

from .errors import CheckpointError, shown
from .globals import STORAGE_TYPES, Global, Storage, TensorRecord, described, is_storage_type
from .unpickling import MAX_PICKLE_BYTES, PickleStream, read_pickle

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
# Python gained the name in 3.13. Without the flag, Linux refuses to map a file larger than its memory for copy on write.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED, _UTF8 = 0x1, 0x800


@dataclass(frozen=True)
class _Block:
    """Where the bytes of a storage lie in the file; `crc` is 0 where the writer left none."""

    start: int
    nbytes: int
    crc: int = 0


@dataclass(frozen=True)
class PickledTensor:
    """One tensor of a mapped file."""

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
        """The tensor, on the file's mapping; written to, it changes in memory only."""
        storage = self.record.storage
        if not storage.numel:
            return torch.empty(self.shape, dtype=self.dtype)
        size = self.dtype.itemsize
        start = self._blocks[storage.key].start + storage.start * size
        if start % size:
            # The older form packs storages without gaps; kernels expect numbers at multiples of their size.
            flat = torch.frombuffer(self._mapping, dtype=torch.uint8, count=storage.numel * size, offset=start)
            flat = flat.clone().view(self.dtype)
        else:
            flat = torch.frombuffer(self._mapping, dtype=self.dtype, count=storage.numel, offset=start)
        return flat.as_strided(self.shape, self.record.stride, self.record.offset)

    def intact(self) -> bool:
        """Whether the bytes have the checksum that the file gives them; True where it gives none."""
        block = self._blocks[self.record.storage.key]
        with memoryview(self._mapping) as view:
            return not block.crc or zlib.crc32(view[block.start : block.start + block.nbytes]) == block.crc


@dataclass(frozen=True)
class PickledFile:
    """A mapped file: the object that it holds, whose `TensorRecord`s `bind` turns into tensors to be read."""

    content: object
    _mapping: mmap.mmap
    _blocks: dict[str, _Block]

    def bind(self, record: TensorRecord) -> PickledTensor:
        """Ties a tensor's description to the file."""
        return PickledTensor(record, self._mapping, self._blocks)


def open_zip(file: BinaryIO) -> PickledFile:
    """What a zip of torch.save's holds.

    Raises CheckpointError for a damaged, foreign or hostile archive.
    """
    mapping = _map(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"cut short or damaged: its zip directory, which stands at the end, can't be read ({error!s:.120}). "
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
            raise CheckpointError(f"damaged: the bytes of storage {shown(declared.key, 60)} are not in the file. Download it again")
        _check_size(declared, block.nbytes)
        return Storage(f"{root}data/{declared.key}", declared.dtype, declared.numel)

    description = blocks[root + "data.pkl"]
    if description.nbytes > MAX_PICKLE_BYTES:
        raise CheckpointError(f"refused: its description is larger than {MAX_PICKLE_BYTES >> 20} MB")
    data = mapping[description.start : description.start + description.nbytes]
    if description.crc and zlib.crc32(data) != description.crc:
        raise CheckpointError("damaged: its description does not have the checksum it was saved with. Download it again")
    return PickledFile(read_pickle(PickleStream(data), storage), mapping, blocks)


def open_legacy(file: BinaryIO) -> PickledFile:
    """What a file holds that torch.save wrote before it wrote zips.

    Raises CheckpointError for a damaged, foreign or hostile file.
    """
    mapping = _map(file)
    stream = PickleStream(mapping)
    declared: dict[str, Storage] = {}

    def nothing(identifier: object) -> object:
        raise CheckpointError(f"damaged: its head refers to {shown(identifier, 60)}")

    def storage(identifier: object) -> object:
        if isinstance(identifier, tuple) and len(identifier) == 4 and identifier[0] == "module":
            return identifier[1]  # a class with its source beside it, from the years when whole models were pickled
        view = identifier[5] if isinstance(identifier, tuple) and len(identifier) == 6 else None
        whole = _declared(identifier[:5] if isinstance(identifier, tuple) else identifier)
        known = declared.setdefault(whole.key, whole)
        if (known.numel, known.dtype.itemsize) != (whole.numel, whole.dtype.itemsize):
            raise CheckpointError(f"damaged: it declares storage {shown(whole.key, 60)} twice, with different sizes")
        if view is None:
            return whole
        _, start, numel = view
        if type(start) is not int or type(numel) is not int or min(start, numel) < 0 or start + numel > whole.numel:
            raise CheckpointError(f"damaged: a view of storage {shown(whole.key, 60)} reaches beyond its end")
        return Storage(whole.key, whole.dtype, numel, start)

    magic = read_pickle(stream, nothing)
    if magic != MAGIC_NUMBER:
        raise CheckpointError(
            "a Python pickle, but not one that torch.save wrote, so it holds no tensors that can be taken out safely. "
            "Get the model as .safetensors, or as its authors published it"
        )
    protocol = read_pickle(stream, nothing)
    if protocol != PROTOCOL_VERSION:
        raise CheckpointError(f"written in version {shown(protocol, 40)} of torch.save's format; {PROTOCOL_VERSION} can be read")
    system = read_pickle(stream, nothing)
    if not isinstance(system, dict) or system.get("little_endian") is not (sys.byteorder == "little"):
        raise CheckpointError(f"written with another byte order than this {sys.byteorder}-endian machine's, or damaged")
    found = read_pickle(stream, storage)
    keys = read_pickle(stream, nothing)
    if not isinstance(keys, list):
        raise CheckpointError("damaged: it does not list its storages. Download it again")
    return PickledFile(found, mapping, _legacy_blocks(keys, declared, mapping, stream.tell()))


def _map(file: BinaryIO) -> mmap.mmap:
    """Maps the whole file; what is written to the mapping stays in memory, and no memory is set aside for it."""
    if sys.platform == "win32":
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
    return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def _members(members: list[zipfile.ZipInfo], mapping: mmap.mmap) -> tuple[dict[str, _Block], str]:
    """Where each member's bytes lie, and the folder (with its slash) that data.pkl is in. Nothing may be odd about any."""
    blocks: dict[str, _Block] = {}
    for member in members:
        name = member.orig_filename
        if name.startswith("/") or re.search(r"[\\\x00-\x1f]|^[A-Za-z]:|(^|/)\.\.(/|$)", name) or name != member.filename:
            raise CheckpointError(f"refused: its zip has a member called {name!r:.120}, which points out of the archive")
        if name in blocks:
            raise CheckpointError(f"refused: its zip has {name!r:.120} twice")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise CheckpointError(
                f"refused: {name!r:.120} in its zip is compressed ({member.compress_size} to {member.file_size} bytes), "
                "which torch.save never does; unpack and save it again with torch.save if you trust it"
            )
        if member.flag_bits & _ENCRYPTED:
            raise CheckpointError(f"refused: {name!r:.120} in its zip is encrypted")
        blocks[name] = _Block(_start(member, mapping), member.file_size, member.CRC)
    end = 0
    for name, block in sorted(blocks.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if block.start < end:
            raise CheckpointError(f"refused: {name!r:.120} in its zip overlaps another member")
        end = block.start + block.nbytes
    pickles = [name for name in blocks if name.lower().endswith(".pkl")]
    if any("/code/" in name or name.endswith("/constants.pkl") for name in blocks):
        raise CheckpointError("a TorchScript program, not a checkpoint. Get the model's checkpoint (its state_dict) instead")
    if len(pickles) > 1:
        raise CheckpointError(f"refused: its zip has {len(pickles)} pickles ({', '.join(pickles[:3])!r:.160}), not one")
    if not pickles or pickles[0].rpartition("/")[2] != "data.pkl":
        raise CheckpointError(
            f"a zip, but not one that torch.save wrote: it has no data.pkl, but {', '.join(list(blocks)[:5]) or 'nothing'!r:.200}"
            ". Unpack it and use the checkpoint inside"
        )
    return blocks, pickles[0].removesuffix("data.pkl")


def _start(member: zipfile.ZipInfo, mapping: mmap.mmap) -> int:
    """Where the member's bytes begin: behind its own header, which must agree with the directory's."""
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
    """The storage that a persistent identifier `("storage", type, key, place, numel)` declares."""
    if not isinstance(identifier, tuple) or len(identifier) != 5 or identifier[0] != "storage":
        raise CheckpointError(f"refused: it refers to {shown(identifier, 80)}, which is no storage of a tensor")
    _, kind, key, _, numel = identifier
    if not is_storage_type(kind) or not isinstance(kind, Global):
        raise CheckpointError(f"it has a tensor stored as {described(kind)}; possible are {', '.join(STORAGE_TYPES)}")
    if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**63:
        raise CheckpointError(f"damaged: a storage is called {shown(key, 60)} and has {shown(numel, 40)} numbers")
    return Storage(key, STORAGE_TYPES[kind.name], numel)


def _check_size(declared: Storage, nbytes: int) -> None:
    needed = declared.numel * declared.dtype.itemsize
    if needed > nbytes:
        raise CheckpointError(
            f"damaged or cut short: storage {shown(declared.key, 60)} is declared with {needed} bytes, but the file has {nbytes} "
            "for it. Download it again"
        )


def _legacy_blocks(keys: list[object], declared: dict[str, Storage], mapping: mmap.mmap, position: int) -> dict[str, _Block]:
    """Walks over the storages behind the pickles: an eight byte count of numbers, then the numbers."""
    blocks: dict[str, _Block] = {}
    for key in keys:
        if not isinstance(key, str) or key not in declared or key in blocks:
            raise CheckpointError(f"damaged: it lists a storage {shown(key, 60)} that no tensor has, or lists it twice")
        storage, head = declared[key], mapping[position : position + 8]
        if len(head) == 8 and int.from_bytes(head, "little", signed=True) != storage.numel:
            raise CheckpointError(f"damaged: storage {shown(key, 60)} has another length than its tensors say. Download it again")
        position += 8
        _check_size(storage, max(0, len(mapping) - position))
        blocks[key] = _Block(position, storage.numel * storage.dtype.itemsize)
        position += blocks[key].nbytes
    missing = declared.keys() - blocks.keys()
    if missing:
        raise CheckpointError(f"damaged: the bytes of storage {shown(min(missing), 60)} are not in the file. Download it again")
    return blocks
