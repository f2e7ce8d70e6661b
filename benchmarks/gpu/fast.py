"""Section *fast*: the parts of a clip at published sizes, beside the plain formulation and the arithmetic's floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from vc_core.config import ModelConfig, load_config

from ..floor import matrix_rate
from ..measure import measure
from ..models import random_model, weight_bytes
from ..parts import NETWORKS, OURS, PLAIN, Clip, arithmetic, ways
from ..report import GIB
from .results import Figures, Results, keys

#: Steps of the clip whose time is estimated.
STEPS = 50


@dataclass(frozen=True)
class Subject:
    """A model at one size."""

    model: str
    clip: Clip

    @property
    def config(self) -> ModelConfig:
        return load_config(self.model)

    @property
    def size(self) -> str:
        return f"{self.clip.height}x{self.clip.width}x{self.clip.frames}"

    @property
    def parts(self) -> list[str]:
        return ["step", "decode", "text", *(["image", "encode"] if self.config.projector else [])]


SUBJECTS = (Subject("t2v_512_v2", Clip(16, 320, 512, STEPS)), Subject("dynamicrafter_1024_v1", Clip(16, 576, 1024, STEPS)))
TINY_SUBJECTS = (Subject("tiny_t2v", Clip(4, 64, 64, STEPS)), Subject("tiny_dynamicrafter", Clip(4, 64, 64, STEPS)))


@cache
def operations(subject: Subject, part: str) -> int:
    """Operations of a part, counted on ``meta``."""
    return arithmetic(part, subject.config, subject.clip)


def time_part(subject: Subject, part: str, way: str, device: str, dtype: torch.dtype, rate: float | None, rounds: int) -> Figures:
    """Seconds and memory of one part, done in one way."""
    torch.manual_seed(0)
    model = random_model(subject.config, NETWORKS[part], device, dtype)
    run = ways(part, model, subject.clip)[way]
    with torch.inference_mode():
        run()  # libraries choose their kernels
    cost = measure({way: run}, device, rounds)[way]
    weights = sum(weight_bytes(network) for network in model.networks.values())
    figures: Figures = {"seconds": cost.seconds, "weights GiB": weights / GIB, "peak above them GiB": cost.peak / GIB}
    if rate is not None:
        floor = operations(subject, part) / rate
        figures |= {"floor": floor, "share of the matrix rate": floor / cost.seconds}
    return figures


def estimate(parts: Mapping[str, Figures]) -> Figures:
    """A clip from the times of its parts; two texts are encoded together, and an image and an empty one for image models."""
    encoded = sum(parts[part]["seconds"] * (2 if part == "image" else 1) for part in parts if part not in ("step", "decode"))
    weights = sum({NETWORKS[part][0]: each["weights GiB"] for part, each in parts.items()}.values())
    peak = max(each["peak above them GiB"] for each in parts.values())
    return {
        "seconds": STEPS * parts["step"]["seconds"] + parts["decode"]["seconds"] + encoded,
        "weights GiB": weights,
        "GiB in all": weights + peak,
    }


def run(results: Results, device: str, types: dict[str, torch.dtype], subjects: Sequence[Subject], rounds: int) -> None:
    """Ours in all types first, then the plain formulation."""
    rates: dict[str, float] = {}
    for name, dtype in types.items():
        found = results.run(
            keys("fast", "product of matrices", dtype=name),
            lambda dtype=dtype: {"operations a second": matrix_rate(device, dtype, 50 if device == "cuda" else 2)},  # type: ignore[misc]
        )
        if found:
            rates[name] = found["operations a second"]
    for way in (OURS, PLAIN):
        for name, dtype in types.items():
            for subject in subjects:
                parts = {}
                for part in subject.parts if way == OURS else ("step", "decode"):
                    found = results.run(
                        keys("fast", part, subject.model, subject.size, name, way),
                        lambda subject=subject, part=part, way=way, dtype=dtype, name=name: time_part(  # type: ignore[misc]
                            subject, part, way, device, dtype, rates.get(name), rounds
                        ),
                    )
                    if found:
                        parts[part] = found
                if way == OURS and set(parts) == set(subject.parts):
                    results.add(keys("fast", f"estimate of {STEPS} steps", subject.model, subject.size, name, way), estimate(parts))
