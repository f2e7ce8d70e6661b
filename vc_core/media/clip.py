"""A clip to be saved: frames in the order in which they are shown, and sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch import Tensor

from .sound import Sound

#: Most plays that are written one after the other, or noted in an animated image.
MOST_PLAYS = 1000


@dataclass(frozen=True)
class Clip:
    """Frames to save, which are converted one at a time, so that there is never a second copy of all.

    Attributes:
        frames: ``[T, H, W, 3]`` of floats, at least one pixel; white is 1.
        fps: playback speed in frames per second.
        black: the value of black, 0 or -1.
        sound: what is heard, None for none.
        ping_pong: whether the frames are shown backwards after the last one. The first and last are not repeated, so that a player
            that repeats the clip shows no frame twice.
        loop_count: how often the clip is played. 0: animated images without end, others once.
    """

    frames: Tensor
    fps: float
    black: float = 0.0
    sound: Sound | None = None
    ping_pong: bool = False
    loop_count: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.frames.shape[2], self.frames.shape[1]

    @property
    def rate(self) -> Fraction:
        """Frames per second, as files note it."""
        return Fraction(self.fps).limit_denominator(1001)

    def order(self, plays: int = 1) -> list[int]:
        """The frames' indices in the order in which they are shown."""
        count = len(self.frames)
        back = list(range(count - 2, 0, -1)) if self.ping_pong else []
        return (list(range(count)) + back) * plays

    def pixels(self, index: int, bits: int = 8) -> np.ndarray:
        """A frame ``[H, W, 3]`` of 8 or 16 bits, rounded."""
        white = 2**bits - 1
        frame = (self.frames[index].detach().float() - self.black) * (white / (1 - self.black))
        return frame.round_().clamp_(0, white).cpu().numpy().astype(np.uint8 if bits == 8 else np.uint16)

    def shown(self, plays: int = 1, bits: int = 8) -> Iterator[np.ndarray]:
        """The frames as they are shown, one after the other, see :meth:`pixels`."""
        return (self.pixels(index, bits) for index in self.order(plays))
