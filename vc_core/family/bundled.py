"""The models that come with the package, and how their files are kept small.

Models that have a part in common share one copy of it: a bundled file's metadata lists the files of ``bundled/shared`` that it
needs. A model that was made of another by changing some of its tensors names that one, and holds only those tensors. A table with
few non-zero rows is stored as those rows: the tensors ``NAME.shape``, ``NAME.rows`` (their indices) and ``NAME.values``.
``python -m dev.bundle`` writes such files; converting a bundled model makes an ordinary file of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint, open_checkpoint
from ..checkpoint.records import StoredTensor

BUNDLED = Path(__file__).parents[1] / "bundled"
#: The metadata of a bundled file list its shared files under this key, separated by spaces.
SHARED_KEY = "vc_core.shared"
#: The file of the bundled model whose tensors stand for those that a file lacks.
BASE_KEY = "vc_core.base"
SHAPE, ROWS, VALUES = ".shape", ".rows", ".values"


@dataclass(frozen=True)
class SparseRows:
    """A table ``[n, d]`` of which only some rows are not zero."""

    shape: tuple[int, ...]
    rows: Tensor  # [m]
    values: Tensor  # [m, d]

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def read(self) -> Tensor:
        """The complete table."""
        return torch.zeros(self.shape, dtype=self.dtype).index_copy_(0, self.rows, self.values)

    def intact(self) -> bool:
        """Always True: there is no checksum."""
        return True


def bundled_models() -> dict[str, Path]:
    """The files of the models that come with the package, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.safetensors"))}


def bundled_statistics() -> dict[str, Path]:
    """The statistics for the initial noise that come with the package (:mod:`vc_core.diffusion.initial_noise`), by name."""
    return {path.stem: path for path in sorted((BUNDLED / "statistics").glob("*.safetensors"))}


def with_shared_parts(checkpoint: Checkpoint) -> Checkpoint:
    """The complete model of a bundled file; other checkpoints are returned unchanged.

    Raises:
        CheckpointError: a bundled file outside its folder, so that its shared parts are missing.
    """
    if SHARED_KEY not in checkpoint.metadata:
        return checkpoint
    if checkpoint.path.resolve().parent != BUNDLED.resolve():
        raise CheckpointError(
            f"{checkpoint.path} is only a part of a bundled model; the rest is in other files of the package. Use the model by its name "
            f"({', '.join(bundled_models())}), or write a complete file of it: python -m vc_core convert NAME new.safetensors"
        )
    files = [open_checkpoint(BUNDLED / "shared" / name) for name in checkpoint.metadata[SHARED_KEY].split()]
    if BASE_KEY in checkpoint.metadata:
        files.insert(0, with_shared_parts(open_checkpoint(BUNDLED / checkpoint.metadata[BASE_KEY])))
    stored = {name: file.stored(name) for file in (*files, checkpoint) for name in file}
    metadata = {key: text for key, text in checkpoint.metadata.items() if key not in (SHARED_KEY, BASE_KEY)}
    return Checkpoint(checkpoint.path, dict(sorted(_complete(stored).items())), metadata)


def _complete(stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors by name, with each table of sparse rows as one."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        table, suffix = name[: -len(SHAPE)], name[-len(SHAPE) :]
        if suffix == SHAPE:
            shape = tuple(tensor.read().tolist())
            found[table] = SparseRows(shape, stored[table + ROWS].read(), stored[table + VALUES].read())
        elif not name.endswith((ROWS, VALUES)):
            found[name] = tensor
    return found
