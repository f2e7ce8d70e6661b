"""The parts of a model: the prefix of each in a file, its network, and how its sizes are read off the tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from torch import nn

from ..config import ModelConfig, from_yaml, to_yaml
from ..errors import ConfigError
from ..models.autoencoder import Autoencoder
from ..models.image_encoder import ImageEncoder
from ..models.layers import LayerFactory
from ..models.projector import Projector
from ..models.text_encoder import TextEncoder
from ..models.unet import UNet
from . import sizes
from .sizes import PartShapes

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
        title: its name in messages.
        prefix: start of its tensors' names in a published file.
        build: makes the network of a configuration, with the layers of a factory.
        sizes: reads values of its configuration off the tensors.
        for_images: used only by UNets that read image tokens.
        spare: the starts of the names of tensors that a published file has but nothing uses; they may be missing.
    """

    title: str
    prefix: str
    build: Callable[[ModelConfig, LayerFactory], nn.Module]
    sizes: Callable[[PartShapes], dict[str, Any]]
    for_images: bool = False
    spare: Callable[[ModelConfig], tuple[str, ...]] = lambda _config: ()


def _configured(part: T | None, name: str) -> T:
    if part is None:
        raise ConfigError(f"The file holds an {name}, but its configuration has none.")
    return part


#: By the names of the fields of :class:`ModelConfig`.
PARTS = {
    "unet": Part(
        "UNet",
        "model.diffusion_model.",
        lambda config, layers: UNet(config.unet, layers),
        sizes.read_unet,
    ),
    "autoencoder": Part(
        "autoencoder",
        "first_stage_model.",
        lambda config, layers: Autoencoder(config.autoencoder, layers),
        sizes.read_autoencoder,
    ),
    "text_encoder": Part(
        "text encoder",
        "cond_stage_model.model.",
        lambda config, layers: TextEncoder(config.text_encoder, layers.device, layers.dtype),
        sizes.read_text_encoder,
        spare=lambda config: ("logit_scale", "text_projection", f"transformer.resblocks.{config.text_encoder.layers - 1}."),
    ),
    "image_encoder": Part(
        "image encoder",
        "embedder.model.visual.",
        lambda config, layers: ImageEncoder(_configured(config.image_encoder, "image_encoder"), layers.device, layers.dtype),
        sizes.read_image_encoder,
        for_images=True,
    ),
    "projector": Part(
        "projector",
        "image_proj_model.",
        lambda config, layers: Projector(_configured(config.projector, "projector"), layers),
        sizes.read_projector,
        for_images=True,
    ),
}


def part_shapes(config: ModelConfig, part: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a part's tensors by their names in its network."""
    return _cached_shapes(part, to_yaml(config))


@lru_cache(maxsize=64)
def _cached_shapes(part: str, yaml: str) -> dict[str, tuple[int, ...]]:
    network = PARTS[part].build(from_yaml(yaml), LayerFactory(device="meta"))
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
