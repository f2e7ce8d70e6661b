"""Consistency distillation: the UNet learns to give, in one pass, what its teacher reaches in many, guided.

Of two neighbouring timesteps of the teacher's solver, the later one's clean sample is trained towards the earlier one's, which an
average of the network's own weights predicts from the teacher's guided DDIM step (Luo et al., arXiv:2310.04378, algorithm 1, as in
T2V-Turbo, arXiv:2405.18750). The scale of guidance is drawn anew for each clip and is an input of the network.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vc_core.diffusion.samplers import boundary_scalings
from vc_core.diffusion.schedule import Schedule
from vc_core.models.conditioning import Conditioning
from vc_core.models.unet import ResidualBlock, UNet
from vc_core.training.loss import expand
from vc_core.training.trainer import Pass

from .denoiser import LatentTable, TextTable
from .settings import Distillation
from .world import World, sample


def freeze_shared(unet: UNet) -> None:
    """Keep the weights that the distilled model has in common with its teacher: of convolutions over space, their norms, and of fps."""
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            module.requires_grad_(False)
        elif isinstance(module, ResidualBlock):
            module.in_layers.requires_grad_(False)
            module.out_layers.requires_grad_(False)
    unet.fps_embedding.requires_grad_(False)


class ConsistencyLoss:
    """The loss of one pass of `vc_core.training.trainer.Trainer`.

    Args:
        teacher: predicts eps.
        schedule: the teacher's.
        solver_steps: of the teacher's DDIM.
    """

    def __init__(
        self, teacher: UNet, schedule: Schedule, solver_steps: int, latents: LatentTable, text: TextTable, world: World,
        settings: Distillation,
    ) -> None:
        self.teacher, self.schedule, self.settings = teacher, schedule, settings
        self.latents, self.text, self.world = latents, text, world
        self.solver = schedule.consistency(solver_steps, solver_steps)
        self.target: nn.Module = teacher  # the average of the trained weights takes its place

    def __call__(self, network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        clips = sample(self.world, self.settings.trainer.batch, run.generator)
        latents = self.latents(clips.colour, clips.shape, clips.positions)
        index = self._steps(len(latents), run.generator)
        noise = torch.randn(latents.shape, generator=run.generator)
        share = torch.rand(len(latents), generator=run.generator)
        guidance = torch.lerp(torch.tensor(self.settings.guidance_min), torch.tensor(self.settings.guidance_max), share)
        later, earlier = self.solver[index], self.solver[(index - 1).clamp(min=0)]
        given = Conditioning(self.text(clips.prompts), fps=clips.fps.float())
        distilled = replace(given, guidance=guidance)
        x = self._noised(latents, noise, later)
        with torch.no_grad():
            solved = self._solve(x, later, earlier, given, guidance)
            eps = self.target(solved, earlier, distilled)
            target = torch.where(expand(index > 0), self.clean(solved, eps, earlier), self.first(x, later, given, guidance))
        predicted = self.clean(x, network(x, later, distilled), later)
        scale = self.settings.huber
        errors = ((predicted - target).square() + scale**2).sqrt() - scale
        return errors.mean(), {}

    def clean(self, x: Tensor, eps: Tensor, timesteps: Tensor) -> Tensor:
        """The network's clean sample: ``x`` itself where there is no noise, for ``x, eps [B, C, T, h, w]`` at ``timesteps [B]``."""
        skip, out = (expand(each).to(x) for each in boundary_scalings(timesteps))
        return skip * x + out * self._x0(x, eps, timesteps)

    def first(self, x: Tensor, timesteps: Tensor, given: Conditioning, guidance: Tensor) -> Tensor:
        """The target at the solver's first timestep, below which there is only the clean sample: the teacher's own."""
        return self._x0(x, self._guided(x, timesteps, given, guidance), timesteps)

    def _steps(self, batch: int, generator: torch.Generator) -> Tensor:
        """Indices into the solver's timesteps, evenly spread, ``[batch]``."""
        quantiles = (torch.rand(1, generator=generator) + torch.arange(batch) / batch) % 1
        return (quantiles * len(self.solver)).long().clamp(max=len(self.solver) - 1)

    def _solve(self, x: Tensor, timesteps: Tensor, earlier: Tensor, given: Conditioning, guidance: Tensor) -> Tensor:
        """A step of DDIM with the teacher's guided prediction, from ``timesteps`` to ``earlier``."""
        eps = self._guided(x, timesteps, given, guidance)
        return self._noised(self._x0(x, eps, timesteps), eps, earlier)

    def _guided(self, x: Tensor, timesteps: Tensor, given: Conditioning, guidance: Tensor) -> Tensor:
        with torch.no_grad():
            eps = self.teacher(x, timesteps, given)
            empty = self.teacher(x, timesteps, replace(given, text=self.text([""]).expand(len(x), -1, -1)))
        return empty + expand(guidance) * (eps - empty)

    def _noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        a, scale = self._tables(timesteps, latents)
        return a.sqrt() * scale * latents + (1 - a).sqrt() * noise

    def _x0(self, x: Tensor, eps: Tensor, timesteps: Tensor) -> Tensor:
        a, scale = self._tables(timesteps, x)
        return (x - (1 - a).sqrt() * eps) / (a.sqrt() * scale)

    def _tables(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        return expand(self.schedule.alphas_cumprod[timesteps]).to(like), expand(self.schedule.scale[timesteps]).to(like)
