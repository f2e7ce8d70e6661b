"""Conditions in a graph: their inputs, and the nodes that add them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import vc_core
from harness import goldens
from harness.bench import DYNAMICRAFTER, Bench, Link
from harness.graphs import out
from tests.networks import randomize
from vc_core.adapters.style import StyleAdapter
from vc_core.models.image_encoder import ImageEncoder
from vc_core.models.layers import LayerFactory


def texture(count: int, height: int = 64, width: int = 64, seed: int = 1) -> Tensor:
    """Frames ``[count, 3, H, W]`` in [-1, 1] of a texture that moves right by 3 pixels each."""
    noise = torch.rand(1, 3, height // 4, (width + 3 * count) // 4 + 1, generator=torch.manual_seed(seed))
    wide = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1)[0]
    return torch.stack([wide[:, :, 3 * (count - index) :][:, :, :width] for index in range(count)]) * 2 - 1


def shown(frames: Tensor) -> Tensor:
    """Frames as they are after they were an IMAGE, to the last bit: the optical flow is of their rounded values."""
    return (frames + 1) / 2 * 2 - 1


def image(bench: Bench, frames: Tensor) -> Link:
    """An IMAGE of frames ``[T, 3, H, W]`` in [-1, 1]."""
    return bench.tensor_input("TestImage", "image", (frames.movedim(1, -1) + 1) / 2)


def controlled(bench: Bench, control: str, hints: Tensor, strength: float = 1.0) -> None:
    both = bench.add(
        "ControlNetApplyAdvanced", positive=bench.positive, negative=bench.negative, control_net=out(control), image=image(bench, hints),
        strength=strength, start_percent=0.0, end_percent=1.0,
    )
    bench.positive, bench.negative = out(both, 0), out(both, 1)


def controlnet(bench: Bench, seed: int = 1) -> str:
    return bench.add("TestControlNet", model=bench.model, seed=seed, changed=json.dumps({"in_channels": 4}))


def adapter(bench: Bench, seed: int = 1) -> str:
    return bench.add("TestAdapter", seed=seed, width=vc_core.load(bench.path).config.unet.model_channels)


def with_depth(bench: Bench, maps: Tensor) -> None:
    both = bench.add(
        "VideoCrafterDepthToVideo", positive=bench.positive, negative=bench.negative, depth=image(bench, maps), range="clip", strength=1.0,
    )
    bench.positive, bench.negative = out(both, 0), out(both, 1)


def style_adapter(bench: Bench) -> Path:
    """A file of StyleCrafter's adapter for the bench's model, with drawn weights."""
    folder = bench.comfyui.base / "models" / "videocrafter_adapters"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"composed_{bench.name}.safetensors"
    if not path.exists():
        width = tower().config.width
        save_file(randomize(StyleAdapter(vc_core.load(bench.path).config, width, 8, (2, 1), LayerFactory())).state_dict(), path)
    return path


def tower() -> ImageEncoder:
    """The image tower that reads the style's image: DynamiCrafter's."""
    return goldens.load(DYNAMICRAFTER).networks["image_encoder"]


def image_tower(bench: Bench) -> Link:
    """The same as a CLIP_VISION."""
    return out(bench.load(DYNAMICRAFTER, goldens.weights(DYNAMICRAFTER)), 3)


def styled(bench: Bench) -> None:
    pictures = image(bench, texture(1, 40, 60, seed=5))
    bench.patch(
        "VideoCrafterStyle", adapter_name=style_adapter(bench).name, clip_vision=image_tower(bench), images=pictures, strength=1.0,
    )
