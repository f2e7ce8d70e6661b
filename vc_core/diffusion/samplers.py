"""Sampling: one loop, and the updates from step to step as plain functions.

A network predicts the noise, ``eps``, or ``v = sqrt(a) * eps - sqrt(1 - a) * s * x_0`` (Salimans and Ho, arXiv:2202.00512), which
determines x_0 even where ``a`` is 0. :func:`clean_and_noise` turns either into x_0 and eps, so that updates need not know which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .schedule import Schedule

#: Predicts x_0 and eps from the sample ``[B, C, T, h, w]`` and the index of the step in the tables.
Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]
#: The next sample from x_0, eps, the index of the step in the tables, and the step's noise.
Update = Callable[[Tensor, Tensor, int, Tensor], Tensor]
#: Called after each step with its number from 0, the number of steps, the predicted x_0 and the next sample.
Callback = Callable[[int, int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Tables:
    """The schedule at each visited timestep, rising, ``[steps]`` in float32; ``prev`` is at the timestep that a step goes to."""

    timesteps: Tensor
    alphas: Tensor
    alphas_prev: Tensor
    #: Standard deviation of the noise that DDIM adds.
    sigmas: Tensor
    #: The sample scale.
    scale: Tensor
    scale_prev: Tensor
    #: ``eps`` or ``v``.
    prediction: str = "eps"

    @classmethod
    def make(
        cls, schedule: Schedule, timesteps: Tensor, eta: float = 0.0, end: int | None = 0, by_image: bool = False
    ) -> Tables:
        """
        Args:
            timesteps: rising, as :meth:`Schedule.spaced` gives them.
            eta: of DDIM (Song et al., arXiv:2010.02502, equation 16): 0 adds no noise, 1 as much as the training's process.
            end: the timestep that the last step goes to; None: the clean sample, without noise or sample scale.
            by_image: the run's guidance by the image has a scale of its own.
        """
        previous = torch.cat([torch.tensor([end or 0]), timesteps[:-1]])
        alphas, alphas_prev = schedule.alphas_cumprod[timesteps].double(), schedule.alphas_cumprod[previous].double()
        scale, scale_prev = schedule.scale[timesteps], schedule.scale[previous]
        if end is None:
            alphas_prev[0] = scale_prev[0] = 1
        elif end == 0 and (schedule.dynamic_rescale or by_image and schedule.dynamic_rescale_by_image):
            scale_prev[0] = scale[0]
        sigmas = eta * ((1 - alphas_prev) / (1 - alphas) * (1 - alphas / alphas_prev)).sqrt()
        return cls(timesteps, alphas.float(), alphas_prev.float(), sigmas.float(), scale, scale_prev, schedule.prediction)


def clean_and_noise(x: Tensor, prediction: Tensor, tables: Tables, index: int) -> tuple[Tensor, Tensor]:
    """x_0 (without the sample scale) and eps, from a network's prediction for ``x``."""
    a = tables.alphas[index]
    if tables.prediction == "v":
        scaled = a.sqrt() * x - (1 - a).sqrt() * prediction
        return scaled / tables.scale[index], a.sqrt() * prediction + (1 - a).sqrt() * x
    return (x - (1 - a).sqrt() * prediction) / a.sqrt() / tables.scale[index], prediction


def noised(latents: Tensor, noise: Tensor, schedule: Schedule, timestep: int) -> Tensor:
    """Latents noised to a timestep, as in training: ``sqrt(a) * s * latents + sqrt(1 - a) * noise``."""
    a, scale = schedule.alphas_cumprod[timestep].to(latents), schedule.scale[timestep].to(latents)
    return a.sqrt() * scale * latents + (1 - a).sqrt() * noise


def ddim(tables: Tables) -> Update:
    """The update of DDIM, with the tables' noise at every step (Song et al., arXiv:2010.02502, equation 12)."""

    def update(x0: Tensor, eps: Tensor, index: int, noise: Tensor) -> Tensor:
        a_prev, sigma = tables.alphas_prev[index], tables.sigmas[index]
        direction = (1 - a_prev - sigma**2).clamp(min=0).sqrt() * eps  # pointing to x_t
        return a_prev.sqrt() * tables.scale_prev[index] * x0 + direction + sigma * noise

    return update


