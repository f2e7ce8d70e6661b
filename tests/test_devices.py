"""Devices: which are there, which is chosen, and that nothing in float64 reaches one that may not have it, as a Mac's GPU.

Torch's device ``meta`` stands in for a GPU: networks and latents are on it, and every operation is seen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vc_core import devices
from vc_core.config import load_config
from vc_core.errors import InputError
from vc_core.family.model_file import meta_networks
from vc_core.pipeline import VideoModel

WIDE = (torch.float64, torch.complex128)


class DeviceTypes(TorchDispatchMode):
    """Keeps the operations that read or make numbers of 64 bits on a device other than the processor, and counts all on it."""

    def __init__(self) -> None:
        super().__init__()
        self.wide: list[str] = []
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor) and each.device.type != "cpu"]
        self.operations += bool(tensors)
        if any(tensor.dtype in WIDE for tensor in tensors):
            self.wide.append(str(func))
        return result


def test_the_mode_sees_float64_on_a_device():
    """Or the tests below would find nothing anywhere."""
    with DeviceTypes() as seen:
        torch.ones(2, dtype=torch.float64).float().to("meta")
        assert seen.wide == [] and seen.operations == 1
        torch.ones(2, dtype=torch.float64).to("meta")
        torch.ones(2, device="meta").double()
    assert len(seen.wide) == 2


SIZE = {"frames": 3, "height": 32, "width": 32}
SETTINGS = {
    "steps": 3, "guidance_rescale": 0.7, "temporal_guidance_scale": 0.5, "deep_cache_interval": 2, "deep_cache_blocks": 1, "eta": 1.0,
}
RELATIVE = {"unet": {"max_relative_position": 4, "temporal_conv": False}}


@pytest.mark.parametrize("name", ["tiny_t2v", "tiny_i2v", "tiny_dynamicrafter", "relative"])
def test_nothing_in_float64_reaches_the_device(name):
    config = load_config(RELATIVE, load_config("tiny_t2v")) if name == "relative" else load_config(name)
    model = VideoModel(config, meta_networks(config))
    assert model.device.type == "meta"
    image, video = torch.rand(3, 20, 30), torch.rand(1, 3, 3, 32, 32)
    with DeviceTypes() as seen:
        if config.unet.image_attention:
            ends = {"end_image": image} if config.keyframes else {}
            model.image_to_video(image, "a cat", image_guidance_scale=2.0, **ends, **SIZE, **SETTINGS)
            model.embed_image(image[None])
        else:
            model.text_to_video("a cat", **SIZE, **SETTINGS)
            model.text_to_video("a cat", video=video, denoise=0.6, **SETTINGS)
    assert seen.operations > 1000 and seen.wide == []


@pytest.mark.parametrize(
    ("cuda", "mps", "expected", "there"),
    [(2, True, "cuda", ["cuda:0", "cuda:1", "mps", "cpu"]), (0, True, "mps", ["mps", "cpu"]), (0, False, "cpu", ["cpu"])],
)
def test_a_gpu_is_chosen_where_there_is_one(monkeypatch, cuda, mps, expected, there):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    monkeypatch.setattr("torch.xpu.is_available", lambda: False)
    assert devices.default_device() == expected and devices.available_devices() == there


@pytest.mark.parametrize("name", ["abacus", "meta", "", "cuda:99", "cpu:", "vulkan", "\x1b[31m"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(InputError, match="can't be used here; there is .*cpu.$"):
        devices.device(name)


def test_the_processor_is_always_there():
    assert devices.device("cpu") == torch.device("cpu")
