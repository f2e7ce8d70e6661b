"""ControlNets and T2I adapters: what ``tests/comfyui/test_controlnet.py`` tries, and what it shows."""

from __future__ import annotations

from typing import Any

from ..bench import DEPTH, DYNAMICRAFTER, T2V, T2V_V1
from .table import CONTROL, Claims, Line

#: The control networks of a graph: a kind, the seed of its weights, and how it is applied.
Controls = list[tuple[str, int, dict[str, Any]]]
CONTROLS: dict[str, Controls] = {
    "nothing": [],
    "an image per frame": [("controlnet", 1, {})],
    "one image": [("controlnet", 1, {"images": 1})],
    "half as strong": [("controlnet", 1, {"strength": 0.5})],
    "at the start": [("controlnet", 1, {"end": 0.5})],
    "a chain": [("controlnet", 1, {}), ("controlnet", 2, {"images": 1, "start": 0.4, "strength": 0.3})],
    "an adapter": [("adapter", 1, {})],
    "an adapter and a ControlNet": [("adapter", 1, {}), ("controlnet", 2, {})],
}


CLAIMS: Claims = {
    "test_controlnet.test_as_on_core_s_own_model": (
        Line(
            CONTROL,
            f"ControlNetApplyAdvanced: {', '.join(list(CONTROLS)[1:])}",
            "without its temporal layers, the model equals core's image model; two videos, each frame with its own image",
            (T2V_V1,),
        ),
    ),
    "test_controlnet.test_by_hand_in_the_core": (
        Line(CONTROL, "the same, in KSampler and VideoCrafter Sampler", "the core's UNet with the residuals added by hand", (T2V,)),
    ),
    "test_controlnet.test_each_frame_of_each_video_gets_its_image": (
        Line(CONTROL, "a batch of images", "each frame of each video gets its own image", (T2V,)),
    ),
    "test_controlnet.test_it_starts_and_ends_at_its_percentages": (
        Line(CONTROL, "start_percent, end_percent", "only the steps in between are controlled", (T2V,)),
    ),
    "test_controlnet.test_an_adapter_in_passes_with_fewer_conditionings": (
        Line(CONTROL, "a T2I adapter with SelfAttentionGuidance", "the pass with fewer conditionings gets their part", (T2V,)),
    ),
    "test_controlnet.test_each_window_of_a_long_video_gets_its_images": (
        Line(CONTROL, "a T2I adapter with ContextWindowsManual", "each window gets its own images", (T2V,)),
    ),
    "test_controlnet.test_the_true_sizes_fit": (
        Line(
            CONTROL, "Stable Diffusion 2.1's ControlNet and T2I adapter", "their features fit the model of the published size", (T2V,)
        ),
    ),
    "test_composing.test_alone_and_in_pairs": (
        Line(
            CONTROL,
            "a ControlNet beside text, an image, depth, style, VideoCrafter Warped Noise, denoise below 1: each alone and each pair",
            "the UNet is given each as the core has it, and nothing else", (T2V, DYNAMICRAFTER, DEPTH),
        ),
    ),
    "test_composing.TestStructureOfSomeFrames": (
        Line(
            CONTROL, "ConditioningSetMask with a mask a frame on a conditioning with a ControlNet and on one without, ConditioningCombine",
            "only the given frames are controlled", (T2V,),
        ),
        Line(CONTROL, "an adapter for images of another size", "scaled to cover the video, cut at the centre", (T2V,)),
    ),
    "test_composing.TestMotion": (
        Line(CONTROL, "Load Optical Flow Model with VideoCrafter Warped Noise", "torchvision's RAFT on the clip's frames", (T2V,)),
    ),
    "test_controlnet.TestRefused": (
        Line(CONTROL, "ControlNets of other base models, Control-LoRA", "refused, with the widths that differ", (T2V,)),
    ),
}
