"""Hooks: methods that the UNet calls during a pass, by which adapters, patches and training-free methods change activations.

The hooks of the classes here change nothing: derive from them and override the ones you need. A :data:`HookFactory` makes the
hooks of each pass; they are never shared between passes, which may run in threads on several GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from torch import Tensor

from ..errors import InputError
from .attention import CrossAttention, SelfAttention, TemporalAttention
from .conditioning import Conditioning, ContextStream
from .layers import Attention


@dataclass(frozen=True)
class Site:
    """One block of a spatial or a temporal transformer.

    Attributes:
        part: ``input``, ``middle`` or ``output``; ``init`` for the temporal transformer after the first convolution.
        block: the number of the UNet's block in that part, from 0.
        depth: the number of the block in its transformer, from 0.
        transformer: the number of the spatial transformer in the UNet, from 0 in the order in which they run; -1 for temporal
            transformers.
        batch, frames, channels, height, width: of the transformer's input, ``[(batch frames), channels, height, width]``.
    """

    part: str
    block: int
    depth: int
    transformer: int
    batch: int
    frames: int
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the transformer's input."""
        return self.batch * self.frames, self.channels, self.height, self.width


class SpatialHooks:
    """The hooks of one block of a spatial transformer. A row is a frame, ``[(b t), l, width]``.

    ``attention`` is the attention function of the pass, if it has one; pass it to the layer.
    """

    def self_attention(self, layer: SelfAttention, x: Tensor, attention: Attention | None) -> Tensor:
        """Replaces the self-attention: normed input -> the same shape."""
        return layer(x, attention=attention)

    def between(self, x: Tensor) -> Tensor:
        """After the self-attention was added, before the cross-attention's norm."""
        return x

    def context_streams(self, streams: list[ContextStream]) -> list[ContextStream]:
        """The context streams that the cross-attention reads: text first, then image tokens. Return others, or more."""
        return streams

    def cross_attention(
        self, layer: CrossAttention, x: Tensor, streams: list[ContextStream], attention: Attention | None
    ) -> Tensor:
        """Replaces the cross-attention: normed input and context streams -> the shape of the input."""
        return layer(x, streams, attention)


