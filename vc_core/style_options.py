"""The options of a style of images, for the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .adapters.table import ADAPTERS, AdapterKind
from .config import ModelConfig
from .errors import InputError
from .media.images import read_image
from .models.hooks import HookFactory
from .networks import Networks
from .style import style_of

#: Most that a strength of style can be.
MOST_STYLE = 5.0


@dataclass(frozen=True)
class StyleWish:
    """The style that a clip is to take on: of images ``[3, H, W]`` in [-1, 1], so strong."""

    images: Sequence[Tensor]
    strength: float

    def check(self, config: ModelConfig, adapters: Sequence[AdapterKind], has_image_encoder: bool) -> None:
        """
        Raises:
            InputError: the adapter for it is not given, or no image tower.
        """
        if ADAPTERS["style"] not in adapters:
            raise InputError("--style needs StyleCrafter's adapter: give its file as --adapter adapter_v1.pth.")
        if not has_image_encoder:
            raise InputError(
                f"{config.title} has no image tower, which reads the style: give OpenCLIP ViT-H/14's file as --image-encoder."
            )

    def of(self, model: Networks) -> HookFactory:
        """The hooks of the style, by a model with the adapter."""
        return style_of(model, self.images, self.strength)


def add_style_options(make: argparse.ArgumentParser, number: Callable[[str], float]) -> None:
    """Add the options to a command; ``number`` reads a number for argparse."""
    text = "image whose style the video takes on, with StyleCrafter's adapter (--adapter adapter_v1.pth); several together are one style"
    make.add_argument("--style", type=Path, action="append", default=[], help=text)
    make.add_argument("--style-strength", type=number, help="strength of the style; 0: none (default: 1)")


def check_style_options(arguments: argparse.Namespace) -> None:
    """
    Raises:
        InputError: a strength out of its range, or a guidance scale without a style.
    """
    strength: float | None = arguments.style_strength
    if strength is not None and not arguments.style:
        raise InputError("--style-strength is of a style: give --style.")
    if strength is not None and not 0 <= strength <= MOST_STYLE:
        raise InputError(f"--style-strength is {strength:g}; it must be 0 to {MOST_STYLE:g}.")
    if not arguments.style and getattr(arguments, "style_guidance_scale", None) is not None:
        raise InputError("--style-guidance-scale is of a style: give --style.")


def read_style(arguments: argparse.Namespace) -> StyleWish | None:
    """The style that the options ask for; None for none."""
    if not arguments.style:
        return None
    return StyleWish([read_image(path) for path in arguments.style], 1.0 if arguments.style_strength is None else arguments.style_strength)
