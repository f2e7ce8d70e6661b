"""The core's hooks on a MODEL: what they do alone they do in ComfyUI."""

from __future__ import annotations

import json

import torch
from torch import Tensor

import vc_core
from harness import goldens
from tests.comfyui.patched import VIDEOCRAFTER2, PatchGraph, recorded
from tests.comfyui.recorded import NEGATIVE
from vc_core.models.hooks import Hooks, Site, TemporalHooks

AMOUNT = 0.5


class Shift(Hooks, TemporalHooks):
    """Adds a number between the attentions over time, in the positive conditioning's videos."""

    def __init__(self, conditionings: list[int]) -> None:
        self.factors = torch.tensor([AMOUNT * (each != NEGATIVE) for each in conditionings])[:, None, None, None]

    def temporal(self, site: Site) -> TemporalHooks:
        return self

    def between(self, x: Tensor) -> Tensor:
        return x + self.factors


def test_temporal_hooks_by_hand(comfyui, checkpoints):
    graph = PatchGraph()
    graph.patch("TestTemporalHooks", amount=AMOUNT, file="hooks.jsonl")
    seen, _ = recorded(comfyui, graph, "temporal_hooks", lambda: graph.core_sample(steps=3))
    model = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors")
    for each in seen:
        by_hand = each.by_hand(model.unet, Shift(each.conditionings))
        assert goldens.error(each.tensors["out"], by_hand) <= goldens.TOLERANCE
        assert goldens.error(each.by_hand(model.unet), by_hand) > 10 * goldens.TOLERANCE
    made = [json.loads(line) for line in (comfyui.base / "output" / "hooks.jsonl").read_text().splitlines()]
    assert len(made) == len(seen) == 3
    for step, (inputs, each) in enumerate(zip(made, seen, strict=True)):
        assert inputs["roles"] == ["negative" if conditioning == NEGATIVE else "positive" for conditioning in each.conditionings]
        assert (inputs["step"], inputs["steps"]) == (step, 3)
        assert inputs["shape"] == [len(each.conditionings), 4, 4, 8, 8]


def test_hooks_and_patches_of_comfyui_go_together(comfyui, checkpoints):
    """FreeU beside hooks that add nothing gives what it gives alone."""
    latents = []
    for hooked in (False, True):
        graph = PatchGraph()
        graph.patch("FreeU_V2", b1=1.5, b2=1.4, s1=0.5, s2=0.2)
        if hooked:
            graph.patch("TestTemporalHooks", amount=0.0, file="no_hooks.jsonl")
        latents.append(graph.run(comfyui, latent=graph.core_sample(steps=2))["latent"])
    assert goldens.error(latents[1], latents[0]) <= goldens.TOLERANCE
