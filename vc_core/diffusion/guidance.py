"""Guidance: how the predictions of several passes become one.

Classifier-free guidance is Ho and Salimans (arXiv:2207.12598); its rescaling is Lin et al. (arXiv:2305.08891, section 3.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

#: How the guidance by the camera's path changes over a run.
CAMERA_SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Guidance:
    """The scales of guidance. A scale of 1 needs no negative pass, and a temporal scale of 0 no pass without time."""

    #: How far the result goes from the negative to the positive prediction; 1 is the positive one. A tensor that fits predictions
    #: ``[B, C, T, h, w]`` has one for each frame.
    scale: float | Tensor = 1.0
    #: How far the result is brought to the positive's standard deviation over each video, 0 to 1.
    rescale: float = 0.0
    #: How far the result is pushed away from the prediction without temporal attention.
    temporal_scale: float = 0.0
    #: Guidance by the image apart from that by the text, which ``scale`` is then; None guides by both together
    #: (InstructPix2Pix, arXiv:2211.09800, section 3.2.1).
    image_scale: float | None = None
    #: Guidance by the camera's path, beside that by the text: how far the result goes from the prediction without the path (CamI2V,
    #: arXiv:2410.15957). 1 is none, without a pass of its own.
    camera_scale: float = 1.0
    #: One of :data:`CAMERA_SCHEDULES`; with ``cosine`` it falls from its scale at the last timestep, where a run
    #: starts, to nothing at timestep 0.
    camera_schedule: str = "constant"
    #: Guidance by the style of images apart from that by the text, which ``scale`` is then; None guides by both together
    #: (StyleCrafter, arXiv:2312.00330, section 3.4). Without guidance by the text it has no effect.
    style_scale: float | None = None

    def camera_weight(self, timesteps: Tensor, last: int = 999) -> float | Tensor:
        """The factor of the guidance by the camera at a step.

        Args:
            timesteps: ``[B]`` -> ``[B, 1, 1, 1, 1]``.
        """
        if self.camera_schedule == "constant":
            return self.camera_scale - 1
        weight = ((1 - timesteps.double() / last) * math.pi / 2).cos().float()
        return (self.camera_scale - 1) * weight.reshape(-1, 1, 1, 1, 1)


def guide(
    positive: Tensor,
    negative: Tensor,
    guidance: Guidance,
    image: Tensor | None = None,
    without_time: Tensor | None = None,
    uncontrolled: Tensor | None = None,
    camera_weight: float | Tensor = 0.0,
    unstyled: Tensor | None = None,
) -> Tensor:
    """Combine predictions for the same videos, each ``[B, C, T, h, w]``.

    Args:
        image: the prediction with the positive's image and the negative's text; needed where the guidance has an image scale.
        without_time: the positive's prediction without temporal attention; needed where it has a temporal scale.
        uncontrolled: the positive's prediction without the camera's path, from which the result is pushed away by ``camera_weight``.
        unstyled: the positive's prediction without its style; needed where the guidance has a style scale.
    """
    if unstyled is not None and guidance.style_scale is not None:
        guided = positive + guidance.style_scale * (positive - unstyled) + guidance.scale * (unstyled - negative)
    elif image is None or guidance.image_scale is None:
        guided = negative + guidance.scale * (positive - negative)
    else:
        guided = negative + guidance.image_scale * (image - negative) + guidance.scale * (positive - image)
    if without_time is not None:
        guided = guided + guidance.temporal_scale * (positive - without_time)
    if uncontrolled is not None:
        guided = guided + camera_weight * (positive - uncontrolled)
    if guidance.rescale:
        axes = tuple(range(1, guided.ndim))
        matched = guided * (positive.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True).clamp(min=1e-12))
        guided = guidance.rescale * matched + (1 - guidance.rescale) * guided
    return guided
