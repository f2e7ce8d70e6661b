"""The least time that the arithmetic takes: operations counted, over the rate at which the machine multiplies matrices."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vc_core.kernels import onednn

#: A product of matrices that reaches the full rate, by the kind of device.
SIDE = {"cpu": 1536, "cuda": 8192}


def flops(run: Callable[[], Any]) -> int:
    """Operations of a run's products and convolutions, a multiplication and an addition being two; meant for ``meta``.

    On ``meta`` attention is written out, so that its two products are counted as well.
    """
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def matrix_rate(device: torch.device | str, dtype: torch.dtype, rounds: int = 50) -> float:
    """Operations a second of a product of two large matrices, the best of many rounds, of a twentieth of a second each on a processor.

    By either of the libraries that torch has for it on a processor.
    """
    device = torch.device(device)
    side = SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for multiply in (torch.matmul, onednn.linear):
                start = _now(device)
                multiply(a, b)
                best = min(best, _now(device) - start)
    return 2 * side**3 / best


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
