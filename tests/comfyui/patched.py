"""Graphs whose model goes through nodes that patch it, and patches by hand on the core's UNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness import goldens
from harness.graphs import TextGraph
from harness.server import Server
from tests.comfyui.recorded import LATENT_SCALE, Pass, passes
from vc_core.models.attention import SelfAttention
from vc_core.models.hooks import Hooks, Site, SpatialHooks
from vc_core.models.layers import Attention

VIDEOCRAFTER2 = "t2v_512_v2"


class PatchGraph(TextGraph):
    """A text graph whose model goes through nodes."""

    def __init__(self, checkpoint: str = VIDEOCRAFTER2, frames: int = 4, **settings: Any) -> None:
        super().__init__(f"{checkpoint}.safetensors", goldens.PROMPTS[0], frames=frames, **settings)

    def deep_cache(self, interval: int, blocks: int, start: float = 0.0) -> None:
        """Send the model through DeepCache, from a share ``start`` of the steps on."""
        self.patch("VideoCrafterDeepCache", interval=interval, blocks=blocks, start_percent=start, end_percent=1.0)


def recorded(comfyui: Server, graph: PatchGraph, file: str, latent: Callable[[], list[Any]] | None = None) -> tuple[list[Pass], Tensor]:
    """The passes of a run through core's sampler (or another), and its latent as the model sees it."""
    graph.patch("TestRecord", file=file)
    saved = graph.run(comfyui, latent=(latent or graph.core_sample)())
    return passes(comfyui, file), saved["latent"] * LATENT_SCALE


class FreeU(Hooks):
    """FreeU (arXiv:2309.11497, section 3.2), by the means of each position over the channels."""

    def __init__(self, width: int, backbone: float, skip: float) -> None:
        self.width, self.backbone, self.skip = width, backbone, skip

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        if hidden.shape[1] != self.width:
            return hidden, skip
        mean = hidden.mean(1, keepdim=True)
        low, high = mean.amin((1, 2, 3), keepdim=True), mean.amax((1, 2, 3), keepdim=True)
        first, second = hidden.chunk(2, dim=1)
        spectrum = torch.fft.fftshift(torch.fft.fft2(skip), dim=(-2, -1))
        middle = [slice(side // 2 - 1, side // 2 + 1) for side in skip.shape[2:]]
        spectrum[:, :, middle[0], middle[1]] *= self.skip
        lower = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real
        return torch.cat([first * (1 + (self.backbone - 1) * (mean - low) / (high - low)), second], dim=1), lower


class ValuesAsTheyAre(Hooks):
    """Self-attention in the middle that lets each position see itself only."""

    def spatial(self, site: Site) -> SpatialHooks | None:
        class Itself(SpatialHooks):
            def self_attention(self, layer: SelfAttention, x: Tensor, attention: Attention | None) -> Tensor:
                return layer(x, attention=lambda q, k, v, heads: v)

        return Itself() if site.part == "middle" else None
