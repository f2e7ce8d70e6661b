"""The noise that a model was trained with, and the timesteps that a sampler visits.

Betas are Stable Diffusion's: the square of a line between square roots. VideoCrafter's sample scale s_t shrinks the data at
high noise: training noised ``s_t * x_0``, so ``x_t = sqrt(a_t) * s_t * x_0 + sqrt(1 - a_t) * eps``. DynamiCrafter's larger models
end without any signal, ``a_t = 0``, where only the v prediction is defined.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import ORIGINAL_STEPS, SPACINGS, ScheduleConfig
from ..errors import InputError


@dataclass(frozen=True)
class Schedule:
    """Tables over all training timesteps, ``[timesteps]`` in float32, as in the reference."""

    alphas_cumprod: Tensor
    #: The sample scale; ones for models without it.
    scale: Tensor
    #: ``eps`` or ``v``, see :mod:`.samplers`.
    prediction: str = "eps"
    #: See :class:`vc_core.config.ScheduleConfig`.
    dynamic_rescale: bool = False
    dynamic_rescale_by_image: bool = False

    @staticmethod
    def from_config(config: ScheduleConfig) -> Schedule:
        """The schedule of a configuration. Equal configurations share one, so its tensors must not be changed."""
        return _cached(*astuple(config))

    @property
    def timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def uniform(self, steps: int, start: int | None = None) -> Tensor:
        """The timesteps of DDIM's uniform spacing, rising (Song et al., arXiv:2010.02502, section 4.2, as published here).

        They are ``timesteps // steps`` apart, so that there can be more of them than ``steps``: 31 for 30 of 1000. For some numbers
        of steps (27 of 1000 is one) the reference's last timestep is past the table, and it fails; here it is the table's last.

        Args:
            start: how many of the training timesteps are used, from the first on; all of them if not given. See :meth:`visited`.

        Raises:
            InputError: ``start`` is not between 1 and the number of training timesteps, or ``steps`` not between 1 and ``start``.
        """
        used = self._used(steps, start)
        visited = torch.arange(0, used, used // steps) + 1
        return visited.clamp(max=self.timesteps - 1)

    def uniform_trailing(self, steps: int, start: int | None = None) -> Tensor:
        """Timesteps of even spacing that end at the last one, rising (Lin et al., arXiv:2305.08891, section 3.3).

        The arguments and the errors are those of :meth:`uniform`.
        """
        last = float(self._used(steps, start))
        visited = last + np.arange(steps) * ((last - last / steps) - last)  # in the order of the reference's roundings
        return torch.from_numpy(np.round(visited).astype(np.int64) - 1).flip(0)

    def consistency(self, steps: int, original_steps: int = ORIGINAL_STEPS, start: int | None = None) -> Tensor:
        """The timesteps of a distilled model, rising: some of the solver's that it was distilled with (arXiv:2310.04378, section 4.3).

        The solver's are ``timesteps // original_steps`` apart. From the last one back, every ``original_steps // steps``-th is taken. With
        a start, only those of the solver's steps count that are in the first training timesteps, as if it had no others.

        Args:
            original_steps: the solver's number of steps.
            start: see :meth:`uniform`.

        Raises:
            InputError: more steps than the solver's, or a number of these, or a start, that is not between 1 and the number of training
                timesteps; or the solver has no step up to the start.
        """
        if not 1 <= original_steps <= self.timesteps:
            raise InputError(f"original_steps is {original_steps}; it can be 1 to {self.timesteps}.")
        used = self.timesteps if start is None else start
        self.check_start(used)
        apart = self.timesteps // original_steps
        solver = torch.arange(1, min(original_steps, used // apart) + 1) * apart - 1
        if not len(solver):
            raise InputError(
                f"start_timestep is {used}; with consistency spacing it can be {apart} to {self.timesteps}: the model was distilled from "
                f"{original_steps} steps, and the lowest of them is at {apart}."
            )
        if not 1 <= steps <= len(solver):
            before = f" up to start_timestep {used}" if used < self.timesteps else ""
            raise InputError(
                f"steps is {steps}; with consistency spacing it can be 1 to {len(solver)}, the number of steps{before} from which the "
                "model was distilled. Few are needed, such as 4 or 8."
            )
        return solver.flip(0)[:: len(solver) // steps][:steps].flip(0)

    def spaced(self, steps: int, spacing: str, original_steps: int = ORIGINAL_STEPS, start: int | None = None) -> Tensor:
        """The timesteps of a spacing by its name, one of :data:`vc_core.config.SPACINGS`.

        Args:
            original_steps: of :meth:`consistency`.
            start: see :meth:`visited`.

        Raises:
            InputError: no such spacing, or as the spacing's own method.
        """
        if spacing not in SPACINGS:
            raise InputError(f"The spacing of timesteps is {spacing!r}; it can be {' or '.join(SPACINGS)}.")
        if spacing == "consistency":
            return self.consistency(steps, original_steps, start)
        return self.uniform(steps, start) if spacing == "uniform" else self.uniform_trailing(steps, start)

    def visited(
        self, steps: int, spacing: str, denoise: float = 1.0, original_steps: int = ORIGINAL_STEPS, start: int | None = None
    ) -> Tensor:
        """The timesteps of a run, rising.

        Args:
            spacing: one of :data:`vc_core.config.SPACINGS`.
            original_steps: of :meth:`consistency`.
            denoise: the denoising strength, above 0 and at most 1. Below 1 the run has the last ``steps`` of a longer schedule's
                ``steps / denoise``, as ComfyUI's schedulers do it.
            start: the timestep M that the run starts at, counted from 1, with an empty latent: the first M training timesteps are
                visited, in as many steps (Zhao et al., arXiv:2406.15735, section 4.1). All of them if not given.

        Raises:
            InputError: ``steps / denoise`` is more than the schedule's number of steps, a start beside a denoise below 1, or as
                :meth:`spaced`.
        """
        if denoise >= 1:
            return self.spaced(steps, spacing, original_steps, start)
        if start is not None and start != self.timesteps:
            raise InputError(
                f"start_timestep is {start} and denoise {denoise:g}; both say where the run starts: leave start_timestep at "
                f"{self.timesteps}, or denoise at 1."
            )
        full = round(steps / denoise)
        most = original_steps if spacing == "consistency" else self.timesteps
        if full > most:
            raise InputError(
                f"{steps} steps at a denoise of {denoise:g} are a part of {full} steps, but the schedule has {most}: "
                "use fewer steps or a higher denoise."
            )
        return self.spaced(full, spacing, original_steps)[:steps]

    def check_start(self, start: int) -> None:
        """
        Raises:
            InputError: ``start`` is not between 1 and the number of training timesteps.
        """
        if not 1 <= start <= self.timesteps:
            raise InputError(f"start_timestep is {start}; it can be 1 to {self.timesteps}, which is the whole schedule.")

    def _used(self, steps: int, start: int | None) -> int:
        """The number of training timesteps that are used, checked."""
        used = self.timesteps if start is None else start
        self.check_start(used)
        if not 1 <= steps <= used:
            raise InputError(f"steps is {steps}; it can be 1 to {used}.")
        return used


def _cumulative_alphas(config: ScheduleConfig) -> np.ndarray:
    ends = config.linear_start**0.5, config.linear_end**0.5
    if config.single_precision:
        betas = torch.linspace(*ends, config.timesteps, dtype=torch.float32) ** 2
        return (1 - betas).cumprod(0).double().numpy()
    return np.cumprod(1.0 - np.linspace(*ends, config.timesteps, dtype=np.float64) ** 2)


def zero_terminal(alphas: np.ndarray) -> np.ndarray:
    """Cumulative alphas with a last value of 0 and the first unchanged: roots shifted and scaled (arXiv:2305.08891, algorithm 1)."""
    roots = np.sqrt(alphas)
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # tensors made under inference mode can't be used in training
def _cached(*values: Any) -> Schedule:
    config = ScheduleConfig(*values)
    alphas = _cumulative_alphas(config)
    if config.zero_terminal_snr:
        alphas = zero_terminal(alphas)
    scale = np.ones(config.timesteps)
    if config.scale_end is not None:
        falling = np.linspace(1.0, config.scale_end, config.scale_steps)[: config.timesteps]
        scale[:] = config.scale_end
        scale[: len(falling)] = falling
    rescales = config.dynamic_rescale, config.dynamic_rescale_by_image
    return Schedule(_float32(alphas), _float32(scale), config.prediction, *rescales)


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()
