"""Options of ComfyUI's command line, each in a server of its own (``test_memory.py``)."""

from __future__ import annotations

from dataclasses import dataclass

from harness import goldens


@dataclass(frozen=True)
class Flag:
    """An option, and how far a video made under it may be from float32's, in its deviations."""

    option: str
    bound: float
    needs_gpu: bool = False


#: Rounding a number is off by ``u`` of it at most, by half of that in the mean. Some 60 layers stand one behind the other, and
#: independent errors add as squares: sqrt(60) / 2 is about 4.
FLOAT16, BFLOAT16, FP8_E4M3 = (4 * u for u in (2**-11, 2**-8, 2**-4))
FLAGS = (
    Flag("--cpu", goldens.TOLERANCE),
    Flag("--lowvram", BFLOAT16, needs_gpu=True),
    Flag("--novram", BFLOAT16, needs_gpu=True),
    Flag("--fp16-unet", FLOAT16),
    Flag("--bf16-unet", BFLOAT16),
    Flag("--fp8_e4m3fn-unet", FP8_E4M3),
    Flag("--force-channels-last", goldens.TOLERANCE),
    Flag("--use-split-cross-attention", goldens.TOLERANCE),
    Flag("--use-quad-cross-attention", goldens.TOLERANCE),
)
