"""Section *choices*: each choice turned, one at a time, on a step and on decoding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vc_core.choices import choose
from vc_core.kernels.casting import cast_when_used
from vc_core.pipeline import VideoModel

from ..measure import measure
from ..models import random_model, weight_bytes
from ..parts import Clip, guided
from ..report import GIB
from .fast import Subject
from .results import Figures, Results, keys

#: Changes of a step, by the name of the case.
STEP: dict[str, dict[str, Any]] = {
    "default": {},
    "channels first": {"channels_last": False},
    "channels last": {"channels_last": True},
    "norms leave channels first": {"norm_keeps_layout": False},
    "passes together": {"passes_together": True},
    "passes apart": {"passes_together": False},
    "positions as a batch": {"positions_as_heads": False},
    "3-D convolutions over time": {"temporal_conv_as_2d": False},
    "feed-forward in 1 chunk": {"feed_forward_chunks": 1},
    "feed-forward in 8 chunks": {"feed_forward_chunks": 8},
    "network compiled": {"compiled": "network"},
    "blocks compiled": {"compiled": "blocks"},
}
#: Those that only a GPU has.
STEP_ON_GPU: dict[str, dict[str, Any]] = {
    "CUDA graph": {"cuda_graph": True},
    "CUDA graph, network compiled": {"cuda_graph": True, "compiled": "network"},
    "network compiled, max-autotune": {"compiled": "network", "compile_mode": "max-autotune-no-cudagraphs"},
}
#: The step whose weights are stored in an 8-bit type and cast layer by layer.
FP8 = "weights in float8"
DECODE: dict[str, dict[str, Any]] = {
    "default": {},
    "channels last": {"autoencoder_channels_last": True},
    **{f"{count} at once": {"frames_at_once": count} for count in (1, 2, 4, 8, 16)},
    **{f"{count} at once, channels last": {"frames_at_once": count, "autoencoder_channels_last": True} for count in (4, 16)},
}


class Chosen:
    """Cases of one part of one model, each beside the result of the default."""

    def __init__(self, device: str, rounds: int) -> None:
        self.device, self.rounds = device, rounds
        self.default: Tensor | None = None

    def figures(self, run: Any, weights: int) -> Figures:
        """Seconds and memory, and how far the result is from the default's, relative to its largest magnitude."""
        start = time.perf_counter()
        with torch.inference_mode():
            out = run().float().cpu()
        first = time.perf_counter() - start  # with compiling
        cost = measure({"": run}, self.device, self.rounds)[""]
        if self.default is None:
            self.default = out
        deviation = ((out - self.default).abs().max() / self.default.abs().max()).item()
        return {
            "seconds": cost.seconds,
            "weights GiB": weights / GIB,
            "peak above them GiB": cost.peak / GIB,
            "first call": first,
            "deviation": deviation,
        }


def step_figures(chosen: Chosen, model: VideoModel, clip: Clip, dtype: torch.dtype, changes: dict[str, Any]) -> Figures:
    """One step with changed choices."""
    torch.manual_seed(0)
    unet, device = model.unet, chosen.device
    x, timesteps = torch.randn(clip.latent(model.config), device=device), torch.full((1,), 500, device=device)
    with choose(**changes):
        denoise = guided(model.config, unet, clip, device, dtype)
        return chosen.figures(lambda: denoise(x, timesteps), weight_bytes(unet))


def in_float8(unet: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A UNet whose matrices are stored in float8; changes and returns it."""
    for parameter in unet.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.to(torch.float8_e4m3fn)
    return cast_when_used(unet, dtype)


def decode_figures(chosen: Chosen, model: VideoModel, clip: Clip, changes: dict[str, Any]) -> Figures:
    """All frames decoded with changed choices."""
    torch.manual_seed(0)
    latents = torch.randn(clip.latent(model.config), device=chosen.device)
    with choose(**changes):
        return chosen.figures(lambda: model.decode(latents), weight_bytes(model.networks["autoencoder"]))


def run(results: Results, device: str, types: dict[str, torch.dtype], subjects: Sequence[Subject], rounds: int) -> None:
    """All subjects, in the last of the types: first what costs little time to try."""
    name, dtype = list(types.items())[-1]
    for subject in subjects:
        step_cases(results, device, subject, name, dtype, rounds)
        chosen, model = Chosen(device, rounds), random_model(subject.config, ["autoencoder"], device, dtype)
        for case, changes in DECODE.items():
            results.run(
                keys("choices", "decode", subject.model, subject.size, name, case),
                lambda changes=changes: decode_figures(chosen, model, subject.clip, changes),  # type: ignore[misc]  # noqa: B023
            )


def step_cases(results: Results, device: str, subject: Subject, name: str, dtype: torch.dtype, rounds: int) -> None:
    """The choices of a step. On a CPU, networks are traced but not compiled, which takes minutes there."""
    chosen, model = Chosen(device, rounds), random_model(subject.config, ["unet"], device, dtype)
    on_gpu = device == "cuda"
    for case, changes in {**STEP, **(STEP_ON_GPU if on_gpu else {})}.items():
        if "3-D" in case and not subject.config.unet.temporal_conv:
            continue
        backend = {} if on_gpu else {"compile_backend": "eager"}
        results.run(
            keys("choices", "step", subject.model, subject.size, name, case),
            lambda changes=changes: step_figures(chosen, model, subject.clip, dtype, {**changes, **backend}),  # type: ignore[misc]  # noqa: B023
        )
    results.run(
        keys("choices", "step", subject.model, subject.size, name, FP8),
        lambda: (in_float8(model.unet, dtype), step_figures(chosen, model, subject.clip, dtype, {}))[1],
    )
