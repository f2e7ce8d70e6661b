"""Settings of a training run: the trainer's and the loss's, with types and defaults."""

from __future__ import annotations

from dataclasses import dataclass


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


@dataclass
class LossSettings:
    """See `vc_core.training.loss`."""

    prediction: str = "eps"  # or v
    prompt_dropout: float = 0.1  # of text and image together
    text_dropout: float = 0.0  # of the text alone, for guidance by the image
    weighting: str = "none"  # none, min_snr, or v: eps weighted as if the target were v
    weight_limit: float = 5.0  # gamma of min_snr; the largest weight of v
