"""Times and peaks of one thing said in several ways, taken in turns so that what else the machine does falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from .memory import peak

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Cost:
    """The least of some rounds, and the peak of another.

    Attributes:
        seconds: by the clock.
        processor_seconds: of all threads of this process; where other programs run as well, it says more than the clock.
        peak: bytes above those held before.
    """

    seconds: float
    processor_seconds: float
    peak: int


def measure(variants: Mapping[Name, Callable[[], Any]], device: torch.device | str, rounds: int) -> dict[Name, Cost]:
    """Run each variant once for its peak, which also warms it up, and then all of them in turns.

    Args:
        rounds: of timing; none leaves times at the one run that was watched for its peak.
    """
    costs: dict[Name, Cost] = {}
    with torch.inference_mode():
        for name, run in variants.items():
            start = _now(device)
            taken = peak(run, device)
            costs[name] = _later(start, _now(device), taken)
        first = True
        for _ in range(rounds):
            for name, run in variants.items():
                start = _now(device)
                run()
                cost = _later(start, _now(device), costs[name].peak)
                # The watched run is slower than it needs to be, and does not count if there is another.
                best = cost if first else min(cost, costs[name], key=lambda each: each.seconds)
                least = cost.processor_seconds if first else min(cost.processor_seconds, costs[name].processor_seconds)
                costs[name] = Cost(best.seconds, least, best.peak)
            first = False
    return costs


def _now(device: torch.device | str) -> tuple[float, float]:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _later(start: tuple[float, float], end: tuple[float, float], taken: int) -> Cost:
    return Cost(end[0] - start[0], end[1] - start[1], taken)
