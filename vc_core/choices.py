"""Choices of how a pass is computed. None of them changes a result other than by rounding: they change its time and its memory.

The defaults are the fastest known. Measurements turn them with :func:`choose`; nothing else should, since they hold for the whole
process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Choices:
    """One value for each choice; see ``docs/performance.md`` for what is known of each."""

    #: Memory layout of the images between the UNet's blocks: channels last, or channels first. None: channels last on a GPU, where
    #: convolutions are faster with it; on a CPU torch's norms are ten times slower with it.
    channels_last: bool | None = None
    #: Whether the output of a group norm is copied back into channels last; torch's norm on a GPU always returns channels first.
    norm_keeps_layout: bool = True
    #: Whether the passes of guidance run in one batch. None: if a GPU's free memory is large enough.
    passes_together: bool | None = None
    #: Attention over time: positions folded into the heads, which copies nothing; or as a batch of sequences.
    positions_as_heads: bool = True
    #: Convolutions over time as 2-D convolutions over frames and positions; or as 3-D ones with a kernel of (3, 1, 1).
    temporal_conv_as_2d: bool = True
    #: Whether the autoencoder's images have their channels last too; only the UNet's have by default.
    autoencoder_channels_last: bool = False
    #: Chunks of a feed-forward at full resolution; in one chunk its activations would be the peak of the network.
    feed_forward_chunks: int = 4
    #: Frames that go through the autoencoder at once. None: by free memory.
    frames_at_once: int | None = None
    #: What ``torch.compile`` is applied to: ``none``, ``blocks`` (each layer on its own) or ``network``.
    compiled: str = "none"
    #: The mode of ``torch.compile``, such as ``max-autotune-no-cudagraphs``; None is its default.
    compile_mode: str | None = None
    #: The backend of ``torch.compile``.
    compile_backend: str = "inductor"
    #: Whether a UNet pass is recorded as a CUDA graph and replayed, on a GPU.
    cuda_graph: bool = False

    def layout(self, device: torch.device) -> torch.memory_format:
        """The memory layout on a device."""
        last = device.type == "cuda" if self.channels_last is None else self.channels_last
        return torch.channels_last if last else torch.contiguous_format


_current = Choices()


def current() -> Choices:
    """The choices that are in force."""
    return _current


@contextmanager
def choose(**changes: object) -> Iterator[Choices]:
    """Change some choices for the length of a ``with`` block, in the whole process.

    Args:
        changes: values by the names of :class:`Choices`.
    """
    global _current
    before = _current
    _current = replace(before, **changes)  # type: ignore[arg-type]
    try:
        yield _current
    finally:
        _current = before