def boundary_scalings(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the noisy sample and of x_0 in a consistency model's result, so that it is the sample itself at timestep 0.

    Song et al. (arXiv:2303.01469, equation 5) with the constants of latent consistency models (arXiv:2310.04378): ``sigma_data`` 0.5, and
    timesteps times 10. Both are in float64, of the shape of ``timesteps``.
    """
    time, data = 10 * timesteps.double(), 0.5
    return data**2 / (time**2 + data**2), time / (time**2 + data**2).sqrt()


def consistency(tables: Tables) -> Update:
    """The update of multistep consistency sampling: a prediction of the clean sample, noised to the next timestep.

    Song et al. (arXiv:2303.01469, algorithm 1). The last step's result is clean if the tables end with the clean sample.
    """
    skip, out = (each.float() for each in boundary_scalings(tables.timesteps))

    def update(x0: Tensor, eps: Tensor, index: int, noise: Tensor) -> Tensor:
        a, a_next = tables.alphas[index], tables.alphas_prev[index]
        x = a.sqrt() * tables.scale[index] * x0 + (1 - a).sqrt() * eps
        denoised = out[index] * x0 + skip[index] * x
        return a_next.sqrt() * tables.scale_prev[index] * denoised + (1 - a_next).sqrt() * noise

    return update


def tables_and_update(
    sampler: str, schedule: Schedule, timesteps: Tensor, eta: float = 0.0, end: int | None = None, by_image: bool = False
) -> tuple[Tables, Update]:
    """The tables and the update of a run.

    Args:
        sampler: one of :data:`vc_core.config.SAMPLERS`.
        timesteps: rising.
        eta: of DDIM; consistency sampling has no such choice.
        end: the timestep that the last step goes to; None: where the sampler's authors end, which is timestep 0 with DDIM, and the clean
            sample with consistency sampling.
        by_image: see :meth:`Tables.make`.
    """
    if sampler == "consistency":
        tables = Tables.make(schedule, timesteps, end=end)
        return tables, consistency(tables)
    tables = Tables.make(schedule, timesteps, eta, end or 0, by_image)
    return tables, ddim(tables)


def sample(
    predict: Predict, x: Tensor, steps: int, update: Update, noise: Iterator[Tensor], callback: Callback | None = None
) -> Tensor:
    """From noise to clean latents, from the last entry of the tables to the first.

    Args:
        x: the start, ``[B, C, T, h, w]``.
        noise: one tensor of that shape for each step.

    Returns:
        The last sample, of the shape of ``x``.
    """
    for step in range(steps):
        index = steps - 1 - step
        x0, eps = predict(x, index)
        x = update(x0, eps, index, _to_device(next(noise), x))
        if callback is not None:
            callback(step, steps, x0, x)
    return x


def denoise(
    predict: Callable[[Tensor, Tensor, int, int], Tensor],
    x: Tensor,
    tables: Tables,
    update: Update,
    noise: Iterator[Tensor],
    callback: Callback | None = None,
) -> Tensor:
    """:func:`sample` with a network's predictions.

    Args:
        predict: the network's prediction from ``x``, the timesteps ``[B]``, the number of the step from 0, and that of all steps.
    """
    steps, timesteps = len(tables.timesteps), tables.timesteps.to(x.device)

    def clean(x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        prediction = predict(x, timesteps[index].expand(len(x)), steps - 1 - index, steps)
        return clean_and_noise(x, prediction, tables, index)

    return sample(clean, x, steps, update, noise, callback)


def _to_device(noise: Tensor, x: Tensor) -> Tensor:
    """Noise on the device of ``x``, without waiting for the GPU's queued work."""
    pinned = noise.pin_memory() if x.is_cuda and not noise.is_cuda else noise
    return pinned.to(x, non_blocking=True)
