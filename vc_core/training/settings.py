"""Settings of a training run: the trainer's and the loss's, with types and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

#: Bounds of numbers, lowest and highest, the lowest included unless the name is in ABOVE_LEAST.
TRAINER_BOUNDS: Mapping[str, tuple[float, float]] = {
    "updates": (0, 10**9), "batch": (1, 65536), "accumulate": (1, 65536), "learning_rate": (0, 10), "weight_decay": (0, 10),
    "warmup": (0, 10**9), "cooldown": (0, 1), "clip_norm": (0, 1e9), "ema": (0, 1), "save_every": (1, 10**9),
    "log_every": (1, 10**9), "seed": (0, 2**53),
}
LOSS_BOUNDS: Mapping[str, tuple[float, float]] = {
    "prompt_dropout": (0, 1), "text_dropout": (0, 1), "image_dropout": (0, 1), "weight_limit": (0, 1e9),
}
PRECISIONS = ("float32", "bfloat16")
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
    batch: int = 8  # clips in one pass
    accumulate: int = 1  # passes of an update, shared out among the processes; an update has batch times accumulate clips
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
    precision: str = "float32"  # or bfloat16: of the passes, by autocast

    def check(self, where: str = "") -> None:
        """
        Raises:
            InputError: a number is NaN or out of its bounds, or there is no such precision.
        """
        check_numbers(self, TRAINER_BOUNDS, where)
        if self.precision not in PRECISIONS:
            raise InputError(f"{where}precision is {self.precision!r:.40}; it can be {' or '.join(PRECISIONS)}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"{where}betas is {self.betas!r:.60}; they must be two numbers of at least 0 and less than 1.")


@dataclass
class LossSettings:
    """See `vc_core.training.loss`. One random number of a clip decides what is dropped: text, both, image or nothing, in this order."""

    prediction: str = "eps"  # or v
    text_dropout: float = 0.0  # of the text alone, for guidance by the image
    prompt_dropout: float = 0.1  # of text and image together
    image_dropout: float = 0.0  # of the image alone
    spread_timesteps: bool = False  # the timesteps of a batch are evenly spread in place of independent
    weighting: str = "none"  # none, min_snr, or v: eps weighted as if the target were v
    weight_limit: float = 5.0  # gamma of min_snr; the largest weight of v

    def check(self, where: str = "") -> None:
        """
        Raises:
            InputError: a number is NaN or out of its bounds, or more is dropped than there is.
        """
        check_numbers(self, LOSS_BOUNDS, where)
        total = self.text_dropout + self.prompt_dropout + self.image_dropout
        if total > 1:
            raise InputError(f"{where}text_dropout, prompt_dropout and image_dropout are {total:g} together; they can be 1 at most.")
