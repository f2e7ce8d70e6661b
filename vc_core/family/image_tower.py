"""CLIP's image tower from a file of its own, for models whose file has none."""

from __future__ import annotations

import os

import torch

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import open_checkpoint
from ..config import ImageEncoderConfig
from ..models.image_encoder import ImageEncoder
from .bundled import with_shared_parts
from .checking import check_tensors
from .identify import image_heads
from .naming import model_path
from .sizes import PartShapes, read_image_encoder

#: The starts of its tensors' names: in OpenCLIP's files, and in those of image-to-video models.
PREFIXES = ("visual.", "embedder.model.visual.")


def load_image_encoder(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> ImageEncoder:
    """Load the image tower of an OpenCLIP file (ViT-H/14 for StyleCrafter), or of a model of the family.

    Raises:
        CheckpointError: the file can't be read, or has no such tower.
    """
    checkpoint = with_shared_parts(open_checkpoint(model_path(path)))
    prefix = next((each for each in PREFIXES if f"{each}conv1.weight" in checkpoint), None)
    if prefix is None:
        raise CheckpointError(
            f"{checkpoint.path} has no image tower of OpenCLIP's (no tensors under {' or '.join(map(repr, PREFIXES))}): give OpenCLIP "
            "ViT-H/14's own file, open_clip_pytorch_model.bin of laion/CLIP-ViT-H-14-laion2B-s32B-b79K."
        )
    sizes = read_image_encoder(PartShapes(checkpoint, prefix))
    encoder = ImageEncoder(ImageEncoderConfig(**sizes, heads=image_heads(sizes["width"])), torch.device("meta"))
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    check_tensors(checkpoint, [(prefix, shapes)])
    encoder.load_state_dict({name: checkpoint.sound_tensor(prefix + name).to(device, dtype) for name in shapes}, assign=True)
    return encoder.requires_grad_(False).eval()
