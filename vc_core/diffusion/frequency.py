"""Low-pass filters over time and space, and the mixing of two signals by their frequencies (FreeInit, arXiv:2312.07537)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

#: The forms of a filter.
FILTERS = ("butterworth", "gaussian", "ideal", "box")
#: The axes of ``[..., T, h, w]`` that are transformed.
AXES = (-3, -2, -1)


@dataclass(frozen=True)
class LowPass:
    """A low-pass filter. Frequencies are in shares of the highest one on their axis.

    Attributes:
        form: one of :data:`FILTERS`.
        order: of a Butterworth filter; higher: a sharper edge.
        spatial_stop: the frequency in space at which the filter ends, 0 to 1; 0 lets nothing pass.
        temporal_stop: likewise, over time.
    """

    form: str = "butterworth"
    order: int = 4
    spatial_stop: float = 0.25
    temporal_stop: float = 0.25

    def check(self) -> None:
        """
        Raises:
            InputError: a value is invalid.
        """
        if self.form not in FILTERS:
            raise InputError(f"The filter is {self.form!r:.40}; it can be {', '.join(FILTERS)}.")
        if not 1 <= self.order <= 100:
            raise InputError(f"The filter's order is {self.order!r:.40}; it can be 1 to 100.")
        for name, stop in (("spatial", self.spatial_stop), ("temporal", self.temporal_stop)):
            if not 0 <= stop <= 1:
                raise InputError(f"The filter's {name} stop frequency is {stop!r:.40}; it can be 0 to 1.")

    def mask(self, frames: int, height: int, width: int) -> Tensor:
        """What passes of each frequency, ``[frames, height, width]`` from 0 to 1 in float32, the frequency 0 being at ``n // 2``.

        The grid is the authors': ``2 k / n - 1`` for the k-th of n frequencies, which is -1 / n in the centre of an odd n.
        """
        if not (self.spatial_stop and self.temporal_stop):
            return torch.zeros(frames, height, width)
        if self.form == "box":
            return self._box(frames, height, width)
        times, rows, columns = (2 * torch.arange(n, dtype=torch.float64) / n - 1 for n in (frames, height, width))
        times = times * (self.spatial_stop / self.temporal_stop)
        squared = times[:, None, None] ** 2 + rows[:, None] ** 2 + columns**2
        if self.form == "butterworth":
            mask = 1 / (1 + (squared / self.spatial_stop**2) ** self.order)
        elif self.form == "gaussian":
            mask = (-squared / (2 * self.spatial_stop**2)).exp()
        else:
            mask = (squared <= 2 * self.spatial_stop).double()
        return mask.float()

    def _box(self, frames: int, height: int, width: int) -> Tensor:
        """Half-open, and as wide as it is high, as in the authors' code."""
        space, time = round(height // 2 * self.spatial_stop), round(frames // 2 * self.temporal_stop)
        mask = torch.zeros(frames, height, width)
        ranges = (slice(max(0, n // 2 - reach), n // 2 + reach) for n, reach in ((frames, time), (height, space), (width, space)))
        mask[tuple(ranges)] = 1
        return mask


def mix(low: Tensor, high: Tensor, low_pass: LowPass) -> Tensor:
    """The low frequencies of one video and the high ones of another, both ``[..., T, h, w]``; computed in float32."""
    mask = torch.fft.ifftshift(low_pass.mask(*low.shape[-3:])).to(low.device)
    spectra = [torch.fft.fftn(each.float(), dim=AXES) for each in (low, high)]
    return torch.fft.ifftn(spectra[0] * mask + spectra[1] * (1 - mask), dim=AXES).real
