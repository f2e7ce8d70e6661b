"""Frames through an autoencoder: in smaller pieces where memory runs out, and again in float32 where half precision overflows."""

from __future__ import annotations

import gc
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn

from .choices import current
from .memory import frames_at_once, is_out_of_memory
from .models.autoencoder import Autoencoder

#: Side of a tile and the overlap of two, in positions of the latent.
TILE, OVERLAP = 32, 8
Run = Callable[[Tensor], Tensor]
Network = TypeVar("Network", bound=nn.Module)


def decode_frames(autoencoder: Autoencoder, z: Tensor, at_once: int) -> Tensor:
    """Latents ``[N, C, h, w]`` in the autoencoder's scale -> images ``[N, 3, H, W]``, not clamped, with all that this module has.

    Args:
        at_once: frames of a piece.
    """

    def run(piece: Tensor) -> Tensor:
        return in_float32_where_broken(autoencoder, lambda network, z: network.decode(z), piece, autoencoder.decode(piece))

    return in_pieces(run, z, at_once, partial(in_tiles, run))


def each_frame(run: Callable[[Tensor, int], Tensor], video: Tensor, autoencoder: Autoencoder, pixels: int) -> Tensor:
    """Run an autoencoder's network over all frames of ``[B, C, T, h, w]``, in the type and on the device of the video.

    Args:
        run: on ``[N, C, h, w]``; its second argument is how many frames at once.
        pixels: of a decoded frame.
    """
    flat = rearrange(video, "b c t h w -> (b t) c h w")
    if current().autoencoder_channels_last:
        flat = flat.contiguous(memory_format=torch.channels_last)
    out = run(flat, frames_at_once(autoencoder.config, pixels, video.dtype, video.device))
    return rearrange(out, "(b t) c h w -> b c t h w", t=video.shape[2])


def in_pieces(run: Run, x: Tensor, at_once: int, last_resort: Run | None = None) -> Tensor:
    """Run a network over rows, ``[N, ...]``, a few at once, and join the results.

    Where memory runs out, pieces are halved, down to a single row.

    Args:
        at_once: rows of the first piece.
        last_resort: runs a single row for which there is not enough memory.

    Raises:
        RuntimeError, MemoryError: what ``run`` raises for a single row, or ``last_resort``.
    """
    done: list[Tensor] = []
    start = 0
    while start < len(x):
        piece = x[start : start + at_once]
        result = _tried(run, piece, may_fail=at_once > 1 or last_resort is not None)
        if result is not None:
            done.append(result)
            start += len(piece)
        elif at_once > 1:
            at_once = max(1, min(at_once, len(piece)) // 2)
        else:
            assert last_resort is not None
            run, last_resort = last_resort, None
    return torch.cat(done)


def _tried(run: Run, piece: Tensor, may_fail: bool) -> Tensor | None:
    """The result, or None if there is too little memory. The error is gone then, which holds the failed run's tensors."""
    try:
        return run(piece)
    except Exception as error:
        if not (may_fail and is_out_of_memory(error)):
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def in_tiles(decode: Run, z: Tensor, tile: int = TILE, overlap: int = OVERLAP) -> Tensor:
    """Decode latents ``[N, C, h, w]`` in tiles that overlap, blended linearly; close to decoding them whole, whose norms see all tiles.

    Args:
        tile, overlap: in positions of the latent.
    """
    height, width = z.shape[-2:]
    total = weights = torch.empty(0)
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            part = decode(z[..., top : top + tile, left : left + tile]).float()
            scale = part.shape[-1] // min(tile, width)
            if not total.numel():
                total = part.new_zeros(*part.shape[:2], height * scale, width * scale)
                weights = torch.zeros_like(total[:1, :1])
            ramp = _ramp(part.shape[-2], overlap * scale, part)[:, None] * _ramp(part.shape[-1], overlap * scale, part)
            rows, columns = slice(top * scale, top * scale + part.shape[-2]), slice(left * scale, left * scale + part.shape[-1])
            total[..., rows, columns] += part * ramp
            weights[..., rows, columns] += ramp
    return (total / weights).to(z.dtype)


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    if side <= tile:
        return [0]
    return [*range(0, side - tile, tile - overlap), side - tile]


def _ramp(side: int, overlap: int, like: Tensor) -> Tensor:
    """Rises over the overlap from both ends, and is never 0."""
    position = torch.arange(side, device=like.device) + 1
    return torch.minimum(position, position.flip(0)).clamp(max=overlap + 1).float() / (overlap + 1)


def in_float32_where_broken(network: Network, decode: Callable[[Network, Tensor], Tensor], z: Tensor, frames: Tensor) -> Tensor:
    """Decode frames that hold NaN or infinity again, by a copy of the network in float32: half precision's range was too small.

    Args:
        decode: of a network and latents.
        z: the latents of the frames.
        frames: ``[N, C, H, W]``.

    Returns:
        The frames, those that were broken decoded again.
    """
    if z.dtype == torch.float32:
        return frames
    broken = (~frames.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if not broken:
        return frames
    wide, frames = deepcopy(network).to(z.device, torch.float32), frames.clone()
    for index in broken:
        run = partial(decode, wide)
        frames[index : index + 1] = in_pieces(run, z[index : index + 1].float(), 1, partial(in_tiles, run)).to(frames)
    return frames
