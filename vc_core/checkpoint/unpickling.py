"""A pickle interpreter that can't run anything: it builds numbers, strings, containers and descriptions of tensors.

Python's own unpickler is not used, not even a restricted one: it takes globals from a cache by extension code and calls whatever
they are. This one interprets the opcodes itself and knows globals by name only (``globals.py``), so it has nothing to call.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Any

from .errors import CheckpointError
from .globals import Placeholder, call, named_global, set_item

# The pickle describes the tensors and holds no weights; the largest real ones have a few megabytes.
MAX_PICKLE_BYTES = 16 * 2**20
# A tensor takes about forty opcodes, an object of an optimizer or a callback a few: 200,000 for a large model with its
# optimizer. Each can leave a container in memory.
MAX_OPCODES = 400_000
# Those of them that name a function, call one or refer to a storage: up to five for a tensor.
MAX_CALLS = 100_000
MAX_PROTOCOL = 5

Operation = Callable[["_Machine", Any], None]


class _Machine:
    """The interpreter's stack, marks and memo. Each public method executes an opcode; ``_OPERATIONS`` lists them."""

    def __init__(self, persistent: Callable[[object], object]) -> None:
        self._persistent = persistent
        self._stack: list[object] = []
        self._below: list[list[object]] = []  # the stacks beneath each open mark
        self._memo: dict[int, object] = {}
        self._calls = 0

    def _count(self) -> None:
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise CheckpointError(f"refused: it names and calls functions more than {MAX_CALLS} times, far more than any checkpoint")

    def push(self, value: object) -> None:
        """Also what opcodes do that only hold a number, a text or bytes."""
        self._stack.append(value)

    def result(self) -> object:
        return self._stack.pop()

    def _name(self, module: str, name: str) -> None:
        self._count()
        self.push(named_global(module, name))

    def _call(self, function: object, arguments: object) -> None:
        self._count()
        self.push(call(function, arguments))

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

    def protocol(self, version: Any) -> None:
        if version > MAX_PROTOCOL:
            raise CheckpointError(f"its pickle protocol is {version}; {MAX_PROTOCOL} and below can be read")

    def frame(self, _size: Any) -> None:
        """Nothing to do: a frame is only a hint for buffering."""

    def memoize(self, _argument: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def put(self, index: Any) -> None:
        self._memo[index] = self._stack[-1]

    def get(self, index: Any) -> None:
        self.push(self._memo[index])

    def mark(self, _argument: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop(self, _argument: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def pop_mark(self, _argument: Any) -> None:
        self._to_mark()

    def duplicate(self, _argument: Any) -> None:
        self.push(self._stack[-1])

    def persistent(self, _argument: Any) -> None:
        self._count()
        (identifier,) = self._pop(1)
        self.push(self._persistent(identifier))

    def short_tuple(self, count: int) -> None:
        items = self._pop(count)
        self.push(tuple(items))

    def make_tuple(self, _argument: Any) -> None:
        items = self._to_mark()
        self.push(tuple(items))

    def make_list(self, _argument: Any) -> None:
        items = self._to_mark()
        self.push(items)

    def make_dictionary(self, _argument: Any) -> None:
        items = self._to_mark()
        self.push({})
        self._set_items(items)

    def append(self, _argument: Any) -> None:
        self._extend(self._pop(1))

    def appends(self, _argument: Any) -> None:
        self._extend(self._to_mark())

    def set_item(self, _argument: Any) -> None:
        self._set_items(self._pop(2))

    def set_items(self, _argument: Any) -> None:
        self._set_items(self._to_mark())

    def empty_set(self, _argument: Any) -> None:
        self.push(Placeholder("set"))  # a set has no names, so no tensor of ours

    def frozen_set(self, _argument: Any) -> None:
        self._to_mark()
        self.push(Placeholder("frozenset"))

    def named_global(self, argument: Any) -> None:
        module, name = argument.split(" ")
        self._name(module, name)

    def stack_global(self, _argument: Any) -> None:
        module, name = self._pop(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a global's name is not text")
        self._name(module, name)

    def make_instance(self, argument: Any) -> None:
        module, name = argument.split(" ")
        items = self._to_mark()
        self._call(named_global(module, name), tuple(items))

    def make_object(self, _argument: Any) -> None:
        function, *items = self._to_mark()
        self._call(function, tuple(items))

    def reduce(self, _argument: Any) -> None:
        function, arguments = self._pop(2)
        self._call(function, arguments)

    def new_object(self, _argument: Any) -> None:
        function, arguments, _ = self._pop(3)
        self._call(function, arguments)

    def build(self, _argument: Any) -> None:
        target, _ = self._pop(2)
        self.push(target)  # the state is dropped: our objects have none


_LITERALS = """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE
    SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8""".split()
_OPERATIONS: dict[str, Operation] = {
    **dict.fromkeys(_LITERALS, _Machine.push),
    "PROTO": _Machine.protocol,
    "FRAME": _Machine.frame,
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    "BINPERSID": _Machine.persistent,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": _Machine.empty_set,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "TUPLE": _Machine.make_tuple,
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dictionary,
    "FROZENSET": _Machine.frozen_set,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.pop_mark,
    "GLOBAL": _Machine.named_global,
    "STACK_GLOBAL": _Machine.stack_global,
    "INST": _Machine.make_instance,
    "OBJ": _Machine.make_object,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_object,
    "BUILD": _Machine.build,
}


def _no_argument(_stream: io.BytesIO) -> None:
    """Most opcodes have none."""


#: By an opcode's byte: its name, how its argument is read, and what it does (None for those that torch.save never writes).
_OPCODES: dict[bytes, tuple[str, Callable[[io.BytesIO], Any], Operation | None]] = {
    opcode.code.encode("latin-1"): (opcode.name, opcode.arg.reader if opcode.arg else _no_argument, _OPERATIONS.get(opcode.name))
    for opcode in pickletools.opcodes
}


def read_pickle(data: bytes, persistent: Callable[[object], object]) -> object:
    """The object that a pickle describes.

    Args:
        data: the pickle, up to its end mark.
        persistent: maps a persistent identifier (a storage, in torch's files) to an object.

    Returns:
        Dictionaries, lists, tuples and scalars as they are; tensors as TensorRecord or Unreadable, globals as Global, all else as
        Placeholder.

    Raises:
        CheckpointError: the pickle is damaged or too large, or asks for something that only an attack needs.
    """
    stream, machine = io.BytesIO(data), _Machine(persistent)
    name, position = "its first opcode", 0
    try:
        for _ in range(MAX_OPCODES):
            position = stream.tell()
            code = stream.read(1)
            if not code:
                raise CheckpointError(f"cut short: its description ends at byte {position} without an end mark. Download it again")
            name, read_argument, operation = _OPCODES[code] if code in _OPCODES else (repr(code), _no_argument, None)
            if name == "STOP":
                return machine.result()
            if operation is None:
                # Among them are extension codes, text identifiers and out-of-band buffers.
                raise CheckpointError(f"refused: it uses the opcode {name}, which torch.save never writes. Nothing was run")
            operation(machine, read_argument(stream))
    except CheckpointError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"damaged or cut short: its description can't be read beyond byte {position} ({name}: {error!s:.120}). Download it again"
        ) from None
    raise CheckpointError(f"refused: its description takes more than {MAX_OPCODES} steps, far more than any checkpoint's")
