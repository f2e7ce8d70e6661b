"""The noise schedule in ComfyUI's terms, and the authors' samplers as SAMPLERs.

ComfyUI's samplers see ``y = x_0 + sigma * noise``. VideoCrafter noises a scaled sample, ``x_t = sqrt(a) * s * x_0 +
sqrt(1 - a) * noise``, and dividing that by ``sqrt(a) * s`` gives the same form with ``sigma = sqrt((1 - a) / a) / s``. So the
sample scale only changes the table of sigmas and the scale of the network's input, and every sampler works. If a schedule ends
without signal, its last sigma would be infinite; core's largest sigma is used instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch
from torch import Tensor

from ...vc_core.config import ORIGINAL_STEPS
from ...vc_core.diffusion.noise import SeededNoise
from ...vc_core.diffusion.samplers import Tables, Update, sample, tables_and_update
from ...vc_core.diffusion.schedule import Schedule
from .frames import conditioned_frames, unfold

#: A node's ``start_timestep`` for runs over the whole schedule.
WHOLE = 1000
#: The last alpha if it would be 0, as in core: samplers need a finite sigma.
LAST_ALPHA = 4.8973451890853435e-08
#: The node of each sampler, by its name in the core.
TITLES = {"ddim": "VideoCrafter DDIM", "consistency": "VideoCrafter Consistency"}


class ScaledModelSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Core's discrete schedule with the model's own betas and sample scale, for networks that predict the noise or v.

    Args:
        spacing: the authors' spacing of the timesteps, see :meth:`vc_core.diffusion.schedule.Schedule.spaced`.
    """

    def __init__(self, schedule: Schedule, spacing: str = "uniform") -> None:
        super().__init__()
        self.schedule, self.spacing = schedule, spacing
        alphas, scale = schedule.alphas_cumprod.double(), schedule.scale.double()
        alphas = alphas.clamp(min=LAST_ALPHA)
        self.set_sigmas(((1 - alphas) / alphas).sqrt() / scale)
        self.register_buffer("scale", scale.float())

    @torch.no_grad()  # core's training asks for gradients of sigmas, for which tables made in inference mode can't be kept
    def sample_scale(self, sigma: Tensor) -> Tensor:
        """``s`` at ``sigma``; between two timesteps it is interpolated linearly in log sigma."""
        table = self.log_sigmas.to(sigma.device)
        scales = self.scale.to(sigma.device)
        log_sigma = sigma.log().clamp(table[0], table[-1])
        high = torch.searchsorted(table, log_sigma.contiguous()).clamp(1, len(table) - 1)
        weight = (log_sigma - table[high - 1]) / (table[high] - table[high - 1])
        return torch.lerp(scales[high - 1], scales[high], weight.to(scales))

    def alpha(self, sigma: Tensor) -> Tensor:
        """``a`` at ``sigma``; 0 at the last sigma of a schedule that ends without signal."""
        alpha = 1 / (1 + (sigma * self.sample_scale(sigma)) ** 2)
        if self.schedule.alphas_cumprod[-1] > 0:
            return alpha
        return torch.where(sigma >= self.sigma_max * (1 - 1e-5), torch.zeros_like(alpha), alpha)

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """x_0 by the network's prediction for ``y``."""
        if self.schedule.prediction == "eps":
            return model_input - model_output * self._spread(sigma, model_output)
        alpha, scale = self.alpha(sigma), self.sample_scale(sigma)
        return model_input * self._spread(alpha, model_input) - model_output * self._spread((1 - alpha).sqrt() / scale, model_input)

    def input_scale(self, sigma: Tensor) -> Tensor:
        """``sqrt(a) * s``, the factor between ``y`` and the network's input."""
        scale = self.sample_scale(sigma)
        return scale / (1 + (sigma * scale) ** 2).sqrt()

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise * self._spread(self.input_scale(sigma), noise)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """A latent noised to ``sigma``; with ``max_denoise`` the network's input is the noise itself."""
        factor = 1 / self.input_scale(sigma) if max_denoise else sigma
        return noise * self._spread(factor, noise) + latent_image

    @staticmethod
    def _spread(factor: Tensor, like: Tensor) -> Tensor:
        return factor.reshape(factor.shape[:1] + (1,) * (like.ndim - 1)) if factor.ndim else factor


def schedule_of(model: Any) -> ScaledModelSampling:
    """A MODEL's noise schedule.

    Raises:
        ValueError: it is not a model of the family.
    """
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, ScaledModelSampling):
        raise ValueError(
            f"This node needs a VideoCrafter model with its own noise schedule; it got {type(model.model).__name__} with "
            f"{type(sampling).__name__}. Use the node Load VideoCrafter Model, and no node that changes the schedule."
        )
    return sampling


def below_whole(start_timestep: int) -> int | None:
    """A node's ``start_timestep`` for :func:`authors_sigmas`: None where it is the whole schedule, however long that is."""
    return None if start_timestep >= WHOLE else start_timestep


