"""``python -m benchmarks.weights [MODEL ...]``: what storing a UNet's weights in fewer bits changes, and what it saves.

Weights are rounded to each form and computed with in float32, so that all differences come from the stored weights. The models are the
recorded ones, which have the published forms at small widths, and the bundled ones. Memory is that of VideoCrafter2's UNet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

import vc_core
from harness import goldens
from vc_core.config import load_config
from vc_core.pipeline import VideoModel

from .models import random_networks
from .parts import Clip, pair
from .report import GIB

STEPS, GUIDANCE, SIZE = 8, 4.0, (4, 64, 64)
RECORDED, BUNDLED = ("t2v_512_v1", "t2v_512_v2", "dynamicrafter_1024_v1"), ("videocrafter_tiny_t2v", "videocrafter_tiny_i2v")
LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max


def cast(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Rounded to a type."""
    return lambda weight: weight.to(dtype).to(weight)


def scaled_fp8(weight: Tensor) -> Tensor:
    """Rounded to float8 times one factor for each tensor."""
    scale = weight.abs().max() / LARGEST_FP8
    return (weight / scale).to(torch.float8_e4m3fn).to(weight) * scale


def int8_rows(weight: Tensor) -> Tensor:
    """Rounded to integers from -127 to 127 times one factor for each output, as weight-only int8 is."""
    flat = weight.flatten(1)
    scale = flat.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return ((flat / scale).round() * scale).view_as(weight)


#: How matrices are stored, and the bytes of a number. Biases and norms stay as they are.
FORMS: Mapping[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "float16": (cast(torch.float16), 2),
    "bfloat16": (cast(torch.bfloat16), 2),
    "float8 e4m3": (cast(torch.float8_e4m3fn), 1),
    "float8 e4m3, scaled": (scaled_fp8, 1),
    "int8 by output": (int8_rows, 1),
}


def rounded(network: nn.Module, form: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy with its matrices rounded."""
    same = deepcopy(network)
    for parameter in same.parameters():
        if parameter.ndim > 1:
            parameter.data = form(parameter.data)
    return same


def latents(model: VideoModel) -> Tensor:
    """A short run with the same noise and conditionings for every form."""
    torch.manual_seed(0)
    frames, height, width = SIZE
    positive, negative = pair(model.config, Clip(frames, height, width, STEPS), "cpu", torch.float32)
    texts = model.encode_text(["a red circle moving right", ""]).split(1)
    both = [replace(each, text=text) for each, text in zip((positive, negative), texts, strict=True)]
    settings = {"steps": STEPS, "guidance_scale": GUIDANCE, "eta": 0.0, "frames": frames, "height": height, "width": width, "seed": 0}
    return model.sample(*both, **settings)


def deviations(model: VideoModel) -> dict[str, float]:
    """The root mean square of the latents' difference for each form, as a share of the latents' own."""
    expected, unet = latents(model), model.unet
    found = {}
    for name, (form, _) in FORMS.items():
        ours = latents(VideoModel(model.config, {**model.networks, "unet": rounded(unet, form)}))
        found[name] = ((ours - expected).square().mean() / expected.square().mean()).sqrt().item()
    return found


def gib(bytes_of_matrices: int) -> float:
    """VideoCrafter2's UNet, with what is no matrix in half precision."""
    unet = random_networks(load_config("t2v_512_v2"), ["unet"], "meta", torch.float16)["unet"]
    return sum(each.numel() * (bytes_of_matrices if each.ndim > 1 else 2) for each in unet.parameters()) / GIB


def main() -> None:
    print("| model | " + " | ".join(FORMS) + " |\n" + "|---" * (len(FORMS) + 1) + "|")
    print("| VideoCrafter2's UNet, GiB | " + " | ".join(f"{gib(size):.2f}" for _, size in FORMS.values()) + " |", flush=True)
    for name in sys.argv[1:] or (*RECORDED, *BUNDLED):
        found = deviations(goldens.load(name) if name in RECORDED else vc_core.load(name))
        print(f"| {name} | " + " | ".join(f"{found[form]:.4f}" for form in FORMS) + " |", flush=True)


if __name__ == "__main__":
    main()
