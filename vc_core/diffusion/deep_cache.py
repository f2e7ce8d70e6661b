"""Deep features of one pass through the UNet, reused in later ones.

DeepCache (Ma, Fang, Wang, "DeepCache: Accelerating Diffusion Models for Free", 2024, section 3): from one step to the next the
deep layers' features hardly change, so that most steps can do with the shallow blocks and what the deep ones last made.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class DeepFeatures:
    """What is kept of a pass.

    Attributes:
        shallow: how many of the first input blocks, and as many of the last output blocks, every pass runs.
        kept: what the first of these output blocks was given, ``[(b t), c, h, w]``; none: the next pass runs whole and keeps it.
    """

    shallow: int
    kept: Tensor | None = None

    def pass_on(self, hidden: Tensor) -> Tensor:
        """What the first of the last output blocks is given: what was kept, or else ``hidden``, which is kept from now on."""
        if self.kept is None:
            self.kept = hidden
        return self.kept.clone()  # hooks may write into what they are given


@dataclass
class DeepCache:
    """Deep features of everything that is evaluated step by step in one run.

    Attributes:
        interval: every how many passes one runs whole; with 1 all do.
        shallow: see :class:`DeepFeatures`.
    """

    interval: int
    shallow: int
    _features: dict[Hashable, DeepFeatures] = field(default_factory=dict)
    _passes: dict[Hashable, int] = field(default_factory=dict)

    def next_pass(self, key: Hashable) -> DeepFeatures:
        """The features for the next pass of what ``key`` stands for; they are empty where it is this pass's turn to run whole."""
        number = self._passes.get(key, 0)
        self._passes[key] = number + 1
        features = self._features.setdefault(key, DeepFeatures(self.shallow))
        if number % self.interval == 0:
            features.kept = None
        return features
