"""Several clips in one batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..diffusion.noise import Noise, SeededNoise
from ..generating import Plan, make
from ..pipeline import VideoModel
from .job_list import Job


@dataclass(frozen=True)
class JoinedNoise:
    """The noise of several runs as that of one batch: each clip has the noise that it has alone."""

    parts: Sequence[Noise]

    @property
    def start(self) -> Tensor:
        """``[B, C, T, h, w]``, the parts' clips in order."""
        return torch.cat([part.start for part in self.parts])

    def steps(self) -> Iterator[Tensor]:
        """The noise of each step, of the shape of the start."""
        for draws in zip(*(part.steps() for part in self.parts), strict=True):
            yield torch.cat(draws)


#: Options with which a clip is made alone.
ALONE = ("prompt_schedule", "end_image", "frame_images", "video", "initial_noise", "motion_from", "camera", "trajectory", "depth")


def grouped(jobs: Sequence[Job], at_once: int) -> list[list[Job]]:
    """Jobs in groups of at most so many, whose settings differ in their texts, images and seeds only; in the order of the list."""
    groups, open_groups = list[list[Job]](), dict[Hashable, list[Job]]()
    for job in jobs:
        key = _key(job) if at_once > 1 else None
        group = None if key is None else open_groups.get(key)
        if group is None or len(group) == at_once:
            group = []
            groups.append(group)
            if key is not None:
                open_groups[key] = group
        group.append(job)
    return groups


def _key(job: Job) -> Hashable | None:
    """What jobs of one batch share; None for a job that is made alone."""
    options = vars(job.options)
    if options.get("loop") or options.get("style") or any(options.get(name) is not None for name in ALONE):
        return None
    own = ("prompt", "negative_prompt", "image", "seed", "name")
    shared = tuple(sorted((name, repr(value)) for name, value in options.items() if name not in own))
    return options.get("image") is None, shared


def make_together(model: VideoModel, plans: Sequence[Plan]) -> list[Tensor]:
    """The clips ``[3, T, H, W]`` of plans, in one batch where their images have one size and their settings are the same.

    A clip is then what it is alone, up to rounding: kernels for larger batches sum in another order.
    """
    first = plans[0].settings
    images = [plan.inputs.image for plan in plans]
    positive, negative = ([str(plan.prompts[place]) for plan in plans] for place in (0, 1))
    alike = all(replace(plan.settings, seed=0) == replace(first, seed=0) for plan in plans)
    shapes = {None if image is None else tuple(image.shape) for image in images}
    if not alike or len(shapes) > 1:
        return [make(model, plan) for plan in plans]
    factor = model.config.downscale
    shape = (1, model.config.unet.out_channels, first.frames, first.height // factor, first.width // factor)
    run = first.changed(noise=JoinedNoise([SeededNoise(shape, plan.settings.seed) for plan in plans]))
    if images[0] is None:
        return list(model.text_to_video(positive, negative, sampling=run))
    stacked = torch.stack([image for image in images if image is not None])
    return list(model.image_to_video(stacked, positive, negative, sampling=run))
