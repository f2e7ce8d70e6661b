"""Places in the UNet where somebody else may look in and change what passes.

A UNet that is given a :class:`Hooks` asks it at each of its places; one that isn't asks nothing. The classes here change
nothing: derive from them and override the places that matter. A row is a frame, ``(b t)`` of them, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from .attention import CrossAttention, ImageTokens, SelfAttention


@dataclass(frozen=True)
class Site:
    """A spatial transformer's block.

    Attributes:
        part: ``input``, ``middle`` or ``output``.
        block: the number of the UNet's block in that part, from 0.
        transformer: the number of the spatial transformer in the whole UNet, in the order in which they run.
        depth: the number of the block in its transformer.
        shape: what the transformer was given, ``((b t), c, h, w)``.
    """

    part: str
    block: int
    transformer: int
    depth: int
    shape: tuple[int, ...]


class AttentionHooks:
    """The places within one block of a spatial transformer."""

    def self_attention(self, layer: SelfAttention, x: Tensor) -> Tensor:
        """In the place of the self-attention: ``[(b t), l, width]``, normed -> the same shape."""
        return layer(x)

    def between(self, x: Tensor) -> Tensor:
        """After the self-attention was added, before the cross-attention's norm: ``[(b t), l, width]`` -> the same shape."""
        return x

    def cross_attention(self, layer: CrossAttention, x: Tensor, text: Tensor, image: ImageTokens | None) -> Tensor:
        """In the place of the cross-attention: ``[(b t), l, width]``, normed, text ``[b, n, context]`` -> ``[(b t), l, width]``."""
        return layer(x, text, image)


class Hooks:
    """The places in one pass through the UNet, in the order of the methods."""

    def attention(self, site: Site) -> AttentionHooks | None:
        """What looks in at a block of a spatial transformer; none leaves it as it is."""
        return None

    def after_input_block(self, number: int, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """``[(b t), c, h, w]`` -> what the next block gets, and what is kept for the output block on the other side.

        The first block ends after the temporal transformer that follows it.
        """
        return hidden, hidden

    def after_middle_block(self, hidden: Tensor) -> Tensor:
        """``[(b t), c, h, w]`` -> the same shape."""
        return hidden

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """What comes from below ``[(b t), c, h, w]`` and what was kept ``[(b t), c', h, w]``, before they become one."""
        return hidden, skip
