"""Compares the tensors of a file with those of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint

#: How many wrong tensors an error lists.
MAX_LISTED = 20

Shapes = Mapping[str, tuple[int, ...]]


def check_tensors(checkpoint: Checkpoint, networks: Iterable[tuple[str, Shapes]]) -> None:
    """Check that a file has all tensors of some networks, in the right shapes, and no others under their prefixes.

    Args:
        networks: for each, the prefix of its tensors' names in the file, and the tensors' shapes by name.

    Raises:
        CheckpointError: tensors are missing, unexpected or of another shape, all of which are listed.
    """
    problems: list[str] = []
    for prefix, shapes in networks:
        expected = {prefix + name: shape for name, shape in shapes.items()}
        present = {name: tuple(checkpoint.shape(name)) for name in checkpoint.names() if name.startswith(prefix)}
        problems += [f"missing {name} {list(shape)}" for name, shape in expected.items() if name not in present]
        # Without a prefix, other tensors may belong to other networks.
        problems += [f"unexpected {name}" for name in present if prefix and name not in expected]
        problems += [
            f"{name} is {list(present[name])}, expected {list(shape)}"
            for name, shape in expected.items()
            if name in present and present[name] != shape
        ]
    if problems:
        more = f"\n  ... and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        listed = "\n  ".join(problems[:MAX_LISTED])
        raise CheckpointError(f"{checkpoint.path} does not fit the model it was taken for:\n  {listed}{more}")
