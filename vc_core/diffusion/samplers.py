"""DDIM, with noise added at every step or without (Song et al., arXiv:2010.02502).

A network predicts the noise, ``eps``, or ``v = sqrt(a) * eps - sqrt(1 - a) * s * x_0`` (Salimans and Ho, arXiv:2202.00512), which says
what x_0 is even where ``a`` is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .schedule import Schedule

#: Predicts the noise, or v, in ``x`` ``[B, C, T, h, w]`` at one timestep, given as ``[B]``.
Denoiser = Callable[[Tensor, Tensor], Tensor]
#: Called after each step with its index, the number of steps, the prediction of the clean latent and the next sample.
Callback = Callable[[int, int, Tensor, Tensor], None]


@dataclass(frozen=True)
class DDIMTables:
    """What the update needs at each visited timestep, rising, ``[steps]`` in float32."""

    timesteps: Tensor
    alphas: Tensor
    alphas_prev: Tensor
    sigmas: Tensor
    scale: Tensor
    scale_prev: Tensor
    #: ``eps`` or ``v``.
    prediction: str = "eps"

    @classmethod
    def make(cls, schedule: Schedule, timesteps: Tensor, eta: float, end: int = 0) -> DDIMTables:
        """``timesteps`` as :meth:`Schedule.uniform` gives them; ``end`` is where the last step goes, the first of training."""
        previous = torch.cat([torch.tensor([end]), timesteps[:-1]])
        alphas, alphas_prev = schedule.alphas_cumprod[timesteps].double(), schedule.alphas_cumprod[previous].double()
        sigmas = eta * ((1 - alphas_prev) / (1 - alphas) * (1 - alphas / alphas_prev)).sqrt()
        scale, scale_prev = schedule.scale[timesteps], schedule.scale[previous]
        if schedule.dynamic_rescale and end == 0:
            scale_prev[0] = scale[0]
        return cls(timesteps, alphas.float(), alphas_prev.float(), sigmas.float(), scale, scale_prev, schedule.prediction)


def seeded_noise(shape: Sequence[int], seed: int) -> Iterator[Tensor]:
    """The noise of a run, on the CPU in float32, so that it is the same on every device.

    Each video of the batch has a generator of its own, the first seeded with ``seed``, the next with ``seed + 1`` and so on: a
    video is the same alone and in a batch. From it come whole tensors ``[C, T, h, w]``: first the start, then one a step in the
    order of the steps, whether or not a step uses it.

    Args:
        shape: ``[B, C, T, h, w]``.
    """
    generators = [torch.Generator("cpu").manual_seed(seed + index) for index in range(shape[0])]
    while True:
        yield torch.stack([torch.randn(*shape[1:], generator=generator) for generator in generators])


def clean_and_noise(x: Tensor, prediction: Tensor, tables: DDIMTables, index: int) -> tuple[Tensor, Tensor]:
    """The x_0, with the sample scale taken out of it, and the noise that a network's prediction for ``x`` stands for."""
    a = tables.alphas[index]
    if tables.prediction == "v":
        scaled = a.sqrt() * x - (1 - a).sqrt() * prediction
        return scaled / tables.scale[index], a.sqrt() * prediction + (1 - a).sqrt() * x
    return (x - (1 - a).sqrt() * prediction) / a.sqrt() / tables.scale[index], prediction


def ddim_step(x0: Tensor, eps: Tensor, tables: DDIMTables, index: int, noise: Tensor) -> Tensor:
    """One update: the next sample, from what the present one is taken for. ``index`` is the step's place in the tables."""
    a_prev, sigma = tables.alphas_prev[index], tables.sigmas[index]
    direction = (1 - a_prev - sigma**2).clamp(min=0).sqrt() * eps  # that points to x_t
    return a_prev.sqrt() * tables.scale_prev[index] * x0 + direction + sigma * noise


def ddim_sample(
    denoise: Denoiser, x: Tensor, tables: DDIMTables, step_noise: Iterator[Tensor], callback: Callback | None = None
) -> Tensor:
    """From noise ``x`` ``[B, C, T, h, w]`` to a clean latent, visiting the tables' timesteps from the last to the first."""
    steps = len(tables.timesteps)
    timesteps = tables.timesteps.to(x.device)
    for step in range(steps):
        index = steps - 1 - step
        prediction = denoise(x, timesteps[index].expand(len(x)))
        x0, eps = clean_and_noise(x, prediction, tables, index)
        x = ddim_step(x0, eps, tables, index, _beside(x, next(step_noise)))
        if callback is not None:
            callback(step, steps, x0, x)
    return x


def _beside(x: Tensor, noise: Tensor) -> Tensor:
    """Noise where ``x`` is, without waiting for what a GPU has yet to do."""
    pinned = noise.pin_memory() if x.is_cuda and not noise.is_cuda else noise
    return pinned.to(x, non_blocking=True)
