"""The blocks of a UNet's temporal transformers, at which adapters have layers of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..config import UNetConfig
from ..models.hooks import Site


@dataclass(frozen=True)
class Place:
    """One block of a temporal transformer.

    Attributes:
        part, block, depth: as in :class:`vc_core.models.hooks.Site`.
        width: of its tokens.
        level: of the UNet, from 0 at the latent's size; each further one has half of it.
    """

    part: str
    block: int
    depth: int
    width: int
    level: int

    @property
    def key(self) -> str:
        """A name for a module's dictionary."""
        return f"{self.part}_{self.block}_{self.depth}"

    @property
    def path(self) -> str:
        """The path of the block in the UNet."""
        module = {"init": "init_attn.0", "middle": "middle_block.2"}.get(self.part, f"{self.part}_blocks.{self.block}.2")
        return f"{module}.transformer_blocks.{self.depth}"


def key_of(site: Site) -> str:
    """The key of a site's :class:`Place`."""
    return f"{site.part}_{site.block}_{site.depth}"


def temporal_places(config: UNetConfig) -> list[Place]:
    """All blocks of the temporal transformers of a UNet, in the order in which they run."""
    depths = range(config.transformer_depth)
    return [Place(part, block, depth, width, level) for part, block, width, level in _transformers(config) for depth in depths]


def _transformers(config: UNetConfig) -> Iterator[tuple[str, int, int, int]]:
    """Part, block, width and level of each temporal transformer."""
    last = len(config.channel_mult) - 1
    if config.init_attention:
        yield "init", 0, config.init_attention_width, 0
    for level, multiplier in enumerate(config.channel_mult):
        if 2**level in config.attention_resolutions:
            first = 1 + level * (config.num_res_blocks + 1)  # each level but the last ends with a block that halves the size
            yield from (("input", first + number, multiplier * config.model_channels, level) for number in range(config.num_res_blocks))
    yield "middle", 0, config.channel_mult[last] * config.model_channels, last
    for level in range(last, -1, -1):
        if 2**level in config.attention_resolutions:
            first, width = (last - level) * (config.num_res_blocks + 1), config.channel_mult[level] * config.model_channels
            yield from (("output", first + number, width, level) for number in range(config.num_res_blocks + 1))
