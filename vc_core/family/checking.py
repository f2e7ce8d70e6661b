"""Compares the tensors of a file with those of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint
from .contents import explained

#: How many wrong tensors an error lists.
MAX_LISTED = 20

Shapes = Mapping[str, tuple[int, ...]]


def _none(_name: str) -> bool:
    return False


def check_tensors(
    checkpoint: Checkpoint,
    networks: Iterable[tuple[str, Shapes]],
    may_lack: Callable[[str], bool] = _none,
    may_have: Callable[[str], bool] = _none,
) -> None:
    """Check that a file has all tensors of some networks, in the right shapes, and no others under their prefixes.

    Args:
        networks: for each, the prefix of its tensors' names in the file, and the tensors' shapes by name.
        may_lack: tensors, by their names in the file, that may be missing.
        may_have: others that may be there.

    Raises:
        CheckpointError: tensors are missing, unexpected, of another shape or unreadable, all of which are listed.
    """
    problems: list[str] = []
    for prefix, shapes in networks:
        expected = {prefix + name: shape for name, shape in shapes.items()}
        present = {name: tuple(checkpoint.shape(name)) for name in checkpoint.names() if name.startswith(prefix)}
        for name, shape in expected.items():
            if name in present:
                if present[name] != shape:
                    problems.append(f"{name} is {list(present[name])}, expected {list(shape)}")
            elif name in checkpoint.unreadable:
                problems.append(f"{name} {checkpoint.unreadable[name]}")
            elif not may_lack(name):
                problems.append(f"missing {name} {list(shape)}")
        # Without a prefix, other tensors may belong to other networks.
        problems += [f"unexpected {explained(name)}" for name in present if prefix and name not in expected and not may_have(name)]
    if problems:
        more = [f"... and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
        raise CheckpointError(f"{checkpoint.path} does not fit the model it was taken for:", problems[:MAX_LISTED] + more)
