"""The noise that a model was trained with, and the timesteps that a sampler visits.

Betas are Stable Diffusion's: the square of a line between square roots. VideoCrafter's sample scale s_t shrinks the data at
high noise: training noised ``s_t * x_0``, so ``x_t = sqrt(a_t) * s_t * x_0 + sqrt(1 - a_t) * eps``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import ScheduleConfig


@dataclass(frozen=True)
class Schedule:
    """Tables over all training timesteps, ``[timesteps]`` in float32 as the reference keeps them."""

    alphas_cumprod: Tensor
    #: The sample scale; ones for models without it.
    scale: Tensor

    @classmethod
    def from_config(cls, config: ScheduleConfig) -> Schedule:
        betas = np.linspace(config.linear_start**0.5, config.linear_end**0.5, config.timesteps, dtype=np.float64) ** 2
        scale = np.ones(config.timesteps)
        if config.scale_end is not None:
            falling = np.linspace(1.0, config.scale_end, config.scale_steps)[: config.timesteps]
            scale[:] = config.scale_end
            scale[: len(falling)] = falling
        return cls(_float32(np.cumprod(1.0 - betas)), _float32(scale))

    @property
    def timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def uniform(self, steps: int) -> Tensor:
        """The timesteps of DDIM's uniform spacing, rising (Song et al., arXiv:2010.02502, section 4.2, as published here).

        They stand ``timesteps // steps`` apart, so that there can be more of them than asked for: 31 for 30 of 1000. The
        reference puts the last of some spacings one past the table (27 of 1000 is one) and fails; here it is the table's last.

        Raises:
            ValueError: ``steps`` is not between 1 and the number of training timesteps.
        """
        if not 1 <= steps <= self.timesteps:
            raise ValueError(f"steps is {steps}; it can be 1 to {self.timesteps}.")
        visited = torch.arange(0, self.timesteps, self.timesteps // steps) + 1
        return visited.clamp(max=self.timesteps - 1)


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()