def authors_sigmas(
    sampling: ScaledModelSampling, steps: int, denoise: float = 1.0, spacing: str = "auto", original_steps: int = ORIGINAL_STEPS,
    start_timestep: int | None = None,
) -> Tensor:
    """The sigmas at the timesteps of the authors' sampler, falling, with a 0 at the end.

    Args:
        spacing: of the timesteps; ``auto`` is the model's own.
        denoise, original_steps, start_timestep: see :meth:`vc_core.diffusion.schedule.Schedule.visited`.

    Raises:
        ValueError: ``steps / denoise`` is more than the number of timesteps, there is no such timestep, or both say where to start.
    """
    spacing = sampling.spacing if spacing == "auto" else spacing
    visited = sampling.schedule.visited(steps, spacing, denoise, original_steps, start_timestep)
    return torch.cat([sampling.sigmas.cpu()[visited].flip(0), torch.zeros(1)])


class AuthorsSampler(comfy.samplers.KSAMPLER):
    """DDIM or consistency sampling as the authors' code has it: with its start, its noise at every step, and its last step.

    Args:
        name: one of :data:`vc_core.config.SAMPLERS`.
        eta: of DDIM: 0 adds no noise, 1 as much as the training's reverse process.
        frames: frames per video; None: the conditioning's, or all of the batch.

    The option ``step_noise`` can hold the noise of each step, in place of the seed's.
    """

    def __init__(self, name: str, eta: float = 0.0, frames: int | None = None) -> None:
        super().__init__(_sample, {"name": name, "eta": eta, "frames": frames, "step_noise": None})

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict, callback: Any, noise: Tensor, latent_image: Any = None,
        denoise_mask: Any = None, disable_pbar: bool = False,
    ) -> Tensor:
        # From an empty latent the authors start with the noise itself, whatever the first timestep; else noise is added.
        self._from_nothing = latent_image is None or not latent_image.any()
        samples = super().sample(model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
        if denoise_mask is None or sigmas[-1] > 0:
            return samples
        # DDIM's last step leaves some noise in the result, which must not be in the part that the mask excludes.
        return samples * denoise_mask + latent_image * (1 - denoise_mask)

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        return self._from_nothing and len(sigmas) > 1


@torch.no_grad()
def _sample(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: dict, callback: Any, disable: bool | None, name: str, eta: float,
    frames: int | None, step_noise: Iterable[Tensor] | None,
) -> Tensor:
    """A sampler function of ComfyUI's, on frames ``[n, 4, h, w]`` noised to ``sigmas[0]``.

    The loop and the update are the core's own, on its ``x_t = sqrt(a) * s * y``.
    """
    sampling = model.inner_model.inner_model.model_sampling
    if not isinstance(sampling, ScaledModelSampling):
        raise ValueError(f"{TITLES[name]} needs a VideoCrafter model's own schedule; this one's is {type(sampling).__name__}.")
    if not (sigmas[:-1] >= sigmas[1:]).all():
        raise ValueError(
            f"{TITLES[name]} needs sigmas that fall, but these are {', '.join(f'{sigma:.4g}' for sigma in sigmas[:8].tolist())}, ...: "
            "remove nodes that turn them around or change them, such as FlipSigmas."
        )
    if len(sigmas) < 2:
        return x  # no steps
    tables, update = _tables(sampling, sigmas, name, eta, by_image=getattr(model.inner_model, "guides_by_image", False))
    steps = len(tables.timesteps)
    frames = frames or conditioned_frames(model.inner_model.conds) or x.shape[0]
    noise = _step_noise(x, frames, extra_args.get("seed") or 0) if step_noise is None else iter(step_noise)
    input_scales = sampling.input_scale(sigmas[:-1]).to(x)
    y = x

    def predict(sample: Tensor, index: int) -> tuple[Tensor, Tensor]:
        nonlocal y
        step = steps - 1 - index
        y = sample / input_scales[step]
        denoised = model(y, sigmas[step] * y.new_ones([y.shape[0]]), **extra_args)
        alpha, scale = tables.alphas[index], tables.scale[index]
        return denoised, (sample - alpha.sqrt() * scale * denoised) / (1 - alpha).sqrt()

    def report(step: int, steps: int, denoised: Tensor, following: Tensor) -> None:
        if callback is not None:
            callback({"i": step, "x": y, "sigma": sigmas[step], "sigma_hat": sigmas[step], "denoised": denoised})

    clean = sample(predict, x * input_scales[0], steps, update, noise, report)
    # If the last sigma is not 0, another sampler continues from the result.
    return clean if sigmas[-1] == 0 else clean / (tables.alphas_prev[0].sqrt() * tables.scale_prev[0])


def _tables(sampling: ScaledModelSampling, sigmas: Tensor, name: str, eta: float, by_image: bool) -> tuple[Tables, Update]:
    """The tables at the timesteps of any falling sigmas, and the update; the tables are rising."""
    timesteps = sampling.timestep(sigmas.to(sampling.log_sigmas.device)).cpu().flip(0)
    end = None if sigmas[-1] == 0 else int(timesteps[0])
    return tables_and_update(name, sampling.schedule, timesteps[1:], eta, end, by_image)


def _step_noise(x: Tensor, frames: int, seed: int) -> Iterator[Tensor]:
    """The core's noise of each step for this batch."""
    noise = SeededNoise((x.shape[0] // frames, x.shape[1], frames, *x.shape[2:]), seed)
    return (unfold(tensor) for tensor in noise.steps())
