"""FreeInit: sampling again from noise that has the low frequencies of the clip before (Wu et al., arXiv:2312.07537, section 4.2).

A clip that was trained to start from a little of its own signal, but is sampled from none, flickers. So the finished clip is noised
again, its high frequencies are replaced by fresh noise, and all steps run once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import InputError
from .frequency import LowPass, mix
from .samplers import noised
from .schedule import Schedule

#: Makes clean latents of noise ``[B, C, T, h, w]``; its second argument is the number of the iteration, from 0.
Sample = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class FreeInit:
    """The settings of FreeInit.

    Attributes:
        iterations: how often the clip is sampled; 1 is the usual sampling.
        low_pass: what is kept of the clip before.
        fast: the first iterations have fewer steps (the authors' ``use_fast_sampling``).
    """

    iterations: int = 5
    low_pass: LowPass = field(default_factory=LowPass)
    fast: bool = False

    def check(self) -> None:
        """
        Raises:
            InputError: a value is invalid.
        """
        if not 1 <= self.iterations <= 100:
            raise InputError(f"FreeInit's number of iterations is {self.iterations!r:.40}; it can be 1 to 100.")
        self.low_pass.check()

    def steps(self, steps: int) -> list[int]:
        """The steps of each iteration, at least 1, of which the last has ``steps`` (one less where floats round so, as the authors')."""
        if not self.fast:
            return [steps] * self.iterations
        return [max(1, int(steps / self.iterations * number)) for number in range(1, self.iterations + 1)]


def noising_timestep(schedule: Schedule, start: int) -> int:
    """The timestep that a finished clip is noised to: the last one of training; the run's first one where the last has no signal.

    Args:
        start: the first timestep of the run.

    Raises:
        InputError: nothing of the clip would be left at either.
    """
    last = schedule.timesteps - 1
    if schedule.alphas_cumprod[last] > 0:
        return last
    if schedule.alphas_cumprod[start] > 0:
        return start
    raise InputError(
        f"FreeInit noises the clip again, up to timestep {start}, but nothing of it is left there in this model (zero terminal SNR): "
        f"set start_timestep below {schedule.timesteps}, such as {round(0.94 * schedule.timesteps)}, or use FreeInit with another model."
    )


def iterated(
    sample: Sample, start: Tensor, draws: Iterator[Tensor], settings: FreeInit, schedule: Schedule, first_timestep: int
) -> Tensor:
    """Sample once, then noise, mix and sample again.

    Args:
        start: the first iteration's noise ``[B, C, T, h, w]``.
        draws: fresh noise of that shape; one is drawn before each further iteration.
        first_timestep: that of the run with all steps.

    Returns:
        The latents of the last iteration.

    Raises:
        InputError: as :func:`noising_timestep`.
    """
    settings.check()
    if settings.iterations == 1:
        return sample(start, 0)
    timestep, x = noising_timestep(schedule, first_timestep), start
    for iteration in range(settings.iterations):
        latents = sample(x, iteration)
        if iteration < settings.iterations - 1:
            again = noised(latents, start, schedule, timestep)
            x = mix(again, next(draws).to(again), settings.low_pass)
    return latents


def offset(report: Callable[..., None] | None, counts: Sequence[int], iteration: int) -> Callable[..., None] | None:
    """A callback of one iteration that tells the step and the number of steps of all iterations together.

    Args:
        report: called with the step, the number of steps, and what else there is; None for no callback.
        counts: the steps of each iteration.
    """
    if report is None:
        return None
    before, total, tell = sum(counts[:iteration]), sum(counts), report
    return lambda step, _steps, *rest: tell(before + step, total, *rest)
