"""The base class of adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from ..models.hooks import Hooks, PassInputs


class Adapter(nn.Module, ABC):
    """A network with weights of its own, a configuration and hooks.

    Data for one pass (features of a control image, say) is computed in :meth:`hooks` and stored in the hooks object; the module
    itself stores nothing between passes.
    """

    @abstractmethod
    def hooks(self, inputs: PassInputs) -> Hooks | None:
        """The hooks of one UNet pass; None for a pass that the adapter doesn't change."""
