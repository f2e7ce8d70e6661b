"""The core's guidance for ComfyUI's samplers."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import node_helpers
import torch
from torch import Tensor

from ...vc_core.diffusion.guidance import Guidance, guide
from .frames import FRAMES_KEY, fold, unfold
from .keyframes import FEATURES_KEY
from .sampling import ScaledModelSampling


def prediction_offset(sampling: Any, sigma: Tensor, x: Tensor) -> Tensor:
    """Offset that turns ComfyUI's ``x - denoised`` into eps or v, up to a scale, which rescaling doesn't depend on.

    ``x - denoised`` is the predicted noise times sigma, so the offset is zero for eps. For v it is ``(1 - a) * x``, to be
    subtracted.
    """
    if not isinstance(sampling, ScaledModelSampling) or sampling.schedule.prediction == "eps":
        return torch.zeros_like(x)
    return x * (1 - sampling.alpha(sigma.flatten()[:1])).to(x)


def with_guidance_rescale(model: Any, rescale: float, frames: int) -> Any:
    """A clone of a MODEL with guidance rescale, computed over each video.

    Args:
        rescale: 0 to 1.
        frames: frames per video.
    """

    def guided(args: dict[str, Any]) -> Tensor:
        offset = prediction_offset(args["model"].model_sampling, args["sigma"], args["input"])
        positive, negative = fold(args["cond"] - offset, frames), fold(args["uncond"] - offset, frames)
        scale = args["cond_scale"]
        if isinstance(scale, Tensor) and scale.numel() > 1:  # one for each frame
            scale = fold(scale.reshape(-1, 1, 1, 1).to(offset), frames)
        return unfold(guide(positive, negative, Guidance(scale, rescale))) + offset

    clone = model.clone()
    clone.set_model_sampler_cfg_function(guided)
    return clone


class ImageGuider(comfy.samplers.CFGGuider):
    """Separate guidance by the text and by the image, with three passes per step (see :func:`vc_core.diffusion.guidance.guide`).

    The third pass has the negative's text and the positive's image.
    """

    #: Whether the guidance by the image has a scale of its own; equal scales are the usual guidance.
    guides_by_image = False

    def set_guidance(self, text: float, image: float, rescale: float) -> None:
        """
        Args:
            text, image: the guidance scales.
            rescale: 0 to 1, see :class:`vc_core.diffusion.guidance.Guidance`.
        """
        self.guidance = Guidance(text, rescale, image_scale=image)
        self.guides_by_image = text != image

    def set_conds(self, positive: Any, negative: Any) -> None:
        """Both as CONDITIONING.

        Raises:
            ValueError: the positive has no image.
        """
        features = [values[FEATURES_KEY] for _, values in positive if FEATURES_KEY in values]
        if not features:
            raise ValueError("The positive conditioning has no image: connect one by VideoCrafter Image to Video.")
        with_image = node_helpers.conditioning_set_values(negative, {FEATURES_KEY: features[0]})
        self.frames = next((values[FRAMES_KEY] for _, values in positive if FRAMES_KEY in values), None)
        self.inner_set_conds({"positive": positive, "image": with_image, "negative": negative})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: Any = None) -> Tensor:
        passes = [self.conds[name] for name in ("positive", "negative", "image")]
        predicted = comfy.samplers.calc_cond_batch(self.inner_model, passes, x, timestep, model_options)
        frames = self.frames or x.shape[0]
        offset = x - prediction_offset(self.inner_model.model_sampling, timestep, x)
        # Rescaling, unlike the rest of guidance, is not linear, so it must be computed on eps or v.
        positive, negative, image = (fold(offset - each, frames) for each in predicted)
        guided = guide(positive, negative, self.guidance, image=image)
        return offset - unfold(guided)


class CameraGuider(comfy.samplers.CFGGuider):
    """Guidance by the camera's path beside that by the text, with a third pass, without the path (see :class:`Guidance`)."""

    def set_guidance(self, text: float, camera: float, schedule: str, rescale: float) -> None:
        """
        Args:
            text, camera: the guidance scales; without guidance by the text (1) there is none by the camera.
            schedule: one of :data:`vc_core.diffusion.guidance.CAMERA_SCHEDULES`.
            rescale: 0 to 1.
        """
        self.guidance = Guidance(text, rescale, camera_scale=camera, camera_schedule=schedule)

    def set_conds(self, positive: Any, negative: Any) -> None:
        """Both as CONDITIONING."""
        self.frames = next((values[FRAMES_KEY] for _, values in positive if FRAMES_KEY in values), None)
        self.inner_set_conds({"positive": positive, "negative": negative, "uncontrolled": positive})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: Any = None) -> Tensor:
        names = ["positive"]
        if self.guidance.scale != 1:
            names += ["negative"] if self.guidance.camera_scale == 1 else ["negative", "uncontrolled"]
        passes = [self.conds[name] for name in names]
        predicted = comfy.samplers.calc_cond_batch(self.inner_model, passes, x, timestep, model_options)
        sampling, frames = self.inner_model.model_sampling, self.frames or x.shape[0]
        offset = x - prediction_offset(sampling, timestep, x)
        found = dict(zip(names, (fold(offset - each, frames) for each in predicted), strict=True))
        weight = self.guidance.camera_weight(sampling.timestep(timestep.flatten()[:1]))
        if isinstance(weight, Tensor):
            weight = weight.to(x.device)
        negative = found.get("negative", found["positive"])
        guided = guide(found["positive"], negative, self.guidance, uncontrolled=found.get("uncontrolled"), camera_weight=weight)
        return offset - unfold(guided)
class StyleGuider(comfy.samplers.CFGGuider):
    """Separate guidance by the text and by the style of images, with three passes per step (see :func:`guide`).

    The third pass is the positive's without the style that the model's hooks add.
    """

    def set_guidance(self, text: float, style: float) -> None:
        """The guidance scales; where the text's is 1, only the positive runs and the style's has no effect."""
        self.guidance = Guidance(text, style_scale=style)

    def set_conds(self, positive: Any, negative: Any) -> None:
        """Both as CONDITIONING."""
        self.inner_set_conds({"positive": positive, "unstyled": positive, "negative": negative})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: Any = None) -> Tensor:
        names = ("positive",) if self.guidance.scale == 1 else ("positive", "negative", "unstyled")
        predicted = comfy.samplers.calc_cond_batch(self.inner_model, [self.conds[name] for name in names], x, timestep, model_options)
        if len(predicted) == 1:
            return predicted[0]
        # Its formula is an affine sum whose weights add up to 1, so that it holds for what is denoised as it does for the noise.
        positive, negative, unstyled = predicted
        return guide(positive, negative, self.guidance, unstyled=unstyled)
