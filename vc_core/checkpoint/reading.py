"""Checkpoint files as a flat table of named tensors, read on use, without running code that they contain."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch

from .errors import CheckpointError, error_prefix
from .filebytes import FileBytes
from .foreign import foreign
from .layouts import check_claims, is_tensor_list, keys_of, tensors_of, without_wrappers
from .pickles import open_pickled
from .records import StoredTensor, TensorRecord, Unreadable, check_number
from .scaled import with_scales
from .tensorfile import looks_like_safetensors, open_safetensors

#: The first bytes of a zip file.
ZIP = b"PK\x03\x04"
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
# A misspelt name is compared with so many others, and no longer ones: comparing is slow.
_COMPARED, _LONGEST_COMPARED = 5000, 200


class Checkpoint:
    """The tensors in a file. Opening it reads names, shapes and types; a tensor is read when it is asked for.

    Args:
        path: the file, for error messages.
        tensors: by name, in the file's order.
        metadata: the texts that a safetensors file can have.
        unreadable: why some tensors, which are not among ``tensors``, can't be read (sparse and quantized ones), by name.
        beside: the keys at the top level of a file by torch.save, beside or above the tensors, such as ``epoch``.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, StoredTensor],
        metadata: Mapping[str, str] | None = None,
        unreadable: Mapping[str, str] | None = None,
        beside: Iterable[str] = (),
    ) -> None:
        self.path = path
        self.metadata: dict[str, str] = dict(metadata or {})
        self.unreadable: dict[str, str] = dict(unreadable or {})
        self.beside = frozenset(beside)
        self._tensors = dict(tensors)

    def names(self) -> list[str]:
        """The names of all tensors, in the file's order; those of a safetensors file are sorted."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            CheckpointError: there is no such tensor.
        """
        return self.stored(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """The type of a tensor in the file.

        Raises:
            CheckpointError: there is no such tensor.
        """
        return self.stored(name).dtype

    def tensor(self, name: str) -> torch.Tensor:
        """A copy of a tensor, on the CPU.

        Raises:
            CheckpointError: there is no such tensor, it can't be read, or the file was changed since it was opened.
        """
        stored = self.stored(name)
        with error_prefix(self.path):
            try:
                return stored.read()
            except (RuntimeError, ValueError, OSError) as error:
                if isinstance(error, CheckpointError):
                    raise
                raise CheckpointError(f"tensor {name!r:.160} can't be read ({error!s:.200}). Download the file again") from None

    def sound_tensor(self, name: str) -> torch.Tensor:
        """A tensor as :meth:`tensor` returns it, after a check of its checksum and its values.

        Raises:
            CheckpointError: there is no such tensor, its bytes are damaged, or it has NaN or infinite values.
        """
        tensor = self.tensor(name)
        self.verify(name)
        if not finite(tensor):
            wrong = ~torch.isfinite(tensor.float() if tensor.dtype.itemsize == 1 else tensor)
            raise CheckpointError(
                f"{self.path}: tensor {name!r:.160} has {int(wrong.sum())} numbers of {wrong.numel()} that are NaN or infinite; "
                "the file is damaged, or its training failed. Get another copy"
            )
        return tensor

    def verify(self, name: str) -> None:
        """Compare a tensor's bytes with the file's checksum. Zips written by torch.save have checksums, safetensors files don't.

        Raises:
            CheckpointError: they differ, or there is no such tensor.
        """
        with error_prefix(self.path):
            intact = self.stored(name).intact()
        if not intact:
            raise CheckpointError(
                f"{self.path}: tensor {name!r:.160} does not have the checksum it was saved with; the file is damaged. "
                "Download it again"
            )

    def renamed(self, names: Mapping[str, str]) -> Checkpoint:
        """The same file with other names for some tensors, given by their names in it."""
        tensors = {names.get(name, name): tensor for name, tensor in self._tensors.items()}
        unreadable = {names.get(name, name): reason for name, reason in self.unreadable.items()}
        return Checkpoint(self.path, tensors, self.metadata, unreadable, self.beside)

    def only(self, keep: Callable[[str], bool]) -> Checkpoint:
        """The same file with some of its tensors, chosen by their names."""
        tensors = {name: tensor for name, tensor in self._tensors.items() if keep(name)}
        unreadable = {name: reason for name, reason in self.unreadable.items() if keep(name)}
        return Checkpoint(self.path, tensors, self.metadata, unreadable, self.beside)

    def replaced(self, tensors: Mapping[str, StoredTensor]) -> Checkpoint:
        """The same file with other tensors in place of some, by name."""
        return Checkpoint(self.path, {**self._tensors, **tensors}, self.metadata, self.unreadable, self.beside)

    def stored(self, name: str) -> StoredTensor:
        """A tensor before it is read.

        Raises:
            CheckpointError: there is no such tensor.
        """
        try:
            return self._tensors[name]
        except KeyError:
            if name in self.unreadable:
                raise CheckpointError(f"{self.path}: tensor {name!r:.160} {self.unreadable[name]}") from None
            others = [each for each in islice(self._tensors, _COMPARED) if len(each) <= _LONGEST_COMPARED]
            near = difflib.get_close_matches(name[:_LONGEST_COMPARED], others, n=3)
            hint = f"; similar names are {', '.join(near)}" if near else ""
            raise CheckpointError(f"{self.path}: there is no tensor {name!r:.160} among its {len(self)}{hint}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)


def finite(tensor: torch.Tensor) -> bool:
    """Whether all elements are finite. It looks at the extremes, which are NaN if any element is; isfinite would need memory."""
    if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    low, high = torch.aminmax(tensor.float() if tensor.dtype.itemsize == 1 else tensor)  # aminmax knows no 8-bit types
    return bool(torch.isfinite(low) & torch.isfinite(high))


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a safetensors file, or one written by torch.save 1.6 or later. The content decides which, not the file's name.

    Raises:
        CheckpointError: the file can't be read or has no named tensors; the message says what it is and what to do.
    """
    path = Path(path)
    with _readable(path):
        return _open(path)


def open_tensor_list(path: str | Path) -> list[StoredTensor] | None:
    """The tensors of a file in which torch.save wrote a list of them, without names; None for any other file.

    Raises:
        CheckpointError: the file can't be read, or one of the tensors can't.
    """
    path = Path(path)
    with _readable(path):
        source = _source(path)
        if not source.read(0, 512).startswith(ZIP):
            return None
        file = open_pickled(source)
        if not is_tensor_list(file.content):
            return None
        check_number(len(file.content))
        check_claims(file.content, source.size)
        found: list[StoredTensor] = []
        for place, each in enumerate(file.content):
            if isinstance(each, Unreadable):
                raise CheckpointError(f"tensor {place} of its list {each.reason}")
            found.append(file.bind(each))
        return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Errors about a file begin with its path, and those of the system become CheckpointErrors."""
    with error_prefix(path):
        try:
            yield
        except FileNotFoundError:
            raise CheckpointError(_not_there(path)) from None
        except OSError as error:
            raise CheckpointError(f"can't be read: {error.strerror or error}") from error


def _source(path: Path) -> FileBytes:
    if path.is_dir():
        inside = sorted(item.name for item in path.iterdir() if item.suffix in SUFFIXES)
        hint = f"it holds {', '.join(inside[:5])}; give one of these" if inside else "give the checkpoint file"
        raise CheckpointError(f"is a folder, not a file; {hint}")
    return FileBytes(path)


def _open(path: Path) -> Checkpoint:
    source = _source(path)
    head = source.read(0, 512)
    metadata: dict[str, str] = {}
    beside: list[str] = []
    found: Mapping[str, StoredTensor | Unreadable]
    if looks_like_safetensors(head):
        found, metadata = open_safetensors(source)
    elif head.startswith(ZIP):
        file = open_pickled(source)
        records = tensors_of(file.content)
        beside = keys_of(file.content)
        check_number(len(records))
        check_claims(records.values(), source.size)
        found = {name: file.bind(each) if isinstance(each, TensorRecord) else each for name, each in records.items()}
    else:
        raise CheckpointError(foreign(head, source.size))
    found = without_wrappers(found)
    tensors = {name: each for name, each in found.items() if not isinstance(each, Unreadable)}
    unreadable = {name: each.reason for name, each in found.items() if isinstance(each, Unreadable)}
    if unreadable and not tensors:
        name, reason = next(iter(unreadable.items()))
        raise CheckpointError(f"none of its {len(unreadable)} tensors can be read; tensor {name!r:.120} {reason}")
    if not tensors:
        raise CheckpointError("there are no tensors in it; a VideoCrafter checkpoint has about 1,500. Choose another file")
    return Checkpoint(path, with_scales(tensors), metadata, unreadable, beside)


def _not_there(path: Path) -> str:
    """The message for a missing file, with similar names in its folder."""
    folder = path.parent
    if not folder.is_dir():
        return f"no such file, nor is there a folder {folder}"
    there = sorted(item.name for item in folder.iterdir() if item.suffix in SUFFIXES)
    lower = {name.lower(): name for name in there}
    near = [lower[name] for name in difflib.get_close_matches(path.name.lower(), lower, n=5, cutoff=0.5)] or there[:5]
    return "no such file; " + (f"in that folder there is {', '.join(near)}" if near else "there is no checkpoint in that folder")
