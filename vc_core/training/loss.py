"""The diffusion loss of the family: eps or v, with or without sample scale, fps, image tokens and image channels.

With alphas a_t and the sample scale s_t (1 for models without it) a clip's latent x_0 is noised to
x_t = sqrt(a_t) s_t x_0 + sqrt(1 - a_t) eps. The network predicts eps (Ho et al., arXiv:2006.11239) or
v = sqrt(a_t) eps - sqrt(1 - a_t) s_t x_0 (Salimans and Ho, arXiv:2202.00512). Some prompts are replaced by the empty one, for
guidance (Ho and Salimans, arXiv:2207.12598).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import PREDICTIONS
from ..diffusion.schedule import Schedule
from ..errors import InputError
from ..models.conditioning import Conditioning
from .settings import LossSettings

WEIGHTINGS = ("none", "min_snr", "v")


@dataclass
class Batch:
    """The data of one update. Latents are in the diffusion's scale (times 0.18215)."""

    latents: Tensor  # [B, C, T, h, w]
    conditioning: Conditioning
    empty: Conditioning  # of one video, for the prompts that are dropped


def expand(values: Tensor) -> Tensor:
    """`[B]` to `[B, 1, 1, 1, 1]`."""
    return values[:, None, None, None, None]


class DiffusionLoss:
    """Noises a batch, calls the network, compares.

    Raises:
        InputError: an unknown setting, a number that can't be, or the prediction is eps although the last timestep has no signal.
    """

    def __init__(self, schedule: Schedule, settings: LossSettings) -> None:
        settings.check()
        if settings.prediction not in PREDICTIONS:
            raise InputError(f"The prediction is {settings.prediction!r}; it can be {' or '.join(PREDICTIONS)}.")
        if settings.weighting not in WEIGHTINGS:
            raise InputError(f"The weighting is {settings.weighting!r}; it can be {', '.join(WEIGHTINGS)}.")
        if settings.prediction == "eps" and float(schedule.alphas_cumprod[-1]) <= 0:
            raise InputError("The schedule ends without signal (zero terminal SNR); only the v prediction is defined there.")
        self.schedule, self.settings = schedule, settings

    def noised(self, latents: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """x_t of `latents [B, C, T, h, w]` at `timesteps [B]`."""
        alpha, scale = self._tables(timesteps, latents)
        return alpha.sqrt() * scale * latents + (1 - alpha).sqrt() * noise

    def target(self, latents: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """The target of the network's prediction, `[B, C, T, h, w]`."""
        if self.settings.prediction == "eps":
            return noise
        alpha, scale = self._tables(timesteps, latents)
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * scale * latents

    def weight(self, timesteps: Tensor, limit: float = 0.0) -> Tensor:
        """The weight `[B]` of the squared error, from the signal to noise ratio S = a s^2 / (1 - a).

        `min_snr` (Hang et al., arXiv:2303.09556) is min(S, gamma) on the error of x_0. `v` weights the error of eps as the v
        prediction would, by (S + 1) / S up to a limit: more at high noise, where the prompt matters most. If `limit` is 0, the
        settings' limit is used.
        """
        alpha, scale = self.schedule.alphas_cumprod.to(timesteps.device)[timesteps], self.schedule.scale.to(timesteps.device)[timesteps]
        ratio = (alpha * scale**2 / (1 - alpha)).clamp(min=1e-8)
        limit, eps = limit or self.settings.weight_limit, self.settings.prediction == "eps"
        if self.settings.weighting == "min_snr":
            return ratio.clamp(max=limit) / (ratio if eps else ratio + 1)
        if self.settings.weighting == "v" and eps:
            return ((ratio + 1) / ratio).clamp(max=limit)
        return torch.ones_like(ratio)

    def dropped(self, batch: Batch, uniform: Tensor) -> Conditioning:
        """The conditioning with empty text and image tokens in place of some rows.

        With u of a row, the text is dropped for u < t + p and the image for t <= u < t + p + i; t, p and i are the settings' dropouts of
        text, both and image. DynamiCrafter was trained with 0.05 of each, VideoCrafter with p alone. Concat latents are never dropped.

        Args:
            uniform: a number in [0, 1) for each row, ``[B]``.
        """
        text, image = batch.conditioning.text, batch.conditioning.image_tokens
        settings = self.settings
        until_text, until_both = settings.text_dropout, settings.text_dropout + settings.prompt_dropout
        drawn = uniform.to(text.device)[:, None, None]
        text = torch.where(drawn < until_both, batch.empty.text, text)
        if image is not None and batch.empty.image_tokens is not None:
            drops = (drawn >= until_text) & (drawn < until_both + settings.image_dropout)
            image = torch.where(drops, batch.empty.image_tokens, image)
        return replace(batch.conditioning, text=text, image_tokens=image)

    def draw_timesteps(self, batch: int, generator: torch.Generator, power: float = 1.0) -> Tensor:
        """Timesteps `[B]` of the density t^(power - 1); independent, or evenly spread (Kingma et al., arXiv:2107.00630, appendix I.1)."""
        if self.settings.spread_timesteps:
            quantiles = (torch.rand(1, generator=generator) + torch.arange(batch) / batch) % 1
        else:
            quantiles = torch.rand(batch, generator=generator)
        count = len(self.schedule.alphas_cumprod)
        return (quantiles ** (1 / power) * count).long().clamp(max=count - 1)

    def errors(self, unet: Callable[..., Tensor], latents: Tensor, timesteps: Tensor, noise: Tensor, conditioning: Conditioning) -> Tensor:
        """The mean squared error of each clip, not weighted, ``[B]``.

        Args:
            unet: ``(x_t, timesteps, conditioning)`` -> prediction ``[B, C, T, h, w]``.
            latents, noise: ``[B, C, T, h, w]``; the latents in the diffusion's scale.
            timesteps: ``[B]``.
        """
        error = unet(self.noised(latents, timesteps, noise), timesteps, conditioning) - self.target(latents, timesteps, noise)
        return (error.float() ** 2).mean((1, 2, 3, 4))

    def __call__(
        self, unet: Callable[..., Tensor], batch: Batch, generator: torch.Generator, timestep_power: float = 1.0, weight_limit: float = 0.0
    ) -> Tensor:
        """The mean weighted squared error. Timesteps, noise and what is dropped are drawn from `generator` (on the CPU), in this order."""
        latents = batch.latents
        timesteps = self.draw_timesteps(len(latents), generator, timestep_power).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        conditioning = self.dropped(batch, torch.rand(len(latents), generator=generator))
        errors = self.errors(unet, latents, timesteps, noise, conditioning)
        return (self.weight(timesteps, weight_limit) * errors).mean()

    def _tables(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha, scale = self.schedule.alphas_cumprod.to(timesteps.device), self.schedule.scale.to(timesteps.device)
        return expand(alpha[timesteps]).to(like), expand(scale[timesteps]).to(like)
