"""A pickle machine that can't run anything: it builds numbers, strings, containers and descriptions of tensors.

Python's own unpickler is not used, not even restricted: it takes globals from a cache by extension code and calls whatever
it was handed. This one interprets the opcodes itself, on mere names (`stand_ins.py`), so there is nothing in it to be called.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable
from typing import IO, Any, cast

from .errors import CheckpointError
from .globals import Placeholder, call, named_global, set_item

# The pickle of a checkpoint describes it and holds no weights; the largest genuine ones have a few megabytes.
MAX_PICKLE_BYTES = 256 * 2**20
# A tensor takes some forty opcodes, an object of an optimizer or callback a few; each may leave a container in memory.
MAX_OPCODES = 10_000_000
MAX_PROTOCOL = 5


class PickleStream:
    """Reads on from `position` in `data` (bytes, or a file's mapping), at most `limit` bytes in all."""

    def __init__(self, data: bytes | mmap.mmap, position: int = 0, limit: int = MAX_PICKLE_BYTES) -> None:
        self._data = data
        self._position = position
        self._end = min(len(data), position + limit)
        self._limited = len(data) > self._end

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        stop = self._position + count
        if stop > self._end and self._limited:
            raise CheckpointError(f"refused: its description is larger than {MAX_PICKLE_BYTES >> 20} MB")
        piece = bytes(self._data[self._position : min(stop, self._end)])
        self._position += len(piece)
        return piece

    def readline(self) -> bytes:
        found = self._data.find(b"\n", self._position, self._end)
        return self.read((self._end if found < 0 else found + 1) - self._position)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE
    SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8""".split()
)


class _Machine:
    """The pickle machine's stack, marks and memo; one method or branch an opcode."""

    def __init__(self, persistent: Callable[[object], object]) -> None:
        self._persistent = persistent
        self._stack: list[object] = []
        self._below: list[list[object]] = []  # the stacks beneath each open mark
        self._memo: dict[int, object] = {}

    def _to_mark(self) -> list[object]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def _pop(self, count: int) -> list[object]:
        if len(self._stack) < count:
            raise IndexError("too little on the stack")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)

    def _set_items(self, items: list[object]) -> None:
        if len(items) % 2:
            raise IndexError("a key without a value")
        target = self._stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            set_item(target, key, value)

    def result(self) -> object:
        return self._stack.pop()

    def step(self, name: str, argument: Any) -> None:
        """Carries out one opcode other than STOP."""
        push = self._stack.append
        if name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _LITERALS:
            push(argument)
        elif name == "PROTO":
            if argument > MAX_PROTOCOL:
                raise CheckpointError(f"its pickle protocol is {argument}; {MAX_PROTOCOL} and below can be read")
        elif name == "FRAME":
            pass  # only a hint for buffering
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self._memo[argument])
        elif name == "MARK":
            self._below.append(self._stack)
            self._stack = []
        elif name == "POP":
            if self._stack:
                self._stack.pop()
            else:
                self._to_mark()
        elif name == "POP_MARK":
            self._to_mark()
        elif name == "DUP":
            push(self._stack[-1])
        elif name == "BINPERSID":
            (identifier,) = self._pop(1)
            push(self._persistent(identifier))
        elif not self._containers(name):
            self._objects(name, argument)

    def _containers(self, name: str) -> bool:
        """Carries out an opcode about containers; False for all others."""
        if name == "EMPTY_DICT":
            self._stack.append({})
        elif name == "EMPTY_LIST":
            self._stack.append([])
        elif name == "EMPTY_TUPLE":
            self._stack.append(())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = self._pop(int(name[-1]))
            self._stack.append(tuple(items))
        elif name == "TUPLE":
            items = self._to_mark()
            self._stack.append(tuple(items))
        elif name == "LIST":
            items = self._to_mark()
            self._stack.append(items)
        elif name == "DICT":
            items = self._to_mark()
            self._stack.append({})
            self._set_items(items)
        elif name == "APPEND":
            self._extend(self._pop(1))
        elif name == "APPENDS":
            self._extend(self._to_mark())
        elif name == "SETITEM":
            self._set_items(self._pop(2))
        elif name == "SETITEMS":
            self._set_items(self._to_mark())
        elif name == "EMPTY_SET":
            self._stack.append(Placeholder("set"))  # no tensor can be found in a set by its name
        elif name == "FROZENSET":
            self._to_mark()
            self._stack.append(Placeholder("frozenset"))
        elif name == "ADDITEMS":
            self._to_mark()
        else:
            return False
        return True

    def _objects(self, name: str, argument: Any) -> None:
        """Carries out an opcode that names a global, or calls one, or would."""
        if name == "GLOBAL":
            module, attribute = argument.split(" ")
            self._stack.append(named_global(module, attribute))
        elif name == "STACK_GLOBAL":
            module, attribute = self._pop(2)
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise TypeError("a global's name is no text")
            self._stack.append(named_global(module, attribute))
        elif name == "INST":
            module, attribute = argument.split(" ")
            items = self._to_mark()
            self._stack.append(call(named_global(module, attribute), tuple(items)))
        elif name == "OBJ":
            function, *items = self._to_mark()
            self._stack.append(call(function, tuple(items)))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = self._pop(2)
            self._stack.append(call(function, arguments))
        elif name == "NEWOBJ_EX":
            function, arguments, _ = self._pop(3)
            self._stack.append(call(function, arguments))
        elif name == "BUILD":
            target, _ = self._pop(2)
            self._stack.append(target)  # the state is dropped: no object of ours has one
        else:
            # Extension codes, text identifiers and out-of-band buffers among them.
            raise CheckpointError(f"refused: it uses the opcode {name}, which torch.save never writes. Nothing was run")


def read_pickle(stream: PickleStream, persistent: Callable[[object], object]) -> object:
    """The object that the pickle at the stream's position describes; the stream stands behind it afterwards.

    Dictionaries, lists, tuples and scalars are themselves, tensors are `TensorRecord`s, a global is a `Global`, all else is a
    `Placeholder`. `persistent` maps a persistent identifier (in torch's files, a storage) to an object.
    Raises CheckpointError for a damaged pickle, one that is too large, and one that asks for what only an attack would.
    """
    machine = _Machine(persistent)
    name, position, done = "its first opcode", stream.tell(), 0
    try:
        for opcode, argument, at in pickletools.genops(cast(IO[bytes], stream)):
            name, position = opcode.name, stream.tell() if at is None else at
            if name == "STOP":
                return machine.result()
            machine.step(name, argument)
            done += 1
            if done > MAX_OPCODES:
                raise CheckpointError(f"refused: its description takes more than {MAX_OPCODES} steps, far more than any checkpoint's")
    except CheckpointError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"damaged or cut short: its description can't be read beyond byte {position} ({name}: {error!s:.120}). "
            "Download it again"
        ) from error
    raise CheckpointError(f"cut short: its description ends at byte {position} without an end mark. Download it again")
