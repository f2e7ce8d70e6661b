"""The scales that a distilled model reads, as conditions of ComfyUI."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import comfy.conds
import torch

from ...vc_core.config import ModelConfig
from ...vc_core.sampling import motion_stop

#: Conditioning keys: the scale of guidance, which core's FluxGuidance sets too; the scale of motion guidance, below 0 for none; and the
#: share of the run, from its start on, in which that is not 0.
GUIDANCE_KEY, MOTION_KEY, MOTION_SHARE_KEY = "guidance", "motion_guidance", "motion_share"
#: The names of the UNet's inputs that these become, see :class:`vc_core.models.conditioning.Conditioning`.
INPUTS = ("guidance", "motion", "motion_stop")


def scales_of_videos(inputs: Mapping[str, Any], rows: int = 1) -> dict[str, Any]:
    """The scales among the UNet's inputs, of each video's first row of ``rows``; None for those that are not there."""
    return {name: None if inputs.get(name) is None else inputs[name][::rows] for name in INPUTS}


def scale_conds(config: ModelConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """The model's inputs, by the values of a conditioning or else the model's own; none for models that read no scales.

    Raises:
        ValueError: a value that is not a finite number.
    """
    unet, own = config.unet, config.sampling
    found: dict[str, float] = {}
    if unet.guidance_embedding:
        found["guidance"] = _number(values, GUIDANCE_KEY, own.distilled_guidance)
    motion = _number(values, MOTION_KEY, own.motion_guidance) if unet.motion_embedding else -1.0
    if motion >= 0:
        found |= {"motion": motion, "motion_stop": motion_stop(_number(values, MOTION_SHARE_KEY, own.motion_share))}
    return {name: comfy.conds.CONDRegular(torch.tensor([value], dtype=torch.float32)) for name, value in found.items()}


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(
            f"The conditioning's {key} is {value!r:.80}; a finite number is needed. Use VideoCrafter Conditioning, which sets it."
        )
    return float(value)
