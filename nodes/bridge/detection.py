"""Core's loaders of checkpoints and models, which would take a file of the family for Stable Diffusion 2 without its temporal layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import comfy.supported_models
import comfy.supported_models_base
from torch import Tensor

from ...vc_core.family.identify import SHORT_PREFIX, TEMPORAL
from ...vc_core.family.parts import PARTS

#: The prefixes under which files have a UNet.
PREFIXES = (PARTS["unet"].prefix, SHORT_PREFIX, "model.", "")


class RefusedModel(comfy.supported_models_base.BASE):
    """A model of the family for core's detection. It can't be loaded there: its windows, memory check and previews belong to a MODEL that
    Load VideoCrafter Model makes.
    """

    @classmethod
    def matches(
        cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Tensor] | None = None, unet_key_prefix: str = ""
    ) -> bool:
        """Whether a file's tensors are those of a model of the family; some releases don't pass the prefix."""
        return state_dict is not None and any(each + TEMPORAL in state_dict for each in (*PREFIXES, unet_key_prefix))

    def get_model(self, *args: Any, **kwargs: Any) -> NoReturn:
        """
        Raises:
            ValueError: always, with the node to take.
        """
        raise ValueError(
            "This file is a video model of the VideoCrafter family, which this node would load without its temporal layers. Use Load "
            "VideoCrafter Model, which gives MODEL, CLIP and VAE; the file stays where it is if that is a checkpoints folder."
        )


def register() -> None:
    """Let core's detection know of the family, before the models that it would take it for."""
    if RefusedModel not in comfy.supported_models.models:
        comfy.supported_models.models.insert(0, RefusedModel)
