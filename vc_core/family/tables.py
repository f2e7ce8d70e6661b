"""The tables of the noise schedule that a file can have beside its networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint
from ..config import ModelConfig, ScheduleConfig
from ..diffusion.schedule import Schedule

ALPHAS, SCALE = "alphas_cumprod", "scale_arr"
#: A last alpha below this counts as 0: a schedule that ends without signal.
ZERO_SIGNAL = 1e-6


def read_table(checkpoint: Checkpoint, name: str) -> Tensor | None:
    """A table in float32, ``[timesteps]``; None if the file has none.

    Raises:
        CheckpointError: it is empty, has several axes, or numbers that are no plain fractions.
    """
    if name not in checkpoint:
        return None
    shape, dtype = checkpoint.shape(name), checkpoint.dtype(name)
    if len(shape) != 1 or 0 in shape or not dtype.is_floating_point:
        raise CheckpointError(
            f"{checkpoint.path}: {name} is {list(shape)} of type {str(dtype).removeprefix('torch.')}, where the table of a noise schedule "
            "has one axis and real numbers. The file is damaged, or of another model: get it from its source again."
        )
    return checkpoint.sound_tensor(name).float()


def schedule_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Values of :class:`vc_core.config.ScheduleConfig` that a file's alphas tell; none without them."""
    alphas = read_table(checkpoint, ALPHAS)
    return {} if alphas is None else {"timesteps": len(alphas), "zero_terminal_snr": bool(alphas[-1] < ZERO_SIGNAL)}


def read_scale(checkpoint: Checkpoint, base: ModelConfig) -> dict[str, Any]:
    """The sample scale of a file, if its table differs from that of ``base``.

    Some published tables are longer than the schedule; the rest was never used.

    Raises:
        CheckpointError: it differs, and is stored too coarsely to tell how.
    """
    scale = read_table(checkpoint, SCALE)
    if scale is None:
        return {}
    if base.schedule.scale_end is not None and _same_table(checkpoint, SCALE, scale, Schedule.from_config(base.schedule).scale):
        return {}
    if checkpoint.dtype(SCALE).itemsize == 1:
        raise CheckpointError(
            f"{checkpoint.path}: {SCALE} is stored in 8 bits and is not that of {base.name}. Get a file with its schedule in 16 or 32 bits."
        )
    scale = scale.double()
    return {"scale_end": round(float(scale[-1]), 6), "scale_steps": int((scale > scale[-1]).sum()) + 1}


def has_schedule(checkpoint: Checkpoint, config: ScheduleConfig) -> bool | None:
    """Whether a file's tables are those of a schedule, by the sample scale if it has one, else by its alphas; None without either."""
    ours = Schedule.from_config(config)
    for name, table in ((SCALE, ours.scale), (ALPHAS, ours.alphas_cumprod)):
        stored = read_table(checkpoint, name)
        if stored is not None:
            return _same_table(checkpoint, name, stored, table)
    return None


def check_schedule(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """
    Raises:
        CheckpointError: the file's tables are those of another schedule than the configuration's.
    """
    schedule = Schedule.from_config(config.schedule)
    for name, ours in ((ALPHAS, schedule.alphas_cumprod), (SCALE, schedule.scale)):
        stored = read_table(checkpoint, name)
        if stored is not None and not _same_table(checkpoint, name, stored, ours):
            raise CheckpointError(
                f"{checkpoint.path} was trained with another noise schedule than its configuration ({config.name}) says: its {name} "
                f"ends at {stored[-1]:.6f}, the configuration's at {ours[-1]:.6f}."
            )


def _same_table(checkpoint: Checkpoint, name: str, stored: Tensor, ours: Tensor) -> bool:
    """Whether a file's table equals ours, up to the precision that it was stored in."""
    precision = torch.finfo(checkpoint.dtype(name))
    length = min(len(stored), len(ours))
    relative, absolute = max(1e-2, precision.eps), max(1e-4, precision.tiny * precision.eps)
    return torch.allclose(stored[:length], ours[:length], rtol=relative, atol=absolute)
