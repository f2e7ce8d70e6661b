"""Nodes of core's that patch a model: what ``test_model_patches.py`` and ``test_deep_cache.py`` try, and what they show."""

from __future__ import annotations

from typing import Any

from ..bench import T2V, T2V_V1
from .table import PATCHES as GROUP
from .table import Claims, Line

EVERYWHERE = (
    "input_block_patch input_block_patch_after_skip output_block_patch attn1_patch attn1_output_patch middle_patch attn2_patch "
    "attn2_output_patch"
)
AT_BLOCKS = "replace_attn1@middle,0 replace_attn1@output,3 replace_attn2@input,1,0 replace_attn2@middle,0 replace_attn2@output,0,0"
#: Nodes that patch a model, in their order, each with its settings.
Nodes = list[tuple[str, dict[str, Any]]]
PATCHES: dict[str, Nodes] = {
    "nothing": [],
    "patches of every kind": [("TestPatches", {"kinds": EVERYWHERE})],
    "attention replaced in some blocks": [("TestPatches", {"kinds": AT_BLOCKS})],
    "everything at once": [("TestPatches", {"kinds": f"{EVERYWHERE} {AT_BLOCKS}"})],
    "FreeU": [("FreeU", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2})],
    "FreeU_V2": [("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2})],
    "PAG": [("PerturbedAttentionGuidance", {"scale": 3.0})],
    "SAG": [("SelfAttentionGuidance", {"scale": 0.8, "blur_sigma": 2.0})],
    "RescaleCFG": [("RescaleCFG", {"multiplier": 0.7})],
    "HyperTile": [("HyperTile", {"tile_size": 1, "swap_size": 1, "max_depth": 1, "scale_depth": False})],
    "TomePatchModel": [("TomePatchModel", {"ratio": 0.5})],
    "EasyCache": [("EasyCache", {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False})],
    "LazyCache": [("LazyCache", {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False})],
    "Deep Shrink": [
        (
            "PatchModelAddDownscale",
            {
                "block_number": 1, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.5, "downscale_after_skip": True,
                "downscale_method": "bicubic", "upscale_method": "bicubic",
            },
        )
    ],
    # From zero terminal SNR's sigma of 4519, the sampler's first subtraction turns one rounding into 1e-4 of the latent, in both models.
    "v prediction": [("ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": False})],
    "LCM": [("ModelSamplingDiscrete", {"sampling": "lcm", "zsnr": False})],
    "FreeU_V2 and PAG": [
        ("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
        ("PerturbedAttentionGuidance", {"scale": 3.0}),
    ],
}

IDENTITIES: dict[str, Nodes] = {
    "FreeU_V2": [("FreeU_V2", {"b1": 1.0, "b2": 1.0, "s1": 1.0, "s2": 1.0})],
    "PAG": [("PerturbedAttentionGuidance", {"scale": 0.0})],
    "SAG": [("SelfAttentionGuidance", {"scale": 0.0, "blur_sigma": 2.0})],
    "RescaleCFG": [("RescaleCFG", {"multiplier": 0.0})],
    "HyperTile": [("HyperTile", {"tile_size": 256, "swap_size": 2, "max_depth": 0, "scale_depth": False})],
    "TomePatchModel": [("TomePatchModel", {"ratio": 0.0})],
    "EasyCache": [("EasyCache", {"reuse_threshold": 0.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False})],
}


def titles(nodes: Nodes) -> str:
    """Core's nodes among these, as users know them."""
    return ", ".join(dict.fromkeys(node + (f" ({how})" if (how := settings.get("sampling")) else "") for node, settings in nodes))


AS_CORE_S = "without its temporal layers, the model equals core's image model"
TITLES = dict.fromkeys(titles(nodes) for nodes in PATCHES.values() if nodes and not nodes[0][0].startswith("Test"))

CLAIMS: Claims = {
    "test_model_patches.test_a_patched_model_is_as_core_s_own_would_be": (
        Line(GROUP, "hooks of every kind that packs set (set_model_patch, set_model_patch_replace)", AS_CORE_S, (T2V_V1,)),
        Line(GROUP, "; ".join(TITLES), AS_CORE_S, (T2V_V1,)),
    ),
    "test_model_patches.test_settings_without_effect_have_none": (
        Line(
            GROUP, f"{', '.join(titles(nodes) for nodes in IDENTITIES.values())}, set to do nothing",
            "KSampler and VideoCrafter Sampler give the same as without the node", (T2V,),
        ),
    ),
    "test_model_patches.test_freeu_by_hand": (
        Line(GROUP, "FreeU_V2, in KSampler and VideoCrafter Sampler", "the core's UNet with the paper's scaling by hand", (T2V,)),
    ),
    "test_model_patches.test_perturbed_attention_guidance_by_hand": (
        Line(GROUP, "PerturbedAttentionGuidance", "the core's UNet with the paper's guidance by hand", (T2V,)),
    ),
    "test_model_patches.test_rescale_cfg_by_hand": (
        Line(GROUP, "RescaleCFG", "the core's UNet with the paper's rescaling by hand", (T2V,)),
    ),
    "test_model_patches.test_easycache_leaves_passes_out": (
        Line(GROUP, "EasyCache", "fewer passes with a threshold, all of them at 0", (T2V,)),
    ),
    "test_deep_cache.test_deep_cache_by_hand": (
        Line(GROUP, "VideoCrafter DeepCache, FreeU_V2", "the core's UNet with the deep features of one or two steps earlier", (T2V,)),
    ),
    "test_deep_cache.test_deep_cache_without_effect": (
        Line(GROUP, "VideoCrafter DeepCache, interval 1; on videos shorter than a context window", "as without the node", (T2V,)),
    ),
    "test_deep_cache.test_deep_features_end_with_the_run": (
        Line(GROUP, "VideoCrafter DeepCache in several samplers", "each run has features of its own", (T2V,)),
    ),
    "test_deep_cache.test_deep_cache_with_others": (
        Line(GROUP, "VideoCrafter DeepCache with PerturbedAttentionGuidance", "a guidance's own pass has its own features", (T2V,)),
        Line(GROUP, "VideoCrafter DeepCache with EasyCache", "EasyCache skips steps, the others are as before", (T2V,)),
    ),
    "test_model_patches.test_core_s_schedule_is_that_of_a_model_without_sample_scale": (
        Line(GROUP, "ModelSamplingDiscrete (eps)", "the identity for a model without sample scale", (T2V_V1,)),
    ),
    "test_model_patches.test_an_overridden_attention_by_hand": (
        Line(
            GROUP, "packs that override attention (optimized_attention_override)", "every attention of the core goes through it", (T2V,)
        ),
    ),
    "test_model_patches.test_a_compiled_model_is_the_same": (
        Line(GROUP, "TorchCompileModel, without generating code", "the same video as uncompiled", (T2V,)),
    ),
    "test_model_patches.TestRefused": (
        Line(GROUP, "ModelSamplingDiscrete with VideoCrafter Sampler, SkipLayerGuidanceDiT", "refused, with the reason", (T2V,)),
    ),
}
