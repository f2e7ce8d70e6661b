"""The style of images for a run (StyleCrafter, arXiv:2312.00330)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .adapters.style import Style, StyleAdapter
from .errors import InputError
from .media.images import check_images
from .models.image_encoder import ImageEncoder, prepare_images
from .networks import Networks

#: Side of the square that its authors cut of an image before CLIP sees it, in pixels.
SQUARE = 512


def style_square(image: Tensor) -> Tensor:
    """The middle of an image as the adapter's authors cut it: scaled to 512 pixels on its short side, by Pillow in 8 bits.

    Args:
        image: ``[3, H, W]`` in [-1, 1].

    Returns:
        ``[3, 512, 512]`` in [-1, 1].
    """
    pixels = ((image.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    height, width = pixels.shape[:2]
    short = min(height, width)
    size = int(SQUARE * width / short), int(SQUARE * height / short)
    scaled = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - SQUARE) / 2) for side in size)
    cut = np.asarray(scaled.crop((left, top, left + SQUARE, top + SQUARE)), dtype=np.float32)
    return torch.from_numpy(cut).permute(2, 0, 1) / 127.5 - 1


def with_normed_class(tokens: Tensor, normed: Tensor) -> Tensor:
    """A tower's tokens ``[n, 1 + patches, width]`` with the class token ``[n, 1, width]`` after the last norm, rounded to float16."""
    return torch.cat([normed, tokens[:, 1:]], dim=1).half().float()


@torch.inference_mode()
def style_features(encoder: ImageEncoder, images: Tensor | Sequence[Tensor]) -> Tensor:
    """Features of style images.

    Args:
        images: each ``[3, H, W]`` in [-1, 1], of any size.

    Returns:
        ``[n, 1 + patches, width]``, rounded to float16 as in the authors' code.

    Raises:
        InputError: no images, or images of another shape.
    """
    if not len(images):
        raise InputError("There are no style images: give at least one.")
    for image in images:
        check_images(image[None], "a style image")
    weight = encoder.conv1.weight
    squares = torch.stack([style_square(image) for image in images]).to(weight.device)
    tokens = encoder(prepare_images(squares, encoder.config.image_size).to(weight.dtype))
    return with_normed_class(tokens, encoder.ln_post(tokens[:, :1]))


def style_of(
    model: Networks, images: Tensor | Sequence[Tensor], strength: float = 1.0, per_frame: bool = False, still: bool = False
) -> Style:
    """The style of images, for the ``hooks`` of a run's settings.

    Args:
        model: with the adapter, and with an image tower (``adapters=`` and ``image_encoder=`` of :func:`vc_core.load`).
        images, strength, per_frame, still: see :func:`style_features` and :class:`vc_core.adapters.style.Style`.

    Raises:
        InputError: a model without the adapter or without an image tower.
    """
    adapter = next((each for each in model.adapters.values() if isinstance(each, StyleAdapter)), None)
    if adapter is None:
        raise InputError("A style of images needs StyleCrafter's adapter: load adapter_v1.pth with the model (adapters=, --adapter).")
    encoder = model.networks.get("image_encoder")
    if not isinstance(encoder, ImageEncoder):
        raise InputError(
            f"{model.config.title} has no image tower, which reads the style's images: load OpenCLIP ViT-H/14's file beside it "
            "(image_encoder=, --image-encoder)."
        )
    return Style(adapter, style_features(encoder, images), strength, per_frame, still)
