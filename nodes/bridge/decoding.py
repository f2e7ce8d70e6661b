"""VAE in ComfyUI, decoding in smaller pieces where memory runs out, and again in float32 where half precision overflows."""

from __future__ import annotations

from copy import copy
from typing import Any

from torch import Tensor

from ...vc_core.decoding import in_float32_where_broken, in_pieces


def careful(vae: Any) -> Any:
    """A VAE with the same weights whose pieces shrink to a single frame before ComfyUI decodes in tiles; ``vae`` itself is not changed."""
    own = copy(vae)
    own.first_stage_model = _Careful(vae.first_stage_model)
    return own


class _Careful:
    """A VAE's network with another ``decode``."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def decode(self, z: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Latents ``[n, c, h, w]`` -> frames ``[n, 3, H, W]``.

        Raises:
            RuntimeError: there isn't enough memory for a single frame, on which ComfyUI decodes in tiles.
        """

        def run(network: Any, z: Tensor) -> Tensor:
            return network.decode(z, *args, **kwargs)

        if z.ndim != 4 or "output_buffer" in kwargs:  # another kind of VAE, which has its own ways
            return run(self._network, z)

        def decode(piece: Tensor) -> Tensor:
            return in_float32_where_broken(self._network, run, piece, run(self._network, piece))

        return in_pieces(decode, z, at_once=len(z))
