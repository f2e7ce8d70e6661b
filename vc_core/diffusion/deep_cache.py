"""Deep features of one UNet pass, reused in later ones.

DeepCache (Ma, Fang, Wang, "DeepCache: Accelerating Diffusion Models for Free", 2024, section 3): the deep layers' features hardly
change from one step to the next, so most steps run only the shallow blocks, on the deep features of an earlier step.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import InputError
from ..models.transformers import Pass
from ..models.unet import UNet


@dataclass
class DeepFeatures:
    """The deep features of a pass.

    Attributes:
        shallow: how many of the first input blocks, and of the last output blocks, run in every pass.
        features: the input of the first of these output blocks, ``[(b t), c, h, w]``; None makes the next pass a full one.
    """

    shallow: int
    features: Tensor | None = None

    def run(self, unet: UNet, hidden: Tensor, run: Pass) -> Tensor:
        """In place of :meth:`UNet.body`: a full pass that stores its deep features, or a shallow one that reuses them.

        Raises:
            InputError: no block would run in every pass, or all would.
        """
        blocks = len(unet.input_blocks)
        check_shallow(self.shallow, blocks)
        first = blocks - self.shallow  # of the output blocks that run in every pass
        if self.features is None:
            hidden, skips = unet.down(hidden, run)
            self.features = unet.up(unet.middle(hidden, run), skips, run, stop=first)
        else:
            hidden, skips = unet.down(hidden, run, self.shallow)
        # Hooks may write into the hidden state, so the stored features are copied.
        return unet.up(self.features.clone(), skips, run, start=first)


def check_shallow(shallow: int, blocks: int) -> None:
    """
    Raises:
        InputError: no block of a UNet with so many would run in every pass, or all would.
    """
    if not 0 < shallow < blocks:
        raise InputError(f"blocks is {shallow}; this model has {blocks}, so it can be 1 to {blocks - 1}.")


@dataclass
class DeepCache:
    """The deep features of one run, apart for each conditioning (or other key).

    Attributes:
        interval: a full pass runs every ``interval`` passes; 1: always.
        shallow: see :class:`DeepFeatures`.
    """

    interval: int
    shallow: int
    _features: dict[Hashable, DeepFeatures] = field(default_factory=dict)
    _passes: dict[Hashable, int] = field(default_factory=dict)

    def next_pass(self, key: Hashable) -> DeepFeatures:
        """The features for the next pass of ``key``; they are empty if that is to be a full pass."""
        number = self._passes.get(key, 0)
        self._passes[key] = number + 1
        features = self._features.setdefault(key, DeepFeatures(self.shallow))
        if number % self.interval == 0:
            features.features = None
        return features
