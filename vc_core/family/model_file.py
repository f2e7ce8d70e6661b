"""From a file to the parts of a model: identified, checked whole, then read part by part."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint, open_checkpoint
from ..config import ConfigError, ConfigLike, ModelConfig
from ..kernels.operations import operations_for
from ..models.autoencoder import Autoencoder
from ..models.image_encoder import ImageEncoder
from ..models.layers import Layers
from ..models.projector import Projector
from ..models.text_encoder import TextEncoder
from ..models.unet import UNet
from .identify import identify, part_prefixes

BUNDLED = Path(__file__).parents[1] / "bundled"
T = TypeVar("T")
#: How many wrong tensors an error lists.
LISTED = 20


def bundled_models() -> dict[str, Path]:
    """The models that come with the package, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.safetensors"))}


#: How each part of a model is built on ``meta``, of layers from such operations: names and shapes without weights.
BLANK: dict[str, Callable[..., nn.Module]] = {
    "unet": lambda config, operations=nn: UNet(config.unet, Layers(operations, device="meta")),
    "autoencoder": lambda config, operations=nn: Autoencoder(config.autoencoder, Layers(operations, device="meta")),
    "text_encoder": lambda config, operations=nn: TextEncoder(config.text_encoder, device="meta"),
    "image_encoder": lambda config, operations=nn: ImageEncoder(_needed(config.image_encoder, "image_encoder"), device="meta"),
    "projector": lambda config, operations=nn: Projector(_needed(config.projector, "projector"), Layers(operations, device="meta")),
}


def skeleton(config: ModelConfig) -> dict[str, nn.Module]:
    """Every network of a model on ``meta``."""
    parts = [part for part in BLANK if getattr(config, part) is not None]
    return {part: BLANK[part](config) for part in parts}


def _needed(part: T | None, name: str) -> T:
    if part is None:
        raise ConfigError(f"The file holds an {name}, but its configuration has none.")
    return part


@dataclass(frozen=True)
class ModelFile:
    """A file that is known to hold a model."""

    checkpoint: Checkpoint
    config: ModelConfig
    #: The parts that it holds, named as in :func:`skeleton`, and what their tensors' names start with.
    parts: dict[str, str]

    @classmethod
    def open(cls, path: str | os.PathLike[str], config: ConfigLike | None = None) -> ModelFile:
        """Identify a file and check that every tensor of its parts is there, in its shape.

        Args:
            path: a file, or the name of a bundled model.
            config: as in :func:`vc_core.family.identify.identify`.

        Raises:
            CheckpointError: the file can't be read, holds no model of the family, or contradicts the configuration; or tensors
                are missing, unexpected or of another shape, all of which are listed.
        """
        checkpoint = open_checkpoint(bundled_models().get(str(path), Path(path)))
        file = cls(checkpoint, identify(checkpoint, config), part_prefixes(checkpoint))
        file._check()
        return file

    def names(self, part: str) -> list[str]:
        """What the tensors of one part are called in the file."""
        return [self.parts[part] + name for name in BLANK[part](self.config).state_dict()]

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The weights of one part under the names of its network, as the file has them, memory-mapped.

        Raises:
            CheckpointError: a tensor that is damaged, or has NaN or infinite numbers.
        """
        prefix = self.parts[part]
        return {name: self.checkpoint.sound_tensor(prefix + name) for name in BLANK[part](self.config).state_dict()}

    def load(self, part: str, device: str | torch.device, dtype: torch.dtype) -> nn.Module:
        """The network of one part with its weights, for inference."""
        network = BLANK[part](self.config, operations_for(device))
        prefix = self.parts[part]
        weights = {name: self.checkpoint.sound_tensor(prefix + name).to(device, dtype) for name in network.state_dict()}
        network.load_state_dict(weights, assign=True)
        return network.requires_grad_(False).eval()

    def _check(self) -> None:
        problems: list[str] = []
        for part, prefix in self.parts.items():
            expected = {prefix + name: tuple(tensor.shape) for name, tensor in BLANK[part](self.config).state_dict().items()}
            present = {name: tuple(self.checkpoint.shape(name)) for name in self.checkpoint.names() if name.startswith(prefix)}
            problems += [f"missing {name} {list(shape)}" for name, shape in expected.items() if name not in present]
            # Without a prefix there is no telling what else a file's tensors belong to.
            problems += [f"unexpected {name}" for name in present if prefix and name not in expected]
            problems += [
                f"{name} is {list(present[name])}, expected {list(shape)}"
                for name, shape in expected.items()
                if name in present and present[name] != shape
            ]
        if problems:
            more = f"\n  ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
            listed = "\n  ".join(problems[:LISTED])
            raise CheckpointError(f"{self.checkpoint.path} does not fit the model it was taken for:\n  {listed}{more}")
