"""Core's nodes that patch a model do to ours what they do to core's own, and what is said of them.

A twin is core's own model with the weights of ours, whose layers over time are taken out for that: what ComfyUI's samplers and
patches make of the two must be the same. What our whole models make of a patch is computed by hand on the core.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vc_core
from harness import goldens
from harness.bench import T2V_V1
from harness.graphs import TextGraph, assert_fails, out
from harness.server import Server
from tests.comfyui.recorded import LATENT_SCALE, NEGATIVE, POSITIVE, Start, passes
from tests.comfyui.works_with.length import windowed
from tests.comfyui.works_with.table import PATCHES as GROUP
from tests.comfyui.works_with.table import Line, proves
from vc_core.diffusion.deep_cache import DeepCache, DeepFeatures
from vc_core.models.attention import SelfAttention
from vc_core.models.hooks import Hooks, Site, SpatialHooks
from vc_core.models.layers import LayerFactory, sdpa
from vc_core.models.unet import UNet

PROMPT = goldens.PROMPTS[0]
VIDEOCRAFTER2 = "t2v_512_v2"


@pytest.fixture(scope="module")
def checkpoints(comfyui: Server) -> Path:
    """The recorded models in the server's folder."""
    for name in goldens.MODELS:
        goldens.write_checkpoint(name, comfyui.checkpoints / f"{name}.safetensors")
    return comfyui.checkpoints


