"""The core's hooks on a MODEL: what they do alone they do in ComfyUI."""

from __future__ import annotations

import json

import torch
from torch import Tensor

import vc_core
from harness import goldens
from harness.graphs import out
from tests.comfyui.patched import VIDEOCRAFTER2, PatchGraph, recorded
from tests.comfyui.recorded import NEGATIVE, passes
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


def test_roles_are_not_read_off_the_order(comfyui):
    """DualCFGGuider's order is negative, middle, positive."""
    graph = PatchGraph()
    graph.patch("TestTemporalHooks", amount=AMOUNT, file="roles.jsonl")
    graph.patch("TestRecord", file="roles")
    guider = graph.add(
        "DualCFGGuider",
        model=graph.model,
        cond1=graph.positive,
        cond2=graph.negative,
        negative=graph.negative,
        cfg_conds=3.0,
        cfg_cond2_negative=2.0,
        style="regular",
    )
    sampled = graph.add(
        "SamplerCustomAdvanced",
        noise=out(graph.add("RandomNoise", noise_seed=2)),
        guider=out(guider),
        sampler=out(graph.add("KSamplerSelect", sampler_name="euler")),
        latent_image=graph.latent,
        sigmas=out(graph.add("VideoCrafterScheduler", model=graph.model, steps=2, denoise=1.0, spacing="auto")),
    )
    graph.run(comfyui, latent=out(sampled))
    made = [json.loads(line)["roles"] for line in (comfyui.base / "output" / "roles.jsonl").read_text().splitlines()]
    rows = [
        (role, each.of(number, "context")[0])
        for roles, each in zip(made, passes(comfyui, "roles"), strict=True)
        for role, number in zip(roles, each.conditionings, strict=True)
    ]
    assert sorted(role for role, _ in rows) == ["negative"] * 4 + ["positive"] * 2
    positive, negative = ([context for role, context in rows if role == name] for name in ("positive", "negative"))
    assert all(torch.equal(each, positive[0]) for each in positive)
    assert all(torch.equal(each, negative[0]) for each in negative)
    assert not torch.equal(positive[0], negative[0])


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
