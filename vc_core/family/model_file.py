"""Opens a model's file: the model is identified, all tensors are checked, then parts are read one by one."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checkpoint.reading import Checkpoint
from ..config import ConfigLike, ModelConfig
from ..kernels.operations import operations_for
from ..models.layers import LayerFactory
from .added import set_apart
from .checking import check_tensors
from .contents import Contents, check_unknown, classify, unused_kind
from .identify import identify, part_prefixes
from .naming import model_path
from .parts import PARTS, part_shapes
from .two_files import open_model

logger = logging.getLogger(__name__)


def meta_networks(config: ModelConfig) -> dict[str, nn.Module]:
    """Every network of a configuration on ``meta``: names and shapes without weights."""
    parts = [part for part in PARTS if getattr(config, part) is not None]
    return {part: PARTS[part].build(config, LayerFactory(device="meta")) for part in parts}


@dataclass(frozen=True)
class ModelFile:
    """A file that holds a model, checked."""

    checkpoint: Checkpoint
    config: ModelConfig
    #: The parts in it, by the names of :data:`PARTS`, and the prefix of their tensors' names.
    parts: dict[str, str]
    #: What its user should know of it.
    notes: tuple[str, ...] = ()
    #: The tensors of an adapter in the same file.
    added: Checkpoint | None = None

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], config: ConfigLike | None = None, base: str | os.PathLike[str] | None = None
    ) -> ModelFile:
        """Identify a file and check that it has all tensors of its parts, in the right shapes. Its notes are logged.

        Args:
            path: a file, or the name of a bundled model.
            config: as in :func:`vc_core.family.identify.identify`.
            base: a file with the parts that ``path`` lacks, see :mod:`.two_files`.

        Raises:
            CheckpointError: the file can't be read, holds no model of the family, or contradicts the configuration; or tensors
                are missing, unexpected, of another shape, or unknown and like a part of the model, all of which are listed.
        """
        whole, notes = open_model(model_path(path), None if base is None else model_path(base))
        checkpoint, added = set_apart(whole)
        file = cls(checkpoint, identify(checkpoint, config), part_prefixes(checkpoint), notes, added)
        networks = [(prefix, part_shapes(file.config, part)) for part, prefix in file.parts.items()]
        check_tensors(checkpoint, networks, file._is_spare, lambda name: unused_kind(name) is not None)
        check_unknown(checkpoint, file.contents(), file.parts)
        for note in notes:
            logger.warning(note)
        return file

    def contents(self) -> Contents:
        """All tensors of the file, sorted by whether they are used."""
        used = [name for part in self.parts for name in self.names(part)]
        return classify([*self.checkpoint.names(), *self.checkpoint.unreadable], used)

    def names(self, part: str) -> list[str]:
        """The names of one part's tensors in the file. Those that nothing uses may be missing there."""
        return [self.parts[part] + name for name in part_shapes(self.config, part)]

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The weights of one part by their names in its network, in the file's data type.

        Raises:
            CheckpointError: a tensor is damaged, or has NaN or infinite numbers.
        """
        return {name: self._weight(part, name, shape) for name, shape in part_shapes(self.config, part).items()}

    def load_into(self, part: str, network: nn.Module) -> None:
        """Load the weights of one part into a network, one module after the other, so that all of them are in memory only once.

        Each module loads its own, since under ComfyUI it may have no memory for them before.

        Raises:
            CheckpointError: as :meth:`tensors`.
        """
        shapes, modules = part_shapes(self.config, part), dict(network.named_modules())
        owned: dict[str, dict[str, str]] = {}
        for name in shapes:
            owner, _, short = name.rpartition(".")
            owned.setdefault(owner, {})[short] = name
        for owner in sorted(owned, key=lambda each: each.count(".") if each else -1):  # a module before those in it
            weights = {short: self._weight(part, name, shapes[name]) for short, name in owned[owner].items()}
            modules[owner].load_state_dict(weights, strict=False)

    def load(self, part: str, device: str | torch.device, dtype: torch.dtype) -> nn.Module:
        """The network of one part with its weights, for inference."""
        network = PARTS[part].build(self.config, LayerFactory(operations_for(device), device="meta"))
        # One tensor after the other, so that the file's and the converted weights are not in memory together.
        shapes = part_shapes(self.config, part)
        weights = {name: self._weight(part, name, shape).to(device, dtype) for name, shape in shapes.items()}
        network.load_state_dict(weights, assign=True)
        return network.requires_grad_(False).eval()

    def _is_spare(self, name: str) -> bool:
        """Whether a tensor of the file, by its name there, may be missing."""
        return any(name.startswith(prefix + start) for part, prefix in self.parts.items() for start in PARTS[part].spare(self.config))

    def _weight(self, part: str, name: str, shape: tuple[int, ...]) -> Tensor:
        """One weight; zeros for a spare one that the file lacks."""
        given = self.parts[part] + name
        if given not in self.checkpoint and self._is_spare(given):
            return torch.zeros(shape, dtype=next(self.checkpoint.dtype(each) for each in self.names(part) if each in self.checkpoint))
        return self.checkpoint.sound_tensor(given)