class TemporalHooks:
    """The hooks of one block of a temporal transformer. Tokens are ``[b, t, l, width]``, l being the positions of a frame."""

    def block_input(self, x: Tensor) -> Tensor:
        """The input of the block."""
        return x

    def block(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Replaces the block. ``run`` runs the block itself; it can be called several times, or not at all."""
        return run(x)

    def attention(self, layer: TemporalAttention, x: Tensor, name: str, attention: Attention | None) -> Tensor:
        """Replaces one of the two attentions, ``attn1`` or ``attn2`` by name: normed input -> the same shape.

        ``layer.project``, ``layer.attend`` (with edits of logits and probabilities) and ``layer.to_out`` are its parts.
        """
        return layer(x, attention)

    def between(self, x: Tensor) -> Tensor:
        """After the first attention was added, before the second one's norm."""
        return x


class Hooks:
    """The hooks of one UNet pass. A row is a frame, ``[(b t), ...]``, unless another shape is stated.

    Return new tensors; do not write into those that are passed in, which other places hold too. In a pass with reused deep features
    (DeepCache) only the blocks that run call their hooks.
    """

    def spatial(self, site: Site) -> SpatialHooks | None:
        """The hooks of one block of a spatial transformer; None leaves it as it is."""
        return None

    def temporal(self, site: Site) -> TemporalHooks | None:
        """The hooks of one block of a temporal transformer; None leaves it as it is."""
        return None

    def over_time(self, part: str, block: int, frames: int, added: Tensor) -> Tensor:
        """What a layer over time adds to its input, ``[(b t), c, h, w]`` -> the same shape.

        These are the temporal transformers, and the convolutions over time of residual blocks.

        Args:
            part, block: as in :class:`Site`.
            frames: t.
        """
        return added

    def after_input_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the next block and the skip for the output block on the other side, each ``[(b t), c, h, w]``.

        Both are the result of the block unless other hooks changed one of them. The first block includes the temporal
        transformer that follows it.
        """
        return hidden, skip

    def after_middle_block(self, hidden: Tensor) -> Tensor:
        """``[(b t), c, h, w]`` -> the same shape."""
        return hidden

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden state ``[(b t), c, h, w]`` and the skip ``[(b t), c', h, w]``, before they are concatenated."""
        return hidden, skip


@dataclass(frozen=True)
class PassInputs:
    """The inputs of one UNet pass, from which its hooks are made.

    Attributes:
        roles: of each of the B videos, ``positive``, ``negative``, ``image`` (the negative text with the positive's image),
            ``uncontrolled`` (the positive, without what controls the camera), or ``unstyled`` (the positive, without the style of
            images that an adapter adds).
        x: the noisy latent ``[B, C, T, h, w]``.
        timesteps: ``[B]``, or ``[B, T]`` where each frame has its own.
        step, steps: the number of this sampling step, from 0, and of all steps.
        temporal_attention: False for the pass without temporal transformers, of temporal guidance.
        window: the numbers of the frames in their video, where the pass has a window of them; None: all, from the first on.
        guided: the step's prediction is made of several passes, with different conditionings.
    """

    roles: tuple[str, ...]
    x: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    step: int = 0
    steps: int = 1
    temporal_attention: bool = True
    window: tuple[int, ...] | None = None
    guided: bool = True


#: Makes the hooks of one pass; None for a pass without.
HookFactory = Callable[[PassInputs], Hooks | None]


def make_hooks(factories: Sequence[HookFactory], inputs: PassInputs) -> Hooks | None:
    """The hooks of all factories for one pass, called in the order of the factories."""
    return combine([hooks for factory in factories if (hooks := factory(inputs)) is not None])


def combine(hooks: Sequence[Hooks]) -> Hooks | None:
    """Several hooks as one; None if there are none."""
    flat = [inner for each in hooks for inner in (each.hooks if isinstance(each, CombinedHooks) else [each])]
    return CombinedHooks(flat) if len(flat) > 1 else flat[0] if flat else None


class CombinedHooks(Hooks):
    """Several hooks in one pass, each applied to the result of the one before.

    Only one of them can replace an attention layer; a second one is refused.
    """

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self.hooks = hooks

    def spatial(self, site: Site) -> SpatialHooks | None:
        found = [each for hooks in self.hooks if (each := hooks.spatial(site)) is not None]
        return _CombinedSpatial(found) if len(found) > 1 else found[0] if found else None

    def temporal(self, site: Site) -> TemporalHooks | None:
        found = [each for hooks in self.hooks if (each := hooks.temporal(site)) is not None]
        return _CombinedTemporal(found) if len(found) > 1 else found[0] if found else None

    def over_time(self, part: str, block: int, frames: int, added: Tensor) -> Tensor:
        for hooks in self.hooks:
            added = hooks.over_time(part, block, frames, added)
        return added

    def after_input_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        for hooks in self.hooks:
            hidden, skip = hooks.after_input_block(number, hidden, skip)
        return hidden, skip

    def after_middle_block(self, hidden: Tensor) -> Tensor:
        for hooks in self.hooks:
            hidden = hooks.after_middle_block(hidden)
        return hidden

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        for hooks in self.hooks:
            hidden, skip = hooks.before_output_block(number, hidden, skip)
        return hidden, skip


T = TypeVar("T", SpatialHooks, TemporalHooks)


def _replacing(hooks: Sequence[T], base: type[T], method: str) -> T:
    """The hooks that replace a layer by overriding a method.

    Raises:
        InputError: several of them do.
    """
    found = [each for each in hooks if getattr(type(each), method) is not getattr(base, method)]
    if len(found) > 1:
        names = " and ".join(type(each).__name__ for each in found)
        raise InputError(f"{names} both replace the {method.replace('_', ' ')} of the same block: apply one of them.")
    return found[0] if found else hooks[0]


class _CombinedSpatial(SpatialHooks):
    def __init__(self, hooks: Sequence[SpatialHooks]) -> None:
        self.hooks = hooks

    def self_attention(self, layer: SelfAttention, x: Tensor, attention: Attention | None) -> Tensor:
        return _replacing(self.hooks, SpatialHooks, "self_attention").self_attention(layer, x, attention)

    def between(self, x: Tensor) -> Tensor:
        for hooks in self.hooks:
            x = hooks.between(x)
        return x

    def context_streams(self, streams: list[ContextStream]) -> list[ContextStream]:
        for hooks in self.hooks:
            streams = hooks.context_streams(streams)
        return streams

    def cross_attention(
        self, layer: CrossAttention, x: Tensor, streams: list[ContextStream], attention: Attention | None
    ) -> Tensor:
        return _replacing(self.hooks, SpatialHooks, "cross_attention").cross_attention(layer, x, streams, attention)


class _CombinedTemporal(TemporalHooks):
    def __init__(self, hooks: Sequence[TemporalHooks]) -> None:
        self.hooks = hooks

    def block_input(self, x: Tensor) -> Tensor:
        for hooks in self.hooks:
            x = hooks.block_input(x)
        return x

    def block(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        for hooks in self.hooks:
            run = partial(hooks.block, run)
        return run(x)

    def attention(self, layer: TemporalAttention, x: Tensor, name: str, attention: Attention | None) -> Tensor:
        return _replacing(self.hooks, TemporalHooks, "attention").attention(layer, x, name, attention)

    def between(self, x: Tensor) -> Tensor:
        for hooks in self.hooks:
            x = hooks.between(x)
        return x
