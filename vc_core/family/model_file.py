"""Opens a model's file: the model is identified, all tensors are checked, then parts are read one by one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from ..checkpoint.reading import Checkpoint, open_checkpoint
from ..config import ConfigLike, ModelConfig, from_yaml, to_yaml
from ..kernels.operations import operations_for
from ..models.layers import LayerFactory
from .bundled import with_shared_parts
from .checking import check_tensors
from .identify import identify, part_prefixes, with_our_names
from .naming import model_path
from .parts import PARTS


def meta_networks(config: ModelConfig) -> dict[str, nn.Module]:
    """Every network of a configuration on ``meta``: names and shapes without weights."""
    parts = [part for part in PARTS if getattr(config, part) is not None]
    return {part: PARTS[part].build(config, LayerFactory(device="meta")) for part in parts}


def part_shapes(config: ModelConfig, part: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a part's tensors by their names in its network."""
    return _cached_shapes(part, to_yaml(config))


@lru_cache(maxsize=64)
def _cached_shapes(part: str, yaml: str) -> dict[str, tuple[int, ...]]:
    network = PARTS[part].build(from_yaml(yaml), LayerFactory(device="meta"))
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@dataclass(frozen=True)
class ModelFile:
    """A file that holds a model, checked."""

    checkpoint: Checkpoint
    config: ModelConfig
    #: The parts in it, by the names of :data:`PARTS`, and the prefix of their tensors' names.
    parts: dict[str, str]

    @classmethod
    def open(cls, path: str | os.PathLike[str], config: ConfigLike | None = None) -> ModelFile:
        """Identify a file and check that it has all tensors of its parts, in the right shapes.

        Args:
            path: a file, or the name of a bundled model.
            config: as in :func:`vc_core.family.identify.identify`.

        Raises:
            CheckpointError: the file can't be read, holds no model of the family, or contradicts the configuration; or tensors
                are missing, unexpected or of another shape, all of which are listed.
        """
        checkpoint = open_checkpoint(model_path(path))
        checkpoint = with_our_names(with_shared_parts(checkpoint))
        file = cls(checkpoint, identify(checkpoint, config), part_prefixes(checkpoint))
        check_tensors(checkpoint, [(prefix, part_shapes(file.config, part)) for part, prefix in file.parts.items()])
        return file

    def names(self, part: str) -> list[str]:
        """The names of one part's tensors in the file."""
        return [self.parts[part] + name for name in part_shapes(self.config, part)]

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The weights of one part by their names in its network, in the file's data type, memory-mapped.

        Raises:
            CheckpointError: a tensor is damaged, or has NaN or infinite numbers.
        """
        prefix = self.parts[part]
        return {name: self.checkpoint.sound_tensor(prefix + name) for name in part_shapes(self.config, part)}

    def load(self, part: str, device: str | torch.device, dtype: torch.dtype) -> nn.Module:
        """The network of one part with its weights, for inference."""
        network = PARTS[part].build(self.config, LayerFactory(operations_for(device), device="meta"))
        prefix = self.parts[part]
        # One tensor after the other, so that the file's mapping and the converted weights are not in memory together.
        weights = {name: self.checkpoint.sound_tensor(prefix + name).to(device, dtype) for name in part_shapes(self.config, part)}
        network.load_state_dict(weights, assign=True)
        return network.requires_grad_(False).eval()
