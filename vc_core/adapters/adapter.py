"""The base class of adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from ..models.hooks import Hooks, PassInputs


class Adapter(nn.Module, ABC):
    """A network with weights of its own, a configuration and hooks.

    Data for one pass (features of a control image, say) is computed in :meth:`hooks` and stored in the hooks object; the module
    itself stores nothing between passes.

    Attributes:
        acts_alone: it acts on every pass of a model that it is loaded with. Others act by a factory of hooks that is made of an input,
            such as a camera path.
    """

    acts_alone = True

    @abstractmethod
    def hooks(self, inputs: PassInputs) -> Hooks | None:
        """The hooks of one UNet pass; None for a pass that the adapter doesn't change."""
