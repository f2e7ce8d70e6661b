"""VideoCrafter DeepCache in a real ComfyUI, beside other patches and in several samplers."""

from __future__ import annotations

import pytest
import torch

import vc_core
from harness import goldens
from harness.graphs import assert_fails, out
from harness.works_with.length import windowed
from tests.comfyui.patched import VIDEOCRAFTER2, FreeU, PatchGraph, ValuesAsTheyAre, recorded
from tests.comfyui.recorded import POSITIVE
from vc_core.diffusion.deep_cache import DeepCache, DeepFeatures


@pytest.mark.parametrize("start, whole", [(0.0, [0, 3, 6]), (0.5, [0, 1, 2, 3, 6])])
def test_deep_cache_by_hand(comfyui, checkpoints, start, whole):
    graph = PatchGraph()
    graph.patch("FreeU_V2", b1=1.5, b2=1.4, s1=0.5, s2=0.2)
    graph.deep_cache(3, 2, start)
    seen, _ = recorded(comfyui, graph, f"deep_cache_{start}", lambda: graph.core_sample(steps=7))
    model = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors")
    freeu = FreeU(2 * model.config.unet.model_channels, 1.4, 0.2)
    features = DeepFeatures(2)
    for number, each in enumerate(seen):
        if number in whole:
            features.features = None
        by_hand = each.by_hand(model.unet, freeu, features)
        assert goldens.error(each.tensors["out"], by_hand) <= goldens.TOLERANCE
        if number not in whole:
            assert goldens.error(each.by_hand(model.unet, freeu), by_hand) > 10 * goldens.TOLERANCE
    assert len(seen) == 7


@pytest.mark.parametrize("window", [False, True])
def test_deep_cache_without_effect(comfyui, checkpoints, window):
    latents = []
    for patched in (False, True):
        graph = PatchGraph()
        if patched or window:
            graph.deep_cache(2 if window else 1, 2)
        if patched and window:
            graph.model = windowed(graph, 4, 0)
        latents.append(graph.run(comfyui, latent=graph.core_sample(steps=4))["latent"])
    assert torch.equal(*latents)


def test_deep_features_end_with_the_run(comfyui, checkpoints):
    graph = PatchGraph()
    graph.deep_cache(50, 1)
    first, second = graph.core_sample(seed=1, steps=2), graph.core_sample(seed=2, steps=2)
    together = graph.run(comfyui, latent=out(graph.add("LatentBatch", samples1=first, samples2=second)))["latent"].chunk(2)
    for seed, latent in zip((1, 2), together, strict=True):
        alone = PatchGraph()
        alone.deep_cache(50, 1)
        assert torch.equal(alone.run(comfyui, latent=alone.core_sample(seed=seed, steps=2))["latent"], latent)


@pytest.mark.parametrize("partner", ["PerturbedAttentionGuidance", "EasyCache"])
def test_deep_cache_with_others(comfyui, checkpoints, partner):
    settings = {
        "PerturbedAttentionGuidance": {"scale": 2.0},
        "EasyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False},
    }
    graph = PatchGraph()
    graph.patch(partner, **settings[partner])
    graph.deep_cache(2, 2)
    seen, _ = recorded(comfyui, graph, f"deep_cache_{partner}", lambda: graph.core_sample(steps=6))
    assert len(seen) == 12 if partner == "PerturbedAttentionGuidance" else len(seen) < 6
    model = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors")
    cache = DeepCache(2, 2)
    for each in seen:
        perturbed = partner == "PerturbedAttentionGuidance" and each.conditionings == [POSITIVE]
        by_hand = each.by_hand(model.unet, ValuesAsTheyAre() if perturbed else None, cache.next_pass(perturbed))
        assert goldens.error(each.tensors["out"], by_hand) <= goldens.TOLERANCE


def test_of_two_deep_caches_the_last_one_counts(comfyui, checkpoints):
    latents = []
    for settings in ([(3, 1)], [(2, 2), (3, 1)]):
        graph = PatchGraph()
        for interval, blocks in settings:
            graph.deep_cache(interval, blocks)
        latents.append(graph.run(comfyui, latent=graph.core_sample(steps=3))["latent"])
    assert torch.equal(*latents)


def test_deep_cache_of_more_blocks_than_there_are(comfyui, checkpoints):
    graph = PatchGraph()
    graph.deep_cache(2, 4)
    graph.add("TestSave", file="refused.safetensors", latent=graph.core_sample())
    assert_fails(comfyui, graph, "VideoCrafterDeepCache", "blocks is 4; this model has 4, so it can be 1 to 3.")
