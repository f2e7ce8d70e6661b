"""Guidance of the core's on ComfyUI's samplers."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import node_helpers
import torch
from torch import Tensor

from ...vc_core.diffusion.guidance import Guidance, guide
from .frames import FRAMES_KEY, fold, unfold
from .model import FEATURES_KEY
from .sampling import ScaledModelSampling


def of_prediction(sampling: Any, sigma: Tensor, x: Tensor) -> Tensor:
    """What makes the network's own terms of ComfyUI's, up to a factor that rescaling doesn't see.

    ComfyUI has ``x`` minus what is predicted to be clean: the predicted noise times sigma. The predicted v, times a number, is
    that minus ``(1 - a) * x``, which is returned; for the noise it is zero.
    """
    if not isinstance(sampling, ScaledModelSampling) or sampling.schedule.prediction == "eps":
        return torch.zeros_like(x)
    return x * (1 - sampling.alpha(sigma.flatten()[:1])).to(x)


def with_guidance_rescale(model: Any, rescale: float, frames: int) -> Any:
    """A clone of a MODEL whose guided prediction is brought back towards the positive's deviation over each video.

    Args:
        rescale: 0 to 1.
        frames: frames a video.
    """

    def guided(args: dict[str, Any]) -> Tensor:
        offset = of_prediction(args["model"].model_sampling, args["sigma"], args["input"])
        positive, negative = fold(args["cond"] - offset, frames), fold(args["uncond"] - offset, frames)
        return unfold(guide(positive, negative, Guidance(args["cond_scale"], rescale))) + offset

    clone = model.clone()
    clone.set_model_sampler_cfg_function(guided)
    return clone


class PictureGuider(comfy.samplers.CFGGuider):
    """Guidance by the picture apart from that by the text, with three passes a step (see :func:`vc_core.diffusion.guidance.guide`).

    The third has the negative's text and the positive's picture.
    """

    def set_guidance(self, text: float, image: float, rescale: float) -> None:
        """Args: the guidance by the text, by the picture, and 0 to 1 for how far contrast is taken back."""
        self.guidance = Guidance(text, rescale, image_scale=image)

    def set_conds(self, positive: Any, negative: Any) -> None:
        """Both as CONDITIONING.

        Raises:
            ValueError: the positive has no picture.
        """
        features = [values[FEATURES_KEY] for _, values in positive if FEATURES_KEY in values]
        if not features:
            raise ValueError("The positive conditioning has no picture: connect one by VideoCrafter Image to Video.")
        pictured = node_helpers.conditioning_set_values(negative, {FEATURES_KEY: features[0]})
        self.frames = next((values[FRAMES_KEY] for _, values in positive if FRAMES_KEY in values), None)
        self.inner_set_conds({"positive": positive, "pictured": pictured, "negative": negative})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: Any = None) -> Tensor:
        passes = [self.conds[name] for name in ("positive", "negative", "pictured")]
        predicted = comfy.samplers.calc_cond_batch(self.inner_model, passes, x, timestep, model_options)
        frames = self.frames or x.shape[0]
        offset = x - of_prediction(self.inner_model.model_sampling, timestep, x)
        # Guidance is linear but for the rescaling, which is to see the network's own terms.
        positive, negative, pictured = (fold(offset - each, frames) for each in predicted)
        guided = guide(positive, negative, self.guidance, image=pictured)
        return offset - unfold(guided)
