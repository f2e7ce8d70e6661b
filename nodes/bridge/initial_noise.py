"""Statistics for the initial noise: where their files are, and the NOISE that is drawn by them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import folder_paths
from torch import Tensor

from ...vc_core.diffusion.initial_noise import LatentStatistics
from ...vc_core.diffusion.noise import SeededNoise
from ...vc_core.diffusion.schedule import Schedule
from ...vc_core.family.bundled import bundled_statistics
from .frames import fold, frames_per_video, unfold

#: The folder in ComfyUI's ``models`` for files of statistics, and the endings of their names.
FOLDER, SUFFIXES = "videocrafter_initial_noise", (".pt", ".pth", ".safetensors")
#: Added to a bundled file's name in the list.
BUNDLED_MARK = " (bundled)"
#: In place of a file: standard normal noise.
NONE = "none"


def register() -> None:
    """Let ComfyUI know of the folder."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def files() -> list[str]:
    """What can be chosen: nothing, the bundled files, and those in the folder."""
    found = folder_paths.get_filename_list(FOLDER) if FOLDER in folder_paths.folder_names_and_paths else []
    return [NONE, *(name + BUNDLED_MARK for name in bundled_statistics()), *(name for name in found if name.lower().endswith(SUFFIXES))]


def path_of(name: str) -> Path:
    """The file of an entry of the list.

    Raises:
        FileNotFoundError: there is none.
    """
    if name.endswith(BUNDLED_MARK):
        return bundled_statistics()[name.removesuffix(BUNDLED_MARK)]
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))


class InitialNoise:
    """A NOISE with the core's numbers for a seed, of videos rather than of frames.

    Attributes:
        seed: also that of the sampler's noise.
        statistics: see :class:`vc_core.diffusion.initial_noise.LatentStatistics`; None for standard normal noise.
    """

    def __init__(self, seed: int, statistics: LatentStatistics | None, schedule: Schedule, start_timestep: int | None) -> None:
        self.seed, self.statistics, self.schedule, self.start_timestep = seed, statistics, schedule, start_timestep

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """The noise of a LATENT's frames, ``[n, C, h, w]``.

        Raises:
            InputError: the statistics are of clips of another size.
        """
        frames = frames_per_video(input_latent)
        shape = fold(input_latent["samples"], frames).shape
        noise = SeededNoise(shape, self.seed).start
        return unfold(noise if self.statistics is None else self.statistics.start(noise, self.schedule, self.start_timestep))
