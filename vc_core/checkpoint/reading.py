"""Checkpoint files as a flat table of named tensors, read on use, without running code that they contain."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch

from .errors import CheckpointError, error_prefix, short_repr
from .globals import Global, Placeholder, TensorRecord
from .pickles import PickledFile, open_zip
from .tensorfile import looks_like_safetensors, open_safetensors

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
# DeepSpeed puts a prefix of 16 characters in front of every name below "module".
_MODULE_PREFIX = 16
_WRAPPERS = ("_forward_module.", "module._forward_module.", "state_dict.")


class StoredTensor(Protocol):
    """A tensor in a file, before it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def read(self) -> torch.Tensor: ...
    def intact(self) -> bool: ...


class Checkpoint:
    """The tensors in a file. Opening it reads names, shapes and types; a tensor is read when it is asked for.

    Args:
        path: the file, for error messages.
        tensors: by name, in the file's order.
        metadata: the texts that a safetensors file can have.
    """

    def __init__(self, path: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.metadata: dict[str, str] = dict(metadata or {})
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
        """A tensor, on the CPU. It lies in the file's memory mapping: do not write to it.

        Raises:
            CheckpointError: there is no such tensor, or it can't be read.
        """
        stored = self.stored(name)
        with error_prefix(self.path):
            try:
                return stored.read()
            except (RuntimeError, ValueError, OSError) as error:
                raise CheckpointError(f"tensor {name!r} can't be read ({error}). Download the file again") from error

    def sound_tensor(self, name: str) -> torch.Tensor:
        """A tensor as :meth:`tensor` returns it, after a check of its checksum and its values.

        Raises:
            CheckpointError: there is no such tensor, its bytes are damaged, or it has NaN or infinite values.
        """
        self.verify(name)
        tensor = self.tensor(name)
        if not finite(tensor):
            wrong = ~torch.isfinite(tensor.float() if tensor.dtype.itemsize == 1 else tensor)
            raise CheckpointError(
                f"{self.path}: tensor {name!r} has {int(wrong.sum())} numbers of {wrong.numel()} that are NaN or infinite; "
                "the file is damaged, or its training failed. Get another copy"
            )
        return tensor

    def verify(self, name: str) -> None:
        """Compare a tensor's bytes with the file's checksum. Zips written by torch.save have checksums, safetensors files don't.

        Raises:
            CheckpointError: they differ, or there is no such tensor.
        """
        if not self.stored(name).intact():
            raise CheckpointError(
                f"{self.path}: tensor {name!r} does not have the checksum it was saved with; the file is damaged. "
                "Download it again"
            )

    def renamed(self, names: Mapping[str, str]) -> Checkpoint:
        """The same file with other names for some tensors, given by their names in it."""
        return Checkpoint(self.path, {names.get(name, name): tensor for name, tensor in self._tensors.items()}, self.metadata)

    def stored(self, name: str) -> StoredTensor:
        """A tensor before it is read.

        Raises:
            CheckpointError: there is no such tensor.
        """
        try:
            return self._tensors[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._tensors, n=3)
            hint = f"; similar names are {', '.join(near)}" if near else ""
            raise CheckpointError(f"{self.path}: there is no tensor {name!r} among its {len(self)}{hint}") from None

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
    with error_prefix(path):
        try:
            return _open(path)
        except FileNotFoundError:
            raise CheckpointError(_not_there(path)) from None
        except OSError as error:
            raise CheckpointError(f"can't be read: {error.strerror or error}") from error


def _open(path: Path) -> Checkpoint:
    if path.is_dir():
        inside = sorted(item.name for item in path.iterdir() if item.suffix in SUFFIXES)
        found = f"it holds {', '.join(inside[:5])}; give one of these" if inside else "give the checkpoint file"
        raise CheckpointError(f"is a folder, not a file; {found}")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        if looks_like_safetensors(head):
            tensors, metadata = open_safetensors(path)
            named: Mapping[str, StoredTensor] = _without_wrapper(tensors)
        elif head.startswith(b"PK\x03\x04"):
            named, metadata = _from_pickle(open_zip(file)), {}
        else:
            raise CheckpointError(_foreign(head, size))
    if not named:
        raise CheckpointError("there are no tensors in it; a VideoCrafter checkpoint has about 1,500. Choose another file")
    return Checkpoint(path, named, metadata)


def _without_wrapper(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors without the prefix that a training wrapper gave all their names."""
    for prefix in _WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _from_pickle(file: PickledFile) -> dict[str, StoredTensor]:
    """The tensors under "state_dict", else those under "module" without their prefix, else those at the top level."""
    content = file.content
    if not isinstance(content, dict):
        what = {TensorRecord: "a single tensor without a name", list: "a list", tuple: "a list"}.get(type(content))
        if isinstance(content, (Global, Placeholder)):
            what = f"a whole Python object ({content.origin if isinstance(content, Placeholder) else content})"
        raise CheckpointError(
            f"it holds {what or type(content).__name__}, not tensors with names; save the model's state_dict() instead"
        )
    records = _records(content.get("state_dict"))
    if not records:
        records = _without_module_prefix(_records(content.get("module")))
    if not records:
        records = _records(content)
    if not records:
        raise CheckpointError(f"there are no tensors where a checkpoint has them; its top level has {_listing(content)}")
    return _without_wrapper({name: file.bind(record) for name, record in records.items()})


def _records(level: object) -> dict[str, TensorRecord]:
    """The tensors directly in a dictionary. Sparse and quantized ones are an error, since they would go missing silently."""
    if not isinstance(level, dict):
        return {}
    for name, value in level.items():
        if isinstance(value, Placeholder) and value.origin.startswith("torch._utils._rebuild_"):
            raise CheckpointError(
                f"tensor {short_repr(name, 120)} is sparse or quantized ({value.origin}); only plain tensors can be read. "
                "Save it from torch as a plain tensor"
            )
    return {name: value for name, value in level.items() if isinstance(name, str) and isinstance(value, TensorRecord)}


def _without_module_prefix(records: dict[str, TensorRecord]) -> dict[str, TensorRecord]:
    prefixes = {name[:_MODULE_PREFIX] for name in records}
    if len(prefixes) == 1 and prefixes.pop().endswith("."):
        return {name[_MODULE_PREFIX:]: record for name, record in records.items()}
    return records


def _listing(level: dict[object, object]) -> str:
    parts = []
    for key, value in list(level.items())[:8]:
        inside = len(_records(value))
        parts.append(f"{short_repr(key, 40)}" + (f" (with {inside} tensors)" if inside else ""))
    return ", ".join(parts) or "nothing"


def _not_there(path: Path) -> str:
    """The message for a missing file, with similar names in its folder."""
    folder = path.parent
    if not folder.is_dir():
        return f"no such file, nor is there a folder {folder}"
    there = sorted(item.name for item in folder.iterdir() if item.suffix in SUFFIXES)
    lower = {name.lower(): name for name in there}
    near = [lower[name] for name in difflib.get_close_matches(path.name.lower(), lower, n=5, cutoff=0.5)] or there[:5]
    return "no such file; " + (f"in that folder there is {', '.join(near)}" if near else "there is no checkpoint in that folder")


def _is_text(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\r\n\f" for byte in head)


# The first bytes of a pickle of 0x1950A86A20F9469CFC6C, with which torch.save began its files before version 1.6.
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_FOREIGN: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (lambda head: not head, "is empty (0 bytes). Download it again"),
    (
        lambda head: head.startswith(b"version https://git-lfs"),
        "is a git-lfs pointer, not the file itself. Fetch it with `git lfs pull`, or download it from its page",
    ),
    (
        lambda head: head.startswith(_OLD_TORCH),
        "was written by torch.save before torch 1.6, in a form that is not read here. If you trust it, open it with a recent torch "
        "and save it again: torch.save(torch.load(OLD, map_location='cpu', weights_only=True), NEW)",
    ),
    (
        lambda head: head.startswith(b"\x80"),
        "is a Python pickle, but not one that torch.save wrote. Its tensors can't be taken out safely: get the model as .safetensors, "
        "or as its authors published it",
    ),
    (
        lambda head: head.lstrip()[:1] == b"<" and _is_text(head),
        "is a web page (HTML) saved under this name, as happens when a download needs a login or the link leads to a page. Download "
        "it again with the page's download button",
    ),
    (
        lambda head: head.lstrip()[:1] in (b"{", b"[") and _is_text(head),
        "is JSON text, perhaps a server's error or an index of parts. Download the weights themselves",
    ),
    (lambda head: head.startswith(b"GGUF"), "is a GGUF file, whose weights are quantized. Get it as .safetensors or .ckpt"),
    (lambda head: head.startswith(b"PK"), "is an empty zip. Download it again"),
    (
        lambda head: head[257:262] == b"ustar",
        "is a tar archive. If there is a checkpoint in it, unpack it. torch.save wrote such files before 2017: if you trust it, open "
        "it with torch.load and save it again with torch.save",
    ),
    (
        lambda head: head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")),
        "is a compressed archive. Unpack it and use the checkpoint inside",
    ),
    (lambda head: head.startswith(b"\x89HDF"), "is an HDF5 file (Keras). Get the model as .safetensors or .ckpt"),
    (
        lambda head: not any(head),
        "begins with nothing but zeros, as a broken download does. Download it again",
    ),
)


def _foreign(head: bytes, size: int) -> str:
    """The message for a file that is not a checkpoint."""
    for matches, answer in _FOREIGN:
        if matches(head):
            return answer
    possible = "possible are .safetensors, and .ckpt, .pt, .pth and .bin as torch.save writes them"
    return f"is not a checkpoint ({size} bytes, beginning with {head[:16]!r}); {possible}. Check where it was downloaded from"
