"""Core's nodes that patch a model do to ours what they do to core's own, and what is said of them.

A twin is core's own model with the weights of ours, whose layers over time are taken out for that: what ComfyUI's samplers and
patches make of the two must be the same. What our whole models make of a patch is computed by hand on the core.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vc_core
from harness import goldens
from harness.bench import T2V_V1
from harness.graphs import assert_fails, out
from harness.works_with.patches import IDENTITIES, PATCHES, Nodes
from tests.comfyui.patched import VIDEOCRAFTER2, FreeU, PatchGraph, ValuesAsTheyAre, recorded
from tests.comfyui.recorded import NEGATIVE, POSITIVE, Start
from vc_core.models.layers import LayerFactory, sdpa
from vc_core.models.unet import UNet


def twins(graph: PatchGraph, nodes: Nodes, **sampled: Any) -> list[Any]:
    """The latents of both, one after the other."""
    both = graph.add("TestTwins", model=graph.model)
    latents = []
    for twin in (0, 1):
        graph.model = out(both, twin)
        for node, settings in nodes:
            graph.patch(node, **settings)
        latents.append(graph.core_sample(**sampled))
    return out(graph.add("LatentBatch", samples1=latents[0], samples2=latents[1]))


@pytest.fixture(scope="module")
def unpatched(comfyui, checkpoints) -> Tensor:
    graph = PatchGraph(T2V_V1, frames=2, videos=2)
    return graph.run(comfyui, latent=twins(graph, [], steps=3))["latent"].chunk(2)[0]


@pytest.mark.parametrize("name", PATCHES)
def test_a_patched_model_is_as_core_s_own_would_be(comfyui, checkpoints, unpatched, name):
    """Two videos and two conditionings in a batch; none of the patches is without effect."""
    graph = PatchGraph(T2V_V1, frames=2, videos=2)
    ours, core = graph.run(comfyui, latent=twins(graph, PATCHES[name], steps=3))["latent"].chunk(2)
    assert goldens.error(ours, core) <= goldens.TOLERANCE
    assert name == "nothing" or goldens.error(ours, unpatched) > 10 * goldens.TOLERANCE


@pytest.mark.parametrize("name", IDENTITIES)
@pytest.mark.parametrize("sampler", ["core's", "ours"])
def test_settings_without_effect_have_none(comfyui, checkpoints, name, sampler):
    latents = []
    for nodes in ([], IDENTITIES[name]):
        graph = PatchGraph()
        for node, settings in nodes:
            graph.patch(node, **settings)
        latents.append(graph.run(comfyui, latent=graph.core_sample() if sampler == "core's" else graph.sample(steps=2, cfg=3.0))["latent"])
    assert goldens.error(latents[1], latents[0]) <= goldens.TOLERANCE


@pytest.mark.parametrize("sampler", ["core's", "ours"])
def test_freeu_by_hand(comfyui, checkpoints, sampler):
    graph = PatchGraph()
    graph.patch("FreeU_V2", b1=1.5, b2=1.4, s1=0.5, s2=0.2)
    file = f"freeu_{sampler}"
    seen, _ = recorded(comfyui, graph, file, graph.core_sample if sampler == "core's" else lambda: graph.sample(steps=2, cfg=3.0))
    model = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors")
    assert len(seen) == 2
    for each in seen:
        by_hand = each.by_hand(model.unet, FreeU(2 * model.config.unet.model_channels, 1.4, 0.2))
        assert goldens.error(each.tensors["out"], by_hand) <= goldens.TOLERANCE
        assert goldens.error(each.by_hand(model.unet), by_hand) > 0.01


def test_perturbed_attention_guidance_by_hand(comfyui, checkpoints):
    graph = PatchGraph()
    graph.patch("PerturbedAttentionGuidance", scale=2.0)
    (guided, perturbed), latent = recorded(comfyui, graph, "pag", lambda: graph.core_sample(steps=1))
    model = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors")
    assert (guided.conditionings, perturbed.conditionings) == ([NEGATIVE, POSITIVE], [POSITIVE])
    assert goldens.error(guided.tensors["out"], guided.by_hand(model.unet)) <= goldens.TOLERANCE
    assert goldens.error(perturbed.tensors["out"], perturbed.by_hand(model.unet, ValuesAsTheyAre())) <= goldens.TOLERANCE
    start = Start(model.schedule)
    positive, negative = (start.denoised(guided.of(which, "x"), guided.of(which)) for which in (POSITIVE, NEGATIVE))
    worse = start.denoised(perturbed.of(POSITIVE, "x"), perturbed.of(POSITIVE))
    assert goldens.error(latent, negative + 3.0 * (positive - negative) + 2.0 * (positive - worse)) <= goldens.TOLERANCE


def rescaled(positive: Tensor, negative: Tensor, x: Tensor, sigma: Tensor, scale: float, share: float) -> Tensor:
    """Guidance rescaled (arXiv:2305.08891, section 3.4) frame by frame, in v of the variance-preserving process; all are denoised."""
    spread = (1 + sigma**2).sqrt()
    v_positive, v_negative = ((x / spread**2 - (x - (x - each))) * spread / sigma for each in (positive, negative))
    guided = v_negative + scale * (v_positive - v_negative)
    matched = guided * v_positive.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
    return x / spread**2 - sigma / spread * (share * matched + (1 - share) * guided)


def test_rescale_cfg_by_hand(comfyui, checkpoints):
    graph = PatchGraph()
    graph.patch("RescaleCFG", multiplier=0.7)
    (seen,), latent = recorded(comfyui, graph, "rescaled", lambda: graph.core_sample(steps=1))
    start = Start(vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors").schedule)
    positive, negative = (start.denoised(seen.of(which, "x"), seen.of(which)) for which in (POSITIVE, NEGATIVE))
    expected = rescaled(positive, negative, start.x(seen.of(POSITIVE, "x")), start.sigma, 3.0, 0.7)
    assert goldens.error(latent, expected) <= goldens.TOLERANCE
    assert goldens.error(latent, negative + 3.0 * (positive - negative)) > 10 * goldens.TOLERANCE


@pytest.mark.parametrize("threshold, fewer", [(0.0, False), (3.0, True)])
def test_easycache_leaves_passes_out(comfyui, checkpoints, threshold, fewer):
    graph = PatchGraph()
    graph.patch("EasyCache", reuse_threshold=threshold, start_percent=0.0, end_percent=1.0, verbose=False)
    seen, latent = recorded(comfyui, graph, f"easycache_{threshold}", lambda: graph.core_sample(steps=6))
    assert latent.isfinite().all()
    assert len(seen) < 6 if fewer else len(seen) == 6


def test_core_s_schedule_is_that_of_a_model_without_sample_scale(comfyui, checkpoints):
    latents = []
    for nodes in ([], [("ModelSamplingDiscrete", {"sampling": "eps", "zsnr": False})]):
        graph = PatchGraph(T2V_V1)
        for node, settings in nodes:
            graph.patch(node, **settings)
        latents.append(graph.run(comfyui, latent=graph.core_sample())["latent"])
    assert goldens.error(latents[1], latents[0]) <= goldens.TOLERANCE


def test_an_overridden_attention_by_hand(comfyui, checkpoints):
    graph = PatchGraph()
    graph.patch("TestOverrideAttention", factor=0.5)
    (seen,), _ = recorded(comfyui, graph, "overridden", lambda: graph.core_sample(steps=1))
    model = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors")
    halved = UNet(model.config.unet, LayerFactory(attention=lambda *inputs: 0.5 * sdpa(*inputs)))
    halved.load_state_dict(model.unet.state_dict())
    assert goldens.error(seen.tensors["out"], seen.by_hand(halved)) <= goldens.TOLERANCE
    assert goldens.error(seen.by_hand(model.unet), seen.tensors["out"]) > 0.01


def test_another_of_the_same(comfyui, checkpoints):
    latents = []
    for node in ([], ["TestAgain"]):
        graph = PatchGraph()
        for each in node:
            graph.patch(each)
        latents.append(graph.run(comfyui, latent=graph.core_sample())["latent"])
    assert torch.equal(*latents)


@pytest.mark.full
def test_a_compiled_model_is_the_same(comfyui, checkpoints):
    """As TorchCompileModel does it, but for the code that would be generated, which takes minutes on a CPU."""
    latents = []
    for compiled in (False, True):
        graph = PatchGraph()
        graph.patch("FreeU_V2", b1=1.5, b2=1.4, s1=0.5, s2=0.2)
        if compiled:
            graph.patch("TestCompile")
        latents.append(graph.run(comfyui, latent=graph.core_sample())["latent"])
    assert goldens.error(latents[1], latents[0]) <= goldens.TOLERANCE


class TestRefused:
    def test_another_schedule_in_the_authors_sampler(self, comfyui, checkpoints):
        graph = PatchGraph()
        graph.patch("ModelSamplingDiscrete", sampling="v_prediction", zsnr=False)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterSampler", "needs a VideoCrafter model with its own noise schedule")

    def test_layers_of_a_diffusion_transformer(self, comfyui, checkpoints):
        graph = PatchGraph()
        graph.patch(
            "SkipLayerGuidanceDiT", double_layers="1", single_layers="1", scale=3.0, start_percent=0.0, end_percent=1.0, rescaling_scale=0.0
        )
        graph.add("TestSave", file="x", latent=graph.core_sample())
        assert_fails(comfyui, graph, "KSampler", "patches the model at dit", "another kind of model")
