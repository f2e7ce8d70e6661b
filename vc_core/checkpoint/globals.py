"""What the names that a pickle refers to mean to us: a rebuilder of tensors, nothing at all, or an attack.

A pickle names functions and classes ("globals") and asks for them to be called. None is ever imported here: the few that
tensors need are stood in for by functions of this file, all others by inert placeholders, and names with no other use than
to run something make the file refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import torch

from .errors import CheckpointError, shown, shown_name

MAX_DIMENSIONS = 64
# A tensor may repeat its storage (stride 0), as expanded buffers do, but not so as to fill the memory once it is copied.
MAX_REPEATED_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Global:
    """A function or class as the pickle names it; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return shown_name(f"{self.module}.{self.name}")


@dataclass(frozen=True)
class Placeholder:
    """Stands where an object other than a tensor or a plain container would be; takes everything, does nothing."""

    origin: str


@dataclass(frozen=True)
class Storage:
    """`numel` numbers of type `dtype`, from number `start` on, of the block of bytes that the file calls `key`."""

    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as described by the pickle, its bounds checked; `offset` and `stride` count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _types(*names: str) -> dict[str, torch.dtype]:
    return {name: getattr(torch, name) for name in names if hasattr(torch, name)}


STORAGE_TYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
# Types younger than the storage classes are written as bytes, with the type's own name beside them.
DTYPES = _types(
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "bool", "complex64", "complex128", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
)  # fmt: skip

# Top-level modules that no checkpoint has a use for, other than to run code, read files or open connections.
_REFUSED_MODULES = frozenset(
    """os posix nt posixpath ntpath subprocess _posixsubprocess sys socket _socket shutil runpy importlib _frozen_importlib
    _frozen_importlib_external imp pkgutil zipimport pty commands popen2 codeop bdb pdb cProfile timeit doctest pydoc
    ensurepip pip setuptools distutils ctypes _ctypes cffi multiprocessing _multiprocessing signal _signal threading _thread
    asyncio webbrowser antigravity http httplib urllib urllib2 requests aiohttp httpx ftplib smtplib telnetlib poplib imaplib
    nntplib xmlrpc socketserver ssl pickle _pickle cPickle shelve dill cloudpickle joblib marshal atexit faulthandler fcntl
    mmap linecache fileinput winreg _winreg msvcrt _winapi sqlite3""".split()
)
_REFUSED_BUILTINS = frozenset(
    """eval exec execfile compile __import__ setattr delattr open file input raw_input breakpoint globals locals vars apply
    reload exit quit __build_class__""".split()
)
_REFUSED_NAMES = frozenset(
    {
        ("io", "open"), ("io", "open_code"), ("io", "FileIO"), ("_io", "open"), ("_io", "open_code"), ("_io", "FileIO"),
        ("types", "CodeType"), ("types", "FunctionType"), ("operator", "methodcaller"), ("operator", "attrgetter"),
        ("_operator", "methodcaller"), ("_operator", "attrgetter"), ("code", "interact"), ("code", "InteractiveInterpreter"),
        ("code", "InteractiveConsole"), ("torch", "load"), ("torch.serialization", "load"), ("torch.hub", "load"),
        ("torch.jit", "load"), ("numpy", "load"),
    }
)  # fmt: skip


def _refuse(name: str) -> NoReturn:
    raise CheckpointError(
        f"refused: it asks for {shown_name(name)} to be called, which no checkpoint needs and which could run a program on this "
        "machine. Nothing was run. Delete the file and get the model from its authors"
    )


def named_global(module: str, name: str) -> Global:
    """The global `module.name`, as a mere name.

    Raises CheckpointError, naming it, where it is plainly there to run something.
    """
    # Protocol 4 allows dotted names, which reach through one module into another ("torch.serialization", "os.system").
    roots = {module.split(".")[0], *name.split(".")[:-1]}
    if (
        roots & _REFUSED_MODULES
        or module.split(".")[0] in ("builtins", "__builtin__")
        and not _REFUSED_BUILTINS.isdisjoint(name.split("."))
        or (module, name) in _REFUSED_NAMES
    ):
        _refuse(f"{module}.{name}")
    return Global(module, name)


def is_storage_type(value: object) -> bool:
    """Whether `value` names one of torch's storage classes."""
    return isinstance(value, Global) and value.module in ("torch", "torch.cuda", "torch.storage") and value.name in STORAGE_TYPES


def call(function: object, arguments: object) -> object:
    """What calling `function` would make: a TensorRecord or a plain container for the few known ones, else a Placeholder."""
    if isinstance(function, Global):
        stand_in = _STAND_INS.get((function.module, function.name))
        if stand_in is not None:
            if not isinstance(arguments, (tuple, list)):
                raise CheckpointError(f"damaged: {function} is called with something other than a list of arguments")
            return stand_in(*arguments)
    return Placeholder(described(function))


