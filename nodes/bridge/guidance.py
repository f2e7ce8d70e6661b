"""Guidance of the core's on ComfyUI's samplers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...vc_core.diffusion.guidance import guide
from .frames import fold, unfold


def with_guidance_rescale(model: Any, rescale: float, frames: int) -> Any:
    """A clone of a MODEL whose guided prediction is brought back towards the positive's deviation over each video.

    Args:
        rescale: 0 to 1.
        frames: frames a video.
    """

    def guided(args: dict[str, Any]) -> Tensor:
        # ComfyUI gives x minus what each predicts to be clean: the predicted noise times sigma, which rescaling doesn't see.
        positive, negative = fold(args["cond"], frames), fold(args["uncond"], frames)
        return unfold(guide(positive, negative, args["cond_scale"], rescale))

    clone = model.clone()
    clone.set_model_sampler_cfg_function(guided)
    return clone
