"""The functions and classes ("globals") that a pickle names and asks to be called.

None is ever imported. The few that tensors need are replaced by functions of this file, all others by inert placeholders, and a
file that names one whose only use is to run something is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import torch

from ..errors import printable
from .errors import CheckpointError, short_repr
from .records import MAX_DIMENSIONS, Storage, TensorRecord, Unreadable, record, with_properties

# The longest names of real modules and classes have about a hundred characters.
LONGEST_NAME = 500
MAX_ARGUMENTS = 16


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a function or class in a pickle; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return printable(f"{self.module}.{self.name}", 160)


@dataclass(frozen=True, slots=True, repr=False)
class Placeholder:
    """Takes the place of any object other than a tensor or a plain container; ``function`` was to be called to make it."""

    function: object

    @property
    def origin(self) -> str:
        """What it would have been, for a message."""
        return described(self.function)

    @property
    def is_tensor(self) -> bool:
        """Whether it would have been a tensor of a kind that is not read: sparse, quantized and the like."""
        made = self.function
        return isinstance(made, Global) and made.module == "torch._utils" and made.name.startswith("_rebuild_")

    def __repr__(self) -> str:
        return "an object"  # not what it is made of, which can be nested without end


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
# Types that torch has no storage class for are written as bytes, with the name of the type beside them.
DTYPES = _types(
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool", "complex64", "complex128"),
)

# Top-level modules that serve to run code, read files or open connections; no checkpoint needs them.
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
        *(("io", name) for name in ("open", "open_code", "FileIO")),
        *(("_io", name) for name in ("open", "open_code", "FileIO")),
        *(("types", name) for name in ("CodeType", "FunctionType")),
        *((module, name) for module in ("operator", "_operator") for name in ("methodcaller", "attrgetter")),
        *(("code", name) for name in ("interact", "InteractiveInterpreter", "InteractiveConsole")),
        *((module, "load") for module in ("torch", "torch.serialization", "torch.hub", "torch.jit", "numpy")),
    }
)


def _refuse(name: str) -> NoReturn:
    raise CheckpointError(
        f"refused: it asks for {printable(name, 160)} to be called, which no checkpoint needs and which could run a program on this "
        "machine. Nothing was run. Delete the file and get the model from its authors"
    )


def named_global(module: str, name: str) -> Global:
    """The global ``module.name``, by name only.

    Raises:
        CheckpointError: it is one whose only use is to run something; the message names it.
    """
    if len(module) + len(name) > LONGEST_NAME:
        raise CheckpointError(f"refused: it names a function of {len(module) + len(name)} characters, {printable(module + '.' + name, 60)}")
    # Protocol 4 allows dotted names, by which one module gives access to another ("torch.serialization", "os.system").
    root, parts = module.partition(".")[0], name.split(".")
    if (
        root in _REFUSED_MODULES
        or len(parts) > 1 and not _REFUSED_MODULES.isdisjoint(parts[:-1])
        or root in ("builtins", "__builtin__") and not _REFUSED_BUILTINS.isdisjoint(parts)
        or (module, name) in _REFUSED_NAMES
    ):
        _refuse(f"{module}.{name}")
    return Global(module, name)


def is_storage_type(value: object) -> bool:
    """Whether `value` names one of torch's storage classes."""
    return isinstance(value, Global) and value.module in ("torch", "torch.cuda", "torch.storage") and value.name in STORAGE_TYPES


def call(function: object, arguments: object) -> object:
    """The result of calling ``function``: a TensorRecord or a plain container for the few known ones, else a Placeholder."""
    if isinstance(function, Global):
        replacement = _REPLACEMENTS.get((function.module, function.name))
        if replacement is not None:
            # The longest list that torch writes has eight; a longer one would be copied at each mention.
            if not isinstance(arguments, (tuple, list)) or len(arguments) > MAX_ARGUMENTS:
                raise CheckpointError(f"damaged: {function} is called with something other than a short list of arguments")
            return replacement(*arguments)
    return Placeholder(function)


def described(value: object) -> str:
    """A value for an error message; a global by its name alone."""
    return str(value) if isinstance(value, Global) else short_repr(value)


def _tensor(storage: object, offset: object, shape: object, stride: object, *rest: object) -> TensorRecord | Unreadable:
    """After the strides come whether it needs gradients, its hooks, and its properties if it has any."""
    return with_properties(record(storage, offset, shape, stride), rest[2] if len(rest) > 2 else None)


def _typed_tensor(
    storage: object, offset: object, shape: object, stride: object, _grad: object, _hooks: object, dtype: object, *rest: object
) -> TensorRecord | Unreadable:
    """A tensor whose storage is bytes; its type is an argument."""
    known = DTYPES.get(dtype.name) if isinstance(dtype, Global) and dtype.module == "torch" else None
    if known is None:
        return Unreadable(f"has the type {described(dtype)}, which this version of torch can't read")
    if not isinstance(storage, Storage) or storage.dtype.itemsize != 1:
        raise CheckpointError("damaged: a tensor is built on something that is not a storage of bytes")
    typed = Storage(storage.key, known, storage.numel // known.itemsize)
    return with_properties(record(typed, offset, shape, stride), rest[0] if rest else None)


def _parameter(data: object, *_: object) -> object:
    return data


def _subclass(function: object, _type: object, arguments: object, *_: object) -> object:
    """A tensor of a subclass, or one with attributes: only its plain tensor is used."""
    plain = isinstance(function, Global) and (function.module, function.name) in _PLAIN
    return call(function, arguments) if plain else Placeholder(function)


def _dictionary(items: object = ()) -> dict[object, object]:
    """OrderedDict(), or OrderedDict of a list of pairs, as Python 2 wrote it."""
    if isinstance(items, dict):
        return items  # not a copy: a small pickle could ask for any number of copies
    result: dict[object, object] = {}
    if isinstance(items, list):
        for pair in items:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise CheckpointError("damaged: a dictionary is built from something other than pairs")
            set_item(result, pair[0], pair[1])
        items.clear()  # otherwise a small pickle could make any number of dictionaries out of one list
    return result


def _default_dictionary(_factory: object = None, items: object = ()) -> dict[object, object]:
    return _dictionary(items)


def _size(items: object = ()) -> object:
    return tuple(items) if isinstance(items, (tuple, list)) and len(items) <= MAX_DIMENSIONS else Placeholder("torch.Size")


def _attribute(owner: object, name: object, *_: object) -> Placeholder:
    """getattr: old protocols write nested classes and bound methods with it; attacks use it to reach private names."""
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isidentifier() or name.startswith("_"):
        _refuse(f"builtins.getattr({described(owner)}, {short_repr(name, 60)})")
    return Placeholder(f"an attribute {name[:60]}")


def set_item(target: object, key: object, value: object) -> None:
    """``target[key] = value`` for a dictionary; does nothing for other targets.

    Raises:
        CheckpointError: the dictionary has the key already, which no saved dictionary can.
    """
    if not isinstance(target, dict):
        return
    # Tensors are found by plain keys only, and others may be slow to hash: deeply nested tuples, or integers chosen to collide.
    if type(key) not in (str, bytes, bool, type(None)) and not (type(key) is int and -(2**31) < key < 2**31):
        return
    if key in target:
        raise CheckpointError(f"damaged: it names {short_repr(key, 120)} twice")
    target[key] = value


_PLAIN: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
}
_REPLACEMENTS: dict[tuple[str, str], Callable[..., object]] = {
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
