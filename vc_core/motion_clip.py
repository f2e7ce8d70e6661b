"""The options of ``generate`` for motion from a clip."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from .config import ModelConfig
from .diffusion.noise import SeededNoise
from .diffusion.warped_noise import WarpedNoise
from .errors import InputError
from .media.flow import dis_flow
from .media.images import fit_image
from .media.video import read_video
from .sampling import Sampling


def add_motion_options(make: argparse.ArgumentParser, number: Callable[[str], float]) -> None:
    """Add the options to a command; ``number`` reads a number for argparse."""
    text = "clip whose motion the video takes over: its first frames, as many as the video has; best with --eta 0"
    make.add_argument("--motion-from", type=Path, help=text)
    make.add_argument("--motion-strength", type=number, help="share of the noise that moves with the clip, 0 to 1 (default: 1)")


def with_clip_motion(arguments: argparse.Namespace, settings: Sampling, config: ModelConfig, video: Tensor | None) -> Sampling:
    """The settings with noise that moves with the clip of the options, if there is one.

    Args:
        video: the input video ``[1, 3, T, H, W]``, which decides the size; None where the settings do.

    Raises:
        InputError: a strength that is out of its range or without a clip, or a clip with fewer frames than the video.
        VideoFileError: the clip can't be read.
    """
    strength: float | None = arguments.motion_strength
    if arguments.motion_from is None:
        if strength is not None:
            raise InputError("--motion-strength is for the motion of a clip: give --motion-from, or leave it out.")
        return settings
    frames, height, width = (settings.frames, settings.height, settings.width) if video is None else video.shape[2:]
    clip = read_video(arguments.motion_from, frames)
    if clip.shape[1] < frames:
        raise InputError(
            f"--motion-from has {clip.shape[1]} frames, but the video has {frames}: give a longer clip, or set --frames to fewer."
        )
    flow = dis_flow(fit_image(clip.movedim(1, 0), height, width))
    shape = (1, config.unet.out_channels, frames, height // config.downscale, width // config.downscale)
    noise = WarpedNoise(SeededNoise(shape, settings.seed), flow, 1.0 if strength is None else strength)
    noise.check(shape)
    return settings.changed(noise=noise)
