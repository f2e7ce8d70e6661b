"""Settings of a training run: the trainer's and the loss's, with types and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

#: Bounds of numbers, lowest and highest, the lowest included unless the name is in ABOVE_LEAST.
TRAINER_BOUNDS: Mapping[str, tuple[float, float]] = {
    "updates": (0, 10**9), "batch": (1, 65536), "pieces": (1, 1024), "learning_rate": (0, 10), "weight_decay": (0, 10),
    "warmup": (0, 10**9), "cooldown": (0, 1), "clip_norm": (0, 1e9), "ema": (0, 1), "save_every": (1, 10**9),
    "log_every": (1, 10**9), "seed": (0, 2**53),
}
LOSS_BOUNDS: Mapping[str, tuple[float, float]] = {"prompt_dropout": (0, 1), "text_dropout": (0, 1), "weight_limit": (0, 1e9)}
ABOVE_LEAST = ("learning_rate", "clip_norm", "weight_limit")


def check_numbers(settings: Any, bounds: Mapping[str, tuple[float, float]], where: str = "") -> None:
    """
    Args:
        settings: has an attribute for each name of the bounds.
        where: put in front of a name in the message.

    Raises:
        InputError: something is no number, NaN or out of its bounds.
    """
    for name, (least, most) in bounds.items():
        value = getattr(settings, name)
        above = name in ABOVE_LEAST
        if not isinstance(value, (int, float)) or not least <= value <= most or (above and value == least):
            lowest = f"{'above' if above else 'at least'} {least:g}"
            raise InputError(f"{where}{name} is {value!r:.40}; it must be {lowest} and at most {most:g}.")


@dataclass
class TrainerSettings:
    """How one network is trained; see `vc_core.training.trainer`."""

    updates: int = 1000
    batch: int = 8  # clips in one piece
    pieces: int = 1  # pieces of an update, computed in parallel; use one thread for each
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup: int = 50
    cooldown: float = 0.3  # the last part of the updates, over which the learning rate falls to zero
    clip_norm: float = 1.0
    ema: float = 0.0  # decay of the averaged weights at the end of its ramp; 0 keeps no average
    save_every: int = 100
    log_every: int = 20
    seed: int = 0

    def check(self, where: str = "") -> None:
        """
        Raises:
            InputError: a number is NaN or out of its bounds.
        """
        check_numbers(self, TRAINER_BOUNDS, where)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"{where}betas is {self.betas!r:.60}; they must be two numbers of at least 0 and less than 1.")


@dataclass
class LossSettings:
    """See `vc_core.training.loss`."""

    prediction: str = "eps"  # or v
    prompt_dropout: float = 0.1  # of text and image together
    text_dropout: float = 0.0  # of the text alone, for guidance by the image
    weighting: str = "none"  # none, min_snr, or v: eps weighted as if the target were v
    weight_limit: float = 5.0  # gamma of min_snr; the largest weight of v

    def check(self, where: str = "") -> None:
        """
        Raises:
            InputError: a number is NaN or out of its bounds.
        """
        check_numbers(self, LOSS_BOUNDS, where)
