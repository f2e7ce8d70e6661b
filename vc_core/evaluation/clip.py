"""A video as it is measured: its frames, their rate, and what goes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..media.images import check_finite, value_range
from ..media.video import WHITE, average_fps, stream_frames

#: Smallest side of a frame in pixels.
SMALLEST = 8
#: Bytes of the frames of a file that are measured at most; of a longer one the first frames are.
MOST_BYTES = 2**30
#: Frames that a network sees at once.
AT_ONCE = 8


class Clip:
    """One video to measure.

    Args:
        pixels: ``[T, H, W, 3]`` of 8 bits.
        fps: frames per second, above 0.
        prompt: what the video was to show; None or blank for none.
        image: its source image ``[3, H', W']`` in [-1, 1], if it has one.

    Raises:
        InputError: arrays of another shape or type, frames with a side below 8 pixels, or no frame rate.
    """

    def __init__(self, pixels: np.ndarray, fps: float = 8.0, prompt: str | None = None, image: Tensor | None = None) -> None:
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or not len(pixels):
            raise InputError(f"The frames are {list(pixels.shape)} of {pixels.dtype}; expected are [T, H, W, 3] of uint8, at least one.")
        if min(pixels.shape[1:3]) < SMALLEST:
            raise InputError(f"The frames are {pixels.shape[2]}x{pixels.shape[1]}; measures need at least {SMALLEST} pixels each way.")
        if not (0 < fps < float("inf")):
            raise InputError(f"fps is {fps}; it must be a number above 0.")
        self.pixels, self.fps, self.image = pixels, fps, image
        self.prompt = prompt if prompt and prompt.strip() else None
        #: Whether there are more frames in the file.
        self.cut = False
        self._kept: dict[str, Tensor] = {}

    @classmethod
    def of(cls, frames: Tensor, fps: float = 8.0, prompt: str | None = None, image: Tensor | None = None) -> Clip:
        """A clip of frames ``[3, T, H, W]`` in [-1, 1], which are rounded to 8 bits.

        Raises:
            InputError: another shape, values outside this range, such as 0 to 255, or that are no numbers.
        """
        if frames.ndim != 4 or frames.shape[0] != 3 or not frames.numel() or not frames.is_floating_point():
            raise InputError(f"The frames are {list(frames.shape)} of {frames.dtype}; expected are [3, T, H, W] of floats in [-1, 1].")
        check_finite(frames.unbind(1))
        low, high = value_range(frames)
        if low < -1.01 or high > 1.01:
            raise InputError(f"The frames have values from {low:g} to {high:g}; they must be in [-1, 1]. Scale them first.")
        pixels = ((frames.float() + 1) * 127.5).round_().clamp_(0, 255).byte().permute(1, 2, 3, 0)
        return cls(np.ascontiguousarray(pixels.cpu().numpy()), fps, prompt, image)

    @classmethod
    def read(cls, path: Path, prompt: str | None = None, image: Tensor | None = None, most: int = 512) -> Clip:
        """The first ``most`` frames of a file, fewer where they would take more than :data:`MOST_BYTES`.

        Raises:
            VideoFileError: the file can't be read.
            InputError: as for the class.
        """
        frames: list[np.ndarray] = []
        cut = False
        for frame in stream_frames(path, most + 1):
            if len(frames) == most or (len(frames) + 1) * frame.shape[0] * frame.shape[1] * 3 > MOST_BYTES:
                cut = True
                break
            frames.append(_eight_bits(frame))
        fps = average_fps(path) or 1.0  # a still image
        clip = cls(np.stack(frames) if frames else np.zeros([0, 1, 1, 3], np.uint8), fps, prompt, image)
        clip.cut = cut
        return clip

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def height(self) -> int:
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        return self.pixels.shape[2]

    def images(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Some frames, ``[N, 3, H, W]`` in [-1, 1]."""
        return torch.from_numpy(self.pixels[start:stop]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def grey(self) -> Iterator[np.ndarray]:
        """The luma (BT.601) of each frame, ``[H, W]`` in 0..255, as floats."""
        for frame in self.pixels:
            yield frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)

    def embedded(self, name: str, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """The embeddings of all frames ``[T, d]`` of length 1, which are computed once for each name."""
        if name not in self._kept:
            parts = [embed(self.images(start, start + AT_ONCE)).float().cpu() for start in range(0, len(self), AT_ONCE)]
            self._kept[name] = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
        return self._kept[name]


def _eight_bits(frame: np.ndarray) -> np.ndarray:
    if frame.dtype == np.uint8:
        return frame
    white = WHITE.get(frame.dtype.name, 1)
    return np.clip(np.round(frame.astype(np.float32) * (255 / white)), 0, 255).astype(np.uint8)
