"""Options of ComfyUI's command line, and how far each may change a video (``tests/comfyui/test_options.py``)."""

from __future__ import annotations

from dataclasses import dataclass

from .. import goldens


@dataclass(frozen=True)
class Flag:
    """An option, and how far a video made under it may be from float32's, in standard deviations of the latter."""

    option: str
    bound: float
    needs_gpu: bool = False


#: Rounding changes a number by a share ``u`` of it at most, and by about half of that on average. There are about 60 layers in
#: a row, and the squares of independent errors add up: sqrt(60) / 2 is about 4.
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

#: Options that must not change the numbers and can be set together: one server tries them all.
EXACT_TOGETHER = ("--force-channels-last", "--use-split-cross-attention")
