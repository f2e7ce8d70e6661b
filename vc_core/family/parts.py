"""The parts of a model: where a file has them, which network each is, and how its sizes are read off the tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from ..config import ConfigError, ModelConfig
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
        prefix: what the names of its tensors start with in a published file.
        build: the network of a configuration, with layers of that factory.
        sizes: the values of its configuration that the tensors tell.
        for_images: of use only to a UNet that reads image tokens.
    """

    title: str
    prefix: str
    build: Callable[[ModelConfig, LayerFactory], nn.Module]
    sizes: Callable[[PartShapes], dict[str, Any]]
    for_images: bool = False


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
