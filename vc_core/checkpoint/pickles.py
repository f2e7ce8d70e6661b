"""Reading the tensors of zip files written by torch.save (1.6 and later), without running anything that they ask for.

The layout is torch.serialization's: ``NAME/data.pkl`` describes the object, and ``NAME/data/KEY`` is one uncompressed member for
each storage. Storages are read on use.
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass, field

import torch

from .errors import CheckpointError, short_repr
from .filebytes import FileBytes, as_type
from .globals import STORAGE_TYPES, Global, described, is_storage_type
from .records import Storage, TensorRecord, Unreadable
from .unpickling import MAX_PICKLE_BYTES, read_pickle
from .zips import Block, open_zip_members

_CHECKED_AT_ONCE = 1 << 24  # bytes


@dataclass(frozen=True)
class PickledFile:
    """An open file and the object in it, whose TensorRecords are read by :meth:`bind`."""

    content: object
    source: FileBytes
    #: By the keys of storages.
    blocks: dict[str, Block]
    #: Whether a storage has its checksum, as far as that is known.
    sound: dict[str, bool] = field(default_factory=dict)

    def bind(self, record: TensorRecord) -> PickledTensor:
        """The tensor of this file that a record describes."""
        return PickledTensor(record, self)


@dataclass(frozen=True)
class PickledTensor:
    """One tensor of an open file."""

    record: TensorRecord
    file: PickledFile

    @property
    def shape(self) -> tuple[int, ...]:
        return self.record.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.record.storage.dtype

    def read(self) -> torch.Tensor:
        """A copy of the tensor."""
        record, size = self.record, self.dtype.itemsize
        if not record.numel:
            return torch.empty(self.shape, dtype=self.dtype)
        block = self.file.blocks[record.storage.key]
        flat = self.file.source.tensor(block.start + record.offset * size, record.span * size)
        if len(flat) == block.nbytes:  # so that :meth:`intact` needn't read it again
            self.file.sound[record.storage.key] = zlib.crc32(flat.numpy().data) == block.crc
        tensor = as_type(flat, self.dtype).as_strided(self.shape, record.stride)
        if record.negative:
            tensor = -tensor
        return tensor.conj_physical() if record.conjugate else tensor

    def intact(self) -> bool:
        """Whether the bytes have the checksum in the file; True if it has none."""
        key = self.record.storage.key
        block = self.file.blocks[key]
        if block.crc and key not in self.file.sound:
            found = 0
            for start in range(0, block.nbytes, _CHECKED_AT_ONCE):
                piece = self.file.source.tensor(block.start + start, min(_CHECKED_AT_ONCE, block.nbytes - start))
                found = zlib.crc32(piece.numpy().data, found)
            self.file.sound[key] = found == block.crc
        return not block.crc or self.file.sound[key]


def open_pickled(source: FileBytes) -> PickledFile:
    """Open a zip file written by torch.save.

    Raises:
        CheckpointError: the archive is damaged or hostile, or something else wrote it.
    """
    members, root = open_zip_members(source)
    order = _text(source, members.get(root + "byteorder"))
    if order and order != sys.byteorder:
        raise CheckpointError(f"written with {order}-endian numbers, which this {sys.byteorder}-endian machine does not read")
    folder = root + "data/"
    blocks = {name[len(folder) :]: block for name, block in members.items() if name.startswith(folder)}

    def storage(identifier: object) -> Storage | Unreadable:
        declared = _declared(identifier)
        if isinstance(declared, Storage):
            block = blocks.get(declared.key)
            if block is None:
                raise CheckpointError(
                    f"damaged: the bytes of storage {short_repr(declared.key, 60)} are not in the file. Download it again"
                )
            _check_size(declared, block.nbytes)
        return declared

    description = members[root + "data.pkl"]
    if description.nbytes > MAX_PICKLE_BYTES:
        raise CheckpointError(f"refused: its description is larger than {MAX_PICKLE_BYTES >> 20} MB")
    data = source.read(description.start, description.nbytes)
    if description.crc and zlib.crc32(data) != description.crc:
        raise CheckpointError("damaged: its description does not have the checksum it was saved with. Download it again")
    return PickledFile(read_pickle(data, storage), source, blocks)


def _text(source: FileBytes, block: Block | None) -> str:
    return source.read(block.start, min(block.nbytes, 16)).decode("ascii", "replace") if block else ""


def _declared(identifier: object) -> Storage | Unreadable:
    """The storage that a persistent identifier ``("storage", type, key, device, numel)`` declares."""
    if not isinstance(identifier, tuple) or len(identifier) != 5 or identifier[0] != "storage":
        raise CheckpointError(f"refused: it refers to {short_repr(identifier, 80)}, which is no storage of a tensor")
    _, kind, key, _, numel = identifier
    if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**63:
        raise CheckpointError(f"damaged: a storage is called {short_repr(key, 60)} and has {short_repr(numel, 40)} numbers")
    if not isinstance(kind, Global) or not is_storage_type(kind):
        return Unreadable(f"is stored as {described(kind)}; possible are {', '.join(STORAGE_TYPES)}")
    return Storage(key, STORAGE_TYPES[kind.name], numel)


def _check_size(declared: Storage, nbytes: int) -> None:
    needed = declared.numel * declared.dtype.itemsize
    if needed > nbytes:
        raise CheckpointError(
            f"damaged or cut short: storage {short_repr(declared.key, 60)} is declared with {needed} bytes, but the file has {nbytes} "
            "for it. Download it again"
        )
