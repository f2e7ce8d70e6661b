"""FreeInit around any SAMPLER of ComfyUI's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...vc_core.config import SPACINGS
from ...vc_core.diffusion.freeinit import FreeInit, iterated
from ...vc_core.diffusion.noise import SeededNoise
from ...vc_core.errors import InputError
from .deep_cache import restart
from .frames import conditioned_frames, fold, unfold
from .sampling import AuthorsSampler, ScaledModelSampling, authors_sigmas

#: Between the seeds of two iterations, which samplers with noise of their own draw it by. Videos of a batch have seeds beside each other.
SEED_STEP = 1 << 32


class FreeInitSampler(comfy.samplers.Sampler):
    """Samples several times, each time from noise with the low frequencies of the clip before, see :mod:`vc_core.diffusion.freeinit`.

    Args:
        sampler: a SAMPLER. With VideoCrafter DDIM or Consistency, a seed gives the core's clip.
    """

    def __init__(self, sampler: Any, settings: FreeInit) -> None:
        settings.check()
        self.sampler, self.settings = sampler, settings

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, noise: Tensor, latent_image: Any = None,
        denoise_mask: Any = None, disable_pbar: bool = False,
    ) -> Tensor:
        """As a SAMPLER's; ``noise`` and the result are frames ``[n, 4, h, w]``.

        Raises:
            ValueError: a model of another family, a latent that is not empty, or sigmas that don't end at 0.
        """
        if self.settings.iterations == 1:
            once: Tensor = self.sampler.sample(
                model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
            )
            return once
        sampling = _checked(model_wrap, sigmas, latent_image)
        frames = conditioned_frames(model_wrap.conds) or noise.shape[0]
        start, seed = fold(noise, frames), extra_args.get("seed") or 0
        parts, draws = _parts(sampling, sigmas, self.settings), self._draws(start, frames, seed)
        total = sum(len(part) - 1 for part in parts)

        def run(x: Tensor, iteration: int) -> Tensor:
            part, done = parts[iteration], sum(len(each) - 1 for each in parts[:iteration])
            arguments = _arguments(extra_args, part, seed + iteration * SEED_STEP)
            restart(arguments["model_options"].get("transformer_options", {}))

            def report(step: int, denoised: Tensor, sample: Tensor, _steps: int) -> None:
                callback(done + step, denoised, sample, total)

            samples = self._sampler(draws, frames).sample(
                model_wrap, part.clone(), arguments, None if callback is None else report, unfold(x), latent_image, denoise_mask,
                disable_pbar,
            )
            return fold(samples.float(), frames)

        folded = (fold(each, frames) for each in draws)
        return unfold(iterated(run, start, folded, self.settings, sampling.schedule, int(sampling.timestep(sigmas[0]))))

    def _draws(self, start: Tensor, frames: int, seed: int) -> Iterator[Tensor]:
        """All noise after the start's, frames ``[n, 4, h, w]``: the core's by the seed, or what the sampler has been given."""
        given = self.sampler.extra_options.get("step_noise") if isinstance(self.sampler, AuthorsSampler) else None
        return (unfold(each) for each in SeededNoise(start.shape, seed).steps()) if given is None else iter(given)

    def _sampler(self, draws: Iterator[Tensor], frames: int) -> Any:
        """The sampler of one iteration: the authors' takes its steps' noise from the one sequence of draws."""
        if not isinstance(self.sampler, AuthorsSampler):
            return self.sampler
        options = self.sampler.extra_options
        sampler = AuthorsSampler(options["name"], options["eta"], frames)
        sampler.extra_options["step_noise"] = draws
        return sampler


def _checked(model_wrap: Any, sigmas: Tensor, latent_image: Tensor | None) -> ScaledModelSampling:
    sampling = model_wrap.inner_model.model_sampling
    if not isinstance(sampling, ScaledModelSampling):
        raise ValueError(f"VideoCrafter FreeInit needs a VideoCrafter model's own schedule; this one's is {type(sampling).__name__}.")
    if latent_image is not None and latent_image.any():
        raise ValueError("VideoCrafter FreeInit starts from an empty latent, but this one has content: use Empty VideoCrafter Latent.")
    if len(sigmas) < 2 or sigmas[-1] > sampling.sigma_min * (1 - 1e-3):  # core's uni_pc writes 0.001 in the place of 0
        raise ValueError(
            "VideoCrafter FreeInit samples complete clips, several times, but these sigmas do not end at 0: connect those of VideoCrafter "
            "Scheduler without splitting them."
        )
    return sampling


def _arguments(extra_args: dict[str, Any], sigmas: Tensor, seed: int) -> dict[str, Any]:
    """A sampler's extra arguments for one iteration."""
    options = extra_args.get("model_options", {})
    inner = {**options.get("transformer_options", {}), "sample_sigmas": sigmas}
    return {**extra_args, "model_options": {**options, "transformer_options": inner}, "seed": seed % 2**64}


def _parts(sampling: ScaledModelSampling, sigmas: Tensor, settings: FreeInit) -> list[Tensor]:
    """The sigmas of each iteration: fewer in the first ones with fast sampling, at the authors' timesteps if the given ones are."""
    if not settings.fast:
        return [sigmas] * settings.iterations
    known = _authors(sampling, sigmas)
    if known is not None:
        steps, spacing, start = known
        return [authors_sigmas(sampling, each, 1.0, spacing, start_timestep=start).to(sigmas) for each in settings.steps(steps)]
    last = len(sigmas) - 1
    places = [torch.linspace(0, last, min(each, last) + 1).round().long() for each in settings.steps(last)]
    return [sigmas[each.to(sigmas.device)] for each in places]


def _authors(sampling: ScaledModelSampling, sigmas: Tensor) -> tuple[int, str, int] | None:
    """The number of steps, the spacing and the start whose sigmas these are, if they are those of VideoCrafter Scheduler."""
    schedule, visited = sampling.schedule, sampling.timestep(sigmas[:-1].to(sampling.log_sigmas.device)).cpu().flip(0)
    starts = sorted({schedule.timesteps, int(visited[-1]) + 1}, reverse=True)
    spacings = sorted(SPACINGS, key=lambda spacing: spacing != sampling.spacing)  # the model's own first
    for start, spacing, steps in product(starts, spacings, range(1, len(visited) + 1)):
        try:
            if torch.equal(schedule.spaced(steps, spacing, start=start), visited):
                return steps, spacing, start
        except InputError:  # this spacing has fewer steps
            continue
    return None
