"""Sound beside a clip: AUDIO of whatever origin checked, mended where it can be, and fitted to the clip's length."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

#: Highest sampling rate in Hz that is read; sound cards and files have up to 384 kHz.
HIGHEST_RATE = 768_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sound:
    """Sound of one or two channels.

    Attributes:
        samples: ``[C, N]`` in [-1, 1], C being 1 or 2, in float32 on the CPU.
        rate: samples per second.
    """

    samples: Tensor
    rate: int

    @property
    def layout(self) -> str:
        """FFmpeg's name of the channels."""
        return "mono" if len(self.samples) == 1 else "stereo"

    def fitted(self, seconds: float, start: float = 0.0) -> Sound:
        """The sound from ``start`` on, cut or filled with silence to a length."""
        first, count = round(start * self.rate), round(seconds * self.rate)
        samples = self.samples[:, first : first + count]
        return Sound(torch.nn.functional.pad(samples, (0, count - samples.shape[1])), self.rate)

    def as_audio(self) -> dict[str, Any]:
        """ComfyUI's AUDIO."""
        return {"waveform": self.samples[None], "sample_rate": self.rate}


def read_audio(audio: Any) -> Sound | None:
    """The sound of an AUDIO. What had to be changed in it is logged as a warning.

    Args:
        audio: a mapping with ``waveform`` ``[B, C, N]``, ``[C, N]`` or ``[N]``, and ``sample_rate`` in Hz. Of several sounds the first
            is used; of more than two channels the mean; samples that are no numbers are silent.

    Returns:
        None where there are no samples.

    Raises:
        InputError: no such mapping.
    """
    if not isinstance(audio, Mapping) or not isinstance(audio.get("waveform"), Tensor):
        raise InputError(f"The audio is {type(audio).__name__}; an AUDIO is needed, with waveform and sample_rate.")
    waveform, rate = audio["waveform"], audio.get("sample_rate")
    if not (isinstance(rate, (int, float)) and math.isfinite(rate) and 1 <= rate <= HIGHEST_RATE):
        raise InputError(f"The audio's sample_rate is {rate!r:.40}; it must be a number of Hz from 1 to {HIGHEST_RATE}.")
    if not 1 <= waveform.ndim <= 3 or waveform.is_complex():
        raise InputError(f"The audio's waveform has the shape {list(waveform.shape)}; [batch, channels, samples] is needed.")
    if not waveform.numel():
        logger.warning(f"The audio has no samples (its shape is {list(waveform.shape)}): the clip has no sound.")
        return None
    waveform = waveform.reshape((1,) * (3 - waveform.ndim) + tuple(waveform.shape))
    if len(waveform) > 1:
        logger.warning(f"There are {len(waveform)} sounds in the audio: the first one is used.")
    samples = _floats(waveform[0].detach().cpu())
    if len(samples) > 2:
        logger.warning(f"The audio has {len(samples)} channels: they are mixed into one.")
        samples = samples.mean(0, keepdim=True)
    wrong = int((~samples.isfinite()).sum())
    if wrong:
        logger.warning(f"{wrong} of the audio's {samples.numel()} samples are no numbers (NaN or infinity): they are silent.")
        samples = samples.nan_to_num(0.0, 0.0, 0.0)
    return Sound(samples.clamp(-1, 1), round(rate))


def _floats(samples: Tensor) -> Tensor:
    """Samples in [-1, 1]; whole numbers count from their type's lowest to its highest."""
    if samples.is_floating_point():
        return samples.float()
    if samples.dtype == torch.uint8:
        return samples.float() / 127.5 - 1
    return samples.float() / (1 if samples.dtype == torch.bool else -torch.iinfo(samples.dtype).min)
