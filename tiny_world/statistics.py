"""`python -m tiny_world.statistics`: measures the clips of the world, for the initial noise of the bundled models' runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from vc_core.diffusion.initial_noise import measured, write_statistics
from vc_core.family.bundled import BUNDLED, bundled_models
from vc_core.loading import load
from vc_core.models.autoencoder import Autoencoder
from vc_core.pipeline import VideoModel

from .denoiser import LatentTable
from .settings import load_settings
from .world import sample

MODEL, SETTINGS = "videocrafter_tiny_dynamicrafter", "tiny_world/tiny_dynamicrafter.yaml"
TARGET = BUNDLED / "statistics" / "videocrafter_tiny_dynamicrafter_noise.safetensors"
BATCH, BATCHES = 64, 24


def latents(model: VideoModel) -> Iterator[Tensor]:
    """Batches of clips that start with an image, ``[B, C, T, h, w]`` in the diffusion's scale."""
    world = load_settings(SETTINGS).world
    table = LatentTable(cast(Autoencoder, model.networks["autoencoder"]), world, model.config.autoencoder.scale_factor)
    generator = torch.Generator().manual_seed(0)
    for _ in range(BATCHES):
        clips = sample(world, BATCH, generator)
        yield table(clips.colour, clips.shape, clips.positions)


def main() -> None:
    TARGET.parent.mkdir(exist_ok=True)
    write_statistics(measured(latents(load(bundled_models()[MODEL]))), TARGET)


if __name__ == "__main__":
    main()
