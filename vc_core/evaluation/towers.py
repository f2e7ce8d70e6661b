"""Image and text towers for the measures: those of a model's file, and OpenAI's through open_clip.

Values of different towers can't be compared, so that each has a tag, which stands in the names of the values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import ConfigLike, ModelConfig
from ..family.model_file import ModelFile
from ..models.image_encoder import MEAN, STD, ImageEncoder
from ..models.text_encoder import TextEncoder, tokenize
from .flow import load_weights

#: open_clip's names of OpenAI's towers, and the tags of their values. Published tables are made with these.
OPENAI = {"clip-b32": ("ViT-B-32-quickgelu", "CLIP ViT-B/32"), "clip-l14": ("ViT-L-14-quickgelu", "CLIP ViT-L/14")}
#: Mean and standard deviation of ImageNet, for DINO.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Tower:
    """Embeds frames, and where it can texts.

    Attributes:
        image: frames ``[N, 3, H, W]`` in [-1, 1] -> ``[N, d]``.
        text: a prompt -> ``[d]``; None for a tower without one.
    """

    tag: str
    image: Callable[[Tensor], Tensor]
    text: Callable[[str], Tensor] | None = None


def clip_pixels(images: Tensor, size: int = 224) -> Tensor:
    """Images as CLIP is given them: the shorter side resized (bicubic, antialiased), the middle square cropped, normalized.

    Args:
        images: ``[N, 3, H, W]`` in [-1, 1].

    Returns:
        ``[N, 3, size, size]``.
    """
    return _normalized(cropped(_short_side(images, size), size), MEAN, STD)


def cropped(images: Tensor, size: int) -> Tensor:
    """The middle square of images."""
    top, left = ((side - size) // 2 for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def _short_side(images: Tensor, size: int, mode: str = "bicubic") -> Tensor:
    height, width = images.shape[-2:]
    scale = size / min(height, width)
    sides = [max(size, int(side * scale)) for side in (height, width)]
    resized = F.interpolate(((images + 1) / 2).float(), sides, mode=mode, antialias=True, align_corners=False)
    return resized.clamp(0, 1)


def _normalized(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    shift, scale = (torch.tensor(values, device=images.device)[:, None, None] for values in (mean, std))
    return (images - shift) / scale


def tower_tag(config: ModelConfig) -> str:
    """``openclip-h`` for the towers of the published models, else the model's name."""
    image = config.image_encoder
    return "openclip-h" if image is not None and (image.width, image.layers) == (1280, 32) else config.name


def model_tower(path: str | Path, device: torch.device | str = "cpu", config: ConfigLike | None = None) -> Tower | None:
    """The two towers of an image model's file; None for a file without an image tower, as those of text-to-video models.

    Raises:
        CheckpointError: the file can't be read, or holds no model of the family.
    """
    file = ModelFile.open(path, config)
    if not {"image_encoder", "text_encoder"} <= set(file.parts):
        return None
    image = cast(ImageEncoder, file.load("image_encoder", device, torch.float32))
    text = cast(TextEncoder, file.load("text_encoder", device, torch.float32))
    return network_tower(tower_tag(file.config), image, text, device)


def network_tower(tag: str, image: ImageEncoder, text: TextEncoder, device: torch.device | str = "cpu") -> Tower:
    """A tower of the two networks of this family."""

    @torch.inference_mode()
    def embed(images: Tensor) -> Tensor:
        return image.embed(clip_pixels(images.to(device), image.config.image_size))

    @torch.inference_mode()
    def embed_text(prompt: str) -> Tensor:
        # One window, as CLIP has: what a longer prompt says after 75 tokens is not read.
        return text.embed(tokenize([prompt], text.config.context_length)[:, 0].to(device))[0]

    return Tower(tag, embed, embed_text)


def openai_tower(name: str, path: Path, device: torch.device | str = "cpu", architecture: str = "") -> Tower:
    """OpenAI's CLIP of a file in open_clip's form, such as ``open_clip_model.safetensors``.

    Args:
        name: of :data:`OPENAI`.
        architecture: open_clip's name of another one.

    Raises:
        CheckpointError: the file can't be read, or holds no such weights.
    """
    import open_clip

    own, tag = OPENAI[name]
    architecture = architecture or own
    network: Any = load_weights(open_clip.create_model(architecture, pretrained=None), path, f"open_clip's {architecture}").to(device)
    words = open_clip.get_tokenizer(architecture)

    @torch.inference_mode()
    def embed(images: Tensor) -> Tensor:
        size = network.visual.image_size
        return network.encode_image(clip_pixels(images.to(device), size[0] if isinstance(size, tuple) else size))

    @torch.inference_mode()
    def embed_text(prompt: str) -> Tensor:
        return network.encode_text(words([prompt]).to(device))[0]

    return Tower(tag, embed, embed_text)


def dino_tower(path: Path, device: torch.device | str = "cpu", architecture: str = "vit_base_patch16_224") -> Tower:
    """DINO's ViT-B/16 (Caron et al., arXiv:2104.14294) by timm, of DINO's own file ``dino_vitbase16_pretrain.pth`` or timm's.

    Raises:
        CheckpointError: the file can't be read, or holds no such weights.
    """
    import timm

    network = timm.create_model(architecture, pretrained=False, num_classes=0, dynamic_img_size=True)
    network = load_weights(network, path, f"timm's {architecture}").to(device)

    @torch.inference_mode()
    def embed(images: Tensor) -> Tensor:
        prepared = _normalized(_short_side(images.to(device), 224, "bilinear"), *IMAGENET)
        height, width = (side // 16 * 16 for side in prepared.shape[-2:])  # whole patches
        return network(prepared[..., :height, :width])

    return Tower("DINO ViT-B/16", embed)