def described(value: object) -> str:
    """A value as a message shows it, a global by its name alone."""
    return str(value) if isinstance(value, Global) else shown(value)


def _record(storage: object, offset: object, shape: object, stride: object) -> TensorRecord:
    """Checks that the view lies inside its storage."""
    if not isinstance(storage, Storage):
        raise CheckpointError("damaged: a tensor is built on something that is not a storage")
    if not isinstance(shape, (tuple, list)) or not isinstance(stride, (tuple, list)):
        raise CheckpointError("damaged: the shape or the strides of a tensor are no lists of numbers")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"damaged: a tensor has {len(shape)} dimensions and {len(stride)} strides")
    # Larger ones, of which a pickle can have some with a million digits, would take for ever to multiply.
    if not isinstance(offset, int) or any(type(n) is not int or not 0 <= n < 2**63 for n in (offset, *shape, *stride)):
        raise CheckpointError(f"damaged: a tensor has offset {shown(offset)}, shape {shown(shape)}, strides {shown(stride)}")
    numel = 1
    for size in shape:
        numel *= size
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) if numel else offset - 1
    if last >= storage.numel:
        raise CheckpointError(
            f"damaged: a tensor of shape {shown(tuple(shape))} reaches to number {last} of storage {shown(storage.key)}, "
            f"which has {storage.numel}"
        )
    if numel > max(storage.numel, MAX_REPEATED_ELEMENTS):
        raise CheckpointError(
            f"refused: a tensor claims {numel} numbers, repeated out of the {storage.numel} of storage {shown(storage.key)}"
        )
    return TensorRecord(storage, offset, tuple(shape), tuple(stride))


def _tensor(storage: object, offset: object, shape: object, stride: object, *_: object) -> TensorRecord:
    return _record(storage, offset, shape, stride)


def _typed_tensor(
    storage: object, offset: object, shape: object, stride: object, _grad: object, _hooks: object, dtype: object, *_: object
) -> TensorRecord:
    """A tensor whose storage is bytes and whose type stands beside it."""
    known = DTYPES.get(dtype.name) if isinstance(dtype, Global) and dtype.module == "torch" else None
    if known is None:
        raise CheckpointError(f"a tensor has the type {described(dtype)}, which this version of torch can't read")
    if not isinstance(storage, Storage) or storage.dtype.itemsize != 1:
        raise CheckpointError("damaged: a tensor is built on something that is not a storage of bytes")
    return _record(Storage(storage.key, known, storage.numel // known.itemsize), offset, shape, stride)


def _parameter(data: object, *_: object) -> object:
    return data


def _subclass(function: object, _type: object, arguments: object, *_: object) -> object:
    """A tensor of a subclass, or with attributes: only the plain tensor in it counts."""
    plain = isinstance(function, Global) and (function.module, function.name) in _PLAIN
    return call(function, arguments) if plain else Placeholder(described(function))


def _dictionary(items: object = ()) -> dict[object, object]:
    """OrderedDict(), or OrderedDict of a list of pairs, as Python 2 wrote it."""
    if isinstance(items, dict):
        return items  # not a copy, of which a small pickle could ask for any number
    result: dict[object, object] = {}
    if isinstance(items, list):
        for pair in items:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise CheckpointError("damaged: a dictionary is built from something other than pairs")
            set_item(result, pair[0], pair[1])
        items.clear()  # it has served; out of one that is kept, dictionaries without end could be made
    return result


def _default_dictionary(_factory: object = None, items: object = ()) -> dict[object, object]:
    return _dictionary(items)


def _size(items: object = ()) -> object:
    return tuple(items) if isinstance(items, (tuple, list)) and len(items) <= MAX_DIMENSIONS else Placeholder("torch.Size")


def _attribute(owner: object, name: object, *_: object) -> Placeholder:
    """getattr: how old protocols write nested classes and bound methods, and how attacks reach for inner names."""
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        _refuse(f"builtins.getattr({described(owner)}, {shown(name, 60)})")
    return Placeholder(f"an attribute {shown_name(name, 60)}")


def set_item(target: object, key: object, value: object) -> None:
    """`target[key] = value` for a dictionary; other targets swallow it.

    Raises CheckpointError where the dictionary has the key already: no dictionary that was ever saved has one twice.
    """
    if not isinstance(target, dict):
        return
    # Only plain keys can lead to a tensor, and only theirs are sure to hash quickly: nested tuples can take for ever, and so can
    # numbers chosen to collide.
    if type(key) not in (str, bytes, bool, type(None)) and not (type(key) is int and abs(key) < 2**31):
        return
    if key in target:
        raise CheckpointError(f"damaged: it names {shown(key, 120)} twice")
    target[key] = value


_PLAIN: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
}
_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    **_PLAIN,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("torch", "Size"): _size,
    ("collections", "OrderedDict"): _dictionary,
    ("collections", "defaultdict"): _default_dictionary,
    ("builtins", "getattr"): _attribute,
    ("__builtin__", "getattr"): _attribute,
}
