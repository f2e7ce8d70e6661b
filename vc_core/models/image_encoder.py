"""OpenCLIP's image tower, all of its tokens, as VideoCrafter1's image to video reads an image (arXiv:2310.19512, section 3.2).

Module names are those under ``embedder.model.visual.`` in the published files. The last norm and the projection are used only for
CLIP's embedding, to measure similarity.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import ImageEncoderConfig
from ..media.resizing import resize_cubic
from .openclip import transformer

#: CLIP's mean and standard deviation of each channel, for pixels in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def prepare_images(images: Tensor, size: int = 224) -> Tensor:
    """Images prepared as in the authors' code: stretched to a square, not cropped, and normalized.

    Args:
        images: ``[B, 3, H, W]`` in [-1, 1], any size.

    Returns:
        ``[B, 3, size, size]``, normalized by CLIP's mean and standard deviation.
    """
    resized = resize_cubic(images, size, size)
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, STD))
    return ((resized + 1) / 2 - mean) / std


class ImageEncoder(nn.Module):
    """Prepared images to their class token and patches: the last layer's output, without the norm after it."""

    def __init__(self, config: ImageEncoderConfig, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.config = config
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        width = config.width
        tokens = (config.image_size // config.patch_size) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False, **where)
        self.class_embedding = nn.Parameter(torch.zeros(width, **where))
        self.positional_embedding = nn.Parameter(torch.zeros(tokens, width, **where))
        self.ln_pre = nn.LayerNorm(width, **where)
        self.transformer = transformer(width, config.heads, config.layers, device, dtype)
        self.ln_post = nn.LayerNorm(width, **where)
        self.proj = nn.Parameter(torch.zeros(width, config.embed_dim, **where))

    def forward(self, pixels: Tensor) -> Tensor:
        """:func:`prepare_images`' ``[B, 3, image_size, image_size]`` -> ``[B, 1 + patches, width]``."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)  # 'b c h w -> b (h w) c'
        first = self.class_embedding.expand(len(patches), 1, -1)
        hidden = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        for block in self.transformer.resblocks:  # type: ignore[union-attr]  # a ModuleList
            hidden = block(hidden)
        return hidden

    def embed(self, pixels: Tensor) -> Tensor:
        """CLIP's own embedding of the images, ``[B, embed_dim]``, not normalized."""
        return self.ln_post(self(pixels)[:, 0]) @ self.proj
