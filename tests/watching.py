"""Hooks that write down the sites where the UNet calls them."""

from __future__ import annotations

from torch import Tensor

from vc_core.models.hooks import Hooks, Site, SpatialHooks

#: Of the latents that the tests of hooks run on.
VIDEOS, FRAMES = 2, 3


class Watching(Hooks):
    """Writes down each call; changes nothing."""

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self.places: list[tuple[str, int, tuple[int, ...]]] = []

    def spatial(self, site: Site) -> SpatialHooks:
        self.sites.append(site)
        return SpatialHooks()

    def after_input_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        assert skip is hidden
        self.places.append(("input", number, tuple(hidden.shape)))
        return super().after_input_block(number, hidden, skip)

    def after_middle_block(self, hidden: Tensor) -> Tensor:
        self.places.append(("middle", 0, tuple(hidden.shape)))
        return super().after_middle_block(hidden)

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        assert hidden.shape[2:] == skip.shape[2:]
        self.places.append(("output", number, tuple(skip.shape)))
        return super().before_output_block(number, hidden, skip)
