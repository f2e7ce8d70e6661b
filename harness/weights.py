"""Weights of the recorded models, drawn from their names, so that no file has to store them.

Each number is a hash of the seed, the tensor's name in the checkpoint and the number's index (splitmix64, Steele et al.,
OOPSLA 2014), so every language and every release of a library draws the same. All are exact in float16.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MASK = (1 << 64) - 1


def uniform(name: str, shape: Sequence[int], seed: int) -> npt.NDArray[np.float32]:
    """Numbers in [-1, 1) with 24 bits each, ``shape``."""
    start = ((zlib.crc32(name.encode()) << 32) + seed) & MASK
    with np.errstate(over="ignore"):  # splitmix64 computes modulo 2**64
        x = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(40)).astype(np.float64) / 2**23 - 1).astype(np.float32).reshape(tuple(shape))


def weight(name: str, shape: Sequence[int], seed: int) -> npt.NDArray[np.float16]:
    """A parameter scaled so that signals keep their size.

    Args:
        name: its name in the checkpoint.
        shape: its shape, ``()`` for a single number.
        seed: of the recording.
    """
    numbers = uniform(name, shape, seed)
    if len(shape) == 0:
        drawn = 0.5 * numbers
    elif len(shape) == 1:
        drawn = 0.17 * numbers + (1 if name.endswith("weight") else 0)
    elif any(part in name for part in ("embedding", "latents", "embeddings_table", "_emb")):
        drawn = 0.5 * numbers
    else:
        drawn = 1.2 / math.sqrt(math.prod(shape[1:])) * numbers
    return np.asarray(drawn, dtype=np.float16)