class PatchGraph(TextGraph):
    """A text graph whose model goes through nodes."""

    def __init__(self, checkpoint: str = VIDEOCRAFTER2, frames: int = 4, **given: Any) -> None:
        super().__init__(f"{checkpoint}.safetensors", PROMPT, frames=frames, **given)

    def patch(self, node: str, **settings: Any) -> None:
        self.model = out(self.add(node, model=self.model, **settings))

    def deep_cache(self, interval: int, blocks: int, start: float = 0.0) -> None:
        self.patch("VideoCrafterDeepCache", interval=interval, blocks=blocks, start_percent=start, end_percent=1.0)

    def ksample(self, **settings: Any) -> list[Any]:
        """Core's sampler on it."""
        given = {"seed": 1, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0} | settings
        inputs = {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return out(self.add("KSampler", **inputs, **given))


EVERYWHERE = (
    "input_block_patch input_block_patch_after_skip output_block_patch attn1_patch attn1_output_patch middle_patch attn2_patch "
    "attn2_output_patch"
)
AT_PLACES = "replace_attn1@middle,0 replace_attn1@output,3 replace_attn2@input,1,0 replace_attn2@middle,0 replace_attn2@output,0,0"
Nodes = list[tuple[str, dict[str, Any]]]
PATCHES: dict[str, Nodes] = {
    "nothing": [],
    "patches of every kind": [("TestPatches", {"kinds": EVERYWHERE})],
    "attention replaced at places": [("TestPatches", {"kinds": AT_PLACES})],
    "everything at once": [("TestPatches", {"kinds": f"{EVERYWHERE} {AT_PLACES}"})],
    "FreeU": [("FreeU", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2})],
    "FreeU_V2": [("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2})],
    "PAG": [("PerturbedAttentionGuidance", {"scale": 3.0})],
    "SAG": [("SelfAttentionGuidance", {"scale": 0.8, "blur_sigma": 2.0})],
    "RescaleCFG": [("RescaleCFG", {"multiplier": 0.7})],
    "HyperTile": [("HyperTile", {"tile_size": 1, "swap_size": 1, "max_depth": 1, "scale_depth": False})],
    "TomePatchModel": [("TomePatchModel", {"ratio": 0.5})],
    "EasyCache": [("EasyCache", {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False})],
    "LazyCache": [("LazyCache", {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False})],
    "Deep Shrink": [("PatchModelAddDownscale", {
        "block_number": 1, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.5, "downscale_after_skip": True,
        "downscale_method": "bicubic", "upscale_method": "bicubic",
    })],
    # From zero terminal SNR's sigma of 4519, the sampler's first subtraction turns one rounding into 1e-4 of the latent, in both models.
    "v prediction": [("ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": False})],
    "LCM": [("ModelSamplingDiscrete", {"sampling": "lcm", "zsnr": False})],
    "FreeU_V2 and PAG": [
        ("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}), ("PerturbedAttentionGuidance", {"scale": 3.0})
    ],
}  # fmt: skip


def twins(graph: PatchGraph, nodes: Nodes, **sampled: Any) -> list[Any]:
    """The latents of both, one after the other."""
    both = graph.add("TestTwins", model=graph.model)
    latents = []
    for twin in (0, 1):
        graph.model = out(both, twin)
        for node, settings in nodes:
            graph.patch(node, **settings)
        latents.append(graph.ksample(**sampled))
    return out(graph.add("LatentBatch", samples1=latents[0], samples2=latents[1]))


def named(nodes: Nodes) -> str:
    """Core's nodes among these, as users know them."""
    return ", ".join(dict.fromkeys(node + (f" ({how})" if (how := given.get("sampling")) else "") for node, given in nodes))


AS_CORE_S = "without its layers over time, the model gives what core's model of pictures gives"
NODES = dict.fromkeys(named(nodes) for nodes in PATCHES.values() if nodes and not nodes[0][0].startswith("Test"))


@pytest.fixture(scope="module")
def unpatched(comfyui, checkpoints) -> Tensor:
    graph = PatchGraph(T2V_V1, frames=2, videos=2)
    return graph.run(comfyui, latent=twins(graph, [], steps=3))["latent"].chunk(2)[0]


@proves(
    Line(GROUP, "hooks of every kind that packs set (set_model_patch, set_model_patch_replace)", AS_CORE_S, (T2V_V1,)),
    Line(GROUP, "; ".join(NODES), AS_CORE_S, (T2V_V1,)),
)
@pytest.mark.parametrize("name", PATCHES)
def test_a_patched_model_is_as_core_s_own_would_be(comfyui, checkpoints, unpatched, name):
    """Two videos and two conditionings in a batch; none of the patches is without effect."""
    graph = PatchGraph(T2V_V1, frames=2, videos=2)
    ours, core = graph.run(comfyui, latent=twins(graph, PATCHES[name], steps=3))["latent"].chunk(2)
    assert goldens.error(ours, core) <= goldens.TOLERANCE
    assert name == "nothing" or goldens.error(ours, unpatched) > 10 * goldens.TOLERANCE


IDENTITIES: dict[str, Nodes] = {
    "FreeU_V2": [("FreeU_V2", {"b1": 1.0, "b2": 1.0, "s1": 1.0, "s2": 1.0})],
    "PAG": [("PerturbedAttentionGuidance", {"scale": 0.0})],
    "SAG": [("SelfAttentionGuidance", {"scale": 0.0, "blur_sigma": 2.0})],
    "RescaleCFG": [("RescaleCFG", {"multiplier": 0.0})],
    "HyperTile": [("HyperTile", {"tile_size": 256, "swap_size": 2, "max_depth": 0, "scale_depth": False})],
    "TomePatchModel": [("TomePatchModel", {"ratio": 0.0})],
    "EasyCache": [("EasyCache", {"reuse_threshold": 0.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False})],
}


@proves(
    Line(
        GROUP, f"{', '.join(named(nodes) for nodes in IDENTITIES.values())}, set to do nothing",
        "KSampler and VideoCrafter Sampler give what they give without", (VIDEOCRAFTER2,),
    ),
)  # fmt: skip
@pytest.mark.parametrize("name", IDENTITIES)
@pytest.mark.parametrize("sampler", ["core's", "ours"])
def test_settings_without_effect_have_none(comfyui, checkpoints, name, sampler):
    latents = []
    for nodes in ([], IDENTITIES[name]):
        graph = PatchGraph()
        for node, settings in nodes:
            graph.patch(node, **settings)
        latents.append(graph.run(comfyui, latent=graph.ksample() if sampler == "core's" else graph.sample(steps=2, cfg=3.0))["latent"])
    assert goldens.error(latents[1], latents[0]) <= goldens.TOLERANCE


def recorded(comfyui: Server, graph: PatchGraph, file: str, latent: Callable[[], list[Any]] | None = None) -> tuple[list[Any], Tensor]:
    """The passes of a run through core's sampler (or another), and its latent as the model sees it."""
    graph.patch("TestRecord", file=file)
    saved = graph.run(comfyui, latent=(latent or graph.ksample)())
    return passes(comfyui, file), saved["latent"] * LATENT_SCALE


class FreeU(Hooks):
    """FreeU (arXiv:2309.11497, section 3.2), by the means of each position over the channels."""

    def __init__(self, width: int, backbone: float, skip: float) -> None:
        self.width, self.backbone, self.skip = width, backbone, skip

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        if hidden.shape[1] != self.width:
            return hidden, skip
        mean = hidden.mean(1, keepdim=True)
        low, high = mean.amin((1, 2, 3), keepdim=True), mean.amax((1, 2, 3), keepdim=True)
        first, second = hidden.chunk(2, dim=1)
        spectrum = torch.fft.fftshift(torch.fft.fft2(skip), dim=(-2, -1))
        middle = [slice(side // 2 - 1, side // 2 + 1) for side in skip.shape[2:]]
        spectrum[:, :, middle[0], middle[1]] *= self.skip
        lower = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real
        return torch.cat([first * (1 + (self.backbone - 1) * (mean - low) / (high - low)), second], dim=1), lower


@proves(
    Line(
        GROUP, "FreeU_V2, in KSampler and VideoCrafter Sampler",
        "the core's UNet with the paper's scaling by hand", (VIDEOCRAFTER2,),
    ),
)
@pytest.mark.parametrize("sampler", ["core's", "ours"])
def test_freeu_by_hand(comfyui, checkpoints, sampler):
    graph = PatchGraph()
    graph.patch("FreeU_V2", b1=1.5, b2=1.4, s1=0.5, s2=0.2)
    file = f"freeu_{sampler}"
    seen, _ = recorded(comfyui, graph, file, graph.ksample if sampler == "core's" else lambda: graph.sample(steps=2, cfg=3.0))
    model = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors")
    assert len(seen) == 2
    for each in seen:
        by_hand = each.by_hand(model.unet, FreeU(2 * model.config.unet.model_channels, 1.4, 0.2))
        assert goldens.error(each.tensors["out"], by_hand) <= goldens.TOLERANCE
        assert goldens.error(each.by_hand(model.unet), by_hand) > 0.01


class ValuesAsTheyAre(Hooks):
    """Self-attention in the middle that lets each position see itself only."""

    def spatial(self, site: Site) -> SpatialHooks | None:
        class Itself(SpatialHooks):
            def self_attention(self, layer: SelfAttention, x: Tensor) -> Tensor:
                return layer(x, attention=lambda q, k, v, heads: v)

        return Itself() if site.part == "middle" else None


@proves(
    Line(GROUP, "PerturbedAttentionGuidance", "the core's UNet with the paper's guidance by hand", (VIDEOCRAFTER2,)),
)
def test_perturbed_attention_guidance_by_hand(comfyui, checkpoints):
    graph = PatchGraph()
    graph.patch("PerturbedAttentionGuidance", scale=2.0)
    (guided, perturbed), latent = recorded(comfyui, graph, "pag", lambda: graph.ksample(steps=1))
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


@proves(
    Line(GROUP, "RescaleCFG", "the core's UNet with the paper's rescaling by hand", (VIDEOCRAFTER2,)),
)
def test_rescale_cfg_by_hand(comfyui, checkpoints):
    graph = PatchGraph()
    graph.patch("RescaleCFG", multiplier=0.7)
    (seen,), latent = recorded(comfyui, graph, "rescaled", lambda: graph.ksample(steps=1))
    start = Start(vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors").schedule)
    positive, negative = (start.denoised(seen.of(which, "x"), seen.of(which)) for which in (POSITIVE, NEGATIVE))
    expected = rescaled(positive, negative, start.x(seen.of(POSITIVE, "x")), start.sigma, 3.0, 0.7)
    assert goldens.error(latent, expected) <= goldens.TOLERANCE
    assert goldens.error(latent, negative + 3.0 * (positive - negative)) > 10 * goldens.TOLERANCE


@proves(
    Line(GROUP, "EasyCache", "fewer passes with a threshold, all of them at 0", (VIDEOCRAFTER2,)),
)
@pytest.mark.parametrize("threshold, fewer", [(0.0, False), (3.0, True)])
def test_easycache_leaves_passes_out(comfyui, checkpoints, threshold, fewer):
    graph = PatchGraph()
    graph.patch("EasyCache", reuse_threshold=threshold, start_percent=0.0, end_percent=1.0, verbose=False)
    seen, latent = recorded(comfyui, graph, f"easycache_{threshold}", lambda: graph.ksample(steps=6))
    assert latent.isfinite().all()
    assert len(seen) < 6 if fewer else len(seen) == 6


@proves(
    Line(GROUP, "VideoCrafter DeepCache, FreeU_V2", "the core's UNet with the deep features of one or two steps before", (VIDEOCRAFTER2,)),
)
@pytest.mark.parametrize("start, whole", [(0.0, [0, 3, 6]), (0.5, [0, 1, 2, 3, 6])])
def test_deep_cache_by_hand(comfyui, checkpoints, start, whole):
    graph = PatchGraph()
    graph.patch("FreeU_V2", b1=1.5, b2=1.4, s1=0.5, s2=0.2)
    graph.deep_cache(3, 2, start)
    seen, _ = recorded(comfyui, graph, f"deep_cache_{start}", lambda: graph.ksample(steps=7))
    model = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors")
    freeu = FreeU(2 * model.config.unet.model_channels, 1.4, 0.2)
    features = DeepFeatures(2)
    for number, each in enumerate(seen):
        if number in whole:
            features.kept = None
        by_hand = each.by_hand(model.unet, freeu, features)
        assert goldens.error(each.tensors["out"], by_hand) <= goldens.TOLERANCE
        if number not in whole:
            assert goldens.error(each.by_hand(model.unet, freeu), by_hand) > 10 * goldens.TOLERANCE
    assert len(seen) == 7


@proves(
    Line(GROUP, "VideoCrafter DeepCache, every step whole; on videos shorter than a context window", "as without", (VIDEOCRAFTER2,)),
)
@pytest.mark.parametrize("window", [False, True])
def test_deep_cache_without_effect(comfyui, checkpoints, window):
    latents = []
    for patched in (False, True):
        graph = PatchGraph()
        if patched or window:
            graph.deep_cache(2 if window else 1, 2)
        if patched and window:
            graph.model = windowed(graph, 4, 0)
        latents.append(graph.run(comfyui, latent=graph.ksample(steps=4))["latent"])
    assert torch.equal(*latents)


@proves(
    Line(GROUP, "VideoCrafter DeepCache in several samplers", "each run has features of its own", (VIDEOCRAFTER2,)),
)
def test_deep_features_end_with_the_run(comfyui, checkpoints):
    graph = PatchGraph()
    graph.deep_cache(50, 1)
    first, second = graph.ksample(seed=1, steps=2), graph.ksample(seed=2, steps=2)
    together = graph.run(comfyui, latent=out(graph.add("LatentBatch", samples1=first, samples2=second)))["latent"].chunk(2)
    for seed, latent in zip((1, 2), together, strict=True):
        alone = PatchGraph()
        alone.deep_cache(50, 1)
        assert torch.equal(alone.run(comfyui, latent=alone.ksample(seed=seed, steps=2))["latent"], latent)


@proves(
    Line(GROUP, "VideoCrafter DeepCache with PerturbedAttentionGuidance", "a guidance's own pass meets its own features", (VIDEOCRAFTER2,)),
    Line(GROUP, "VideoCrafter DeepCache with EasyCache", "whole steps are left out, the others as before", (VIDEOCRAFTER2,)),
)
@pytest.mark.parametrize("partner", ["PerturbedAttentionGuidance", "EasyCache"])
def test_deep_cache_with_others(comfyui, checkpoints, partner):
    given = {
        "PerturbedAttentionGuidance": {"scale": 2.0},
        "EasyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False},
    }
    graph = PatchGraph()
    graph.patch(partner, **given[partner])
    graph.deep_cache(2, 2)
    seen, _ = recorded(comfyui, graph, f"deep_cache_{partner}", lambda: graph.ksample(steps=6))
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
        latents.append(graph.run(comfyui, latent=graph.ksample(steps=3))["latent"])
    assert torch.equal(*latents)


def test_deep_cache_of_more_blocks_than_there_are(comfyui, checkpoints):
    graph = PatchGraph()
    graph.deep_cache(2, 4)
    graph.add("TestSave", file="refused.safetensors", latent=graph.ksample())
    assert_fails(comfyui, graph, "VideoCrafterDeepCache", "blocks is 4; this model has 4, so it can be 1 to 3.")


@proves(
    Line(GROUP, "ModelSamplingDiscrete (eps)", "the identity for a model without sample scale", (T2V_V1,)),
)
def test_core_s_schedule_is_that_of_a_model_without_sample_scale(comfyui, checkpoints):
    latents = []
    for nodes in ([], [("ModelSamplingDiscrete", {"sampling": "eps", "zsnr": False})]):
        graph = PatchGraph(T2V_V1)
        for node, settings in nodes:
            graph.patch(node, **settings)
        latents.append(graph.run(comfyui, latent=graph.ksample())["latent"])
    assert goldens.error(latents[1], latents[0]) <= goldens.TOLERANCE


@proves(
    Line(
        GROUP, "packs that override attention (optimized_attention_override)",
        "every attention of the core goes through it", (VIDEOCRAFTER2,),
    ),
)
def test_an_overridden_attention_by_hand(comfyui, checkpoints):
    graph = PatchGraph()
    graph.patch("TestOverrideAttention", factor=0.5)
    (seen,), _ = recorded(comfyui, graph, "overridden", lambda: graph.ksample(steps=1))
    model = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors")
    halved = UNet(model.config.unet, LayerFactory(attention=lambda *given: 0.5 * sdpa(*given)))
    halved.load_state_dict(model.unet.state_dict())
    assert goldens.error(seen.tensors["out"], seen.by_hand(halved)) <= goldens.TOLERANCE
    assert goldens.error(seen.by_hand(model.unet), seen.tensors["out"]) > 0.01


def test_another_of_the_same(comfyui, checkpoints):
    latents = []
    for node in ([], ["TestAgain"]):
        graph = PatchGraph()
        for each in node:
            graph.patch(each)
        latents.append(graph.run(comfyui, latent=graph.ksample())["latent"])
    assert torch.equal(*latents)


@proves(
    Line(GROUP, "TorchCompileModel, without generating code", "the same video as uncompiled", (VIDEOCRAFTER2,)),
)
def test_a_compiled_model_is_the_same(comfyui, checkpoints):
    """As TorchCompileModel does it, but for the code that would be generated, which takes minutes on a CPU."""
    latents = []
    for compiled in (False, True):
        graph = PatchGraph()
        graph.patch("FreeU_V2", b1=1.5, b2=1.4, s1=0.5, s2=0.2)
        if compiled:
            graph.patch("TestCompile")
        latents.append(graph.run(comfyui, latent=graph.ksample())["latent"])
    assert goldens.error(latents[1], latents[0]) <= goldens.TOLERANCE


@proves(
    Line(
        GROUP, "ModelSamplingDiscrete with VideoCrafter Sampler, SkipLayerGuidanceDiT",
        "refused, with the reason", (VIDEOCRAFTER2,),
    ),
)
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
        graph.add("TestSave", file="x", latent=graph.ksample())
        assert_fails(comfyui, graph, "KSampler", "patches the model at dit", "another kind of model")
