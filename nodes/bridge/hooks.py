"""ComfyUI's patches of a UNet and its ControlNets, as the core's hooks.

Patches are called with the same arguments, in the same order and with the same entries of ``transformer_options`` as by ComfyUI's
own UNet (``comfy/ldm/modules/diffusionmodules/openaimodel.py`` and ``comfy/ldm/modules/attention.py``). To a patch, a video is a
batch of images, one per frame, ``[(n t), c, h, w]`` or ``[(n t), l, c]``, n being conditionings times videos. The blocks have the
same numbers, since the family's UNet is that of Stable Diffusion 2.1 with temporal layers added; so its ControlNets fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...vc_core.models.attention import CrossAttention, SelfAttention
from ...vc_core.models.conditioning import Conditioning, ContextStream
from ...vc_core.models.hooks import HookFactory, Hooks, PassInputs, Site, SpatialHooks, combine
from ...vc_core.models.layers import Attention

#: Key of ``transformer_options``: the core's :data:`HookFactory` objects, which a node of this pack adds to a MODEL.
HOOKS_KEY = "videocrafter_hooks"
#: Condition of a pass: the role of each row, as its number in :data:`ROLES`.
ROLE_KEY = "role"
#: Key of ``transformer_options`` by which packs tell each other of windows of frames, in the form of AnimateDiff-Evolved's.
TOLD_KEY = "ad_params"
#: The roles of :class:`PassInputs`.
ROLES = ("positive", "negative", "image", "uncontrolled", "unstyled")
#: Key of ``transformer_options``: whether the step's prediction is made of several conditionings.
GUIDED_KEY = "videocrafter_guided"
#: Kinds of patches; each is called with the options as its last argument.
BLOCK_PATCHES = ("input_block_patch", "input_block_patch_after_skip", "output_block_patch")
ATTENTION_PATCHES = ("attn1_patch", "attn1_output_patch", "middle_patch", "attn2_patch", "attn2_output_patch")
REPLACEMENTS = ("attn1", "attn2")
#: Kinds that core's nodes set for other networks, or for core's own layers, which this UNet doesn't have.
FOREIGN_PATCHES = (
    "double_block", "post_input", "noise_refiner", "mlp_patch", "emb_patch", "forward_timestep_embed_patch", "middle_block_after_patch",
)
FOREIGN_REPLACEMENTS = ("dit",)


def role_of(prompt_type: str) -> Tensor:
    """The role of a conditioning, ``[1]``.

    Args:
        prompt_type: the conditioning's name in its guider, or what the guider sets instead. The order of conditionings in
            ``cond_or_uncond`` says less: it differs between guiders.
    """
    return torch.tensor([ROLES.index(prompt_type if prompt_type in ROLES else "negative")])


def pass_inputs(options: dict[str, Any], x: Tensor, timesteps: Tensor, conditioning: Conditioning, role: Tensor | None) -> PassInputs:
    """The inputs of one pass over videos ``[n, c, t, h, w]``, as the core's hooks get them.

    Args:
        options: ComfyUI's ``transformer_options``.
        role: ``[n]``, see :func:`role_of`; all positive if not given.
    """
    roles = tuple(ROLES[each] for each in (role.tolist() if role is not None else [0] * len(x)))
    sigmas, step, steps = options.get("sample_sigmas"), 0, 1
    if sigmas is not None and "sigmas" in options:
        steps = max(1, len(sigmas) - 1)
        step = min(steps - 1, int((sigmas - options["sigmas"].max().to(sigmas)).abs().argmin()))
    window = (options.get(TOLD_KEY) or {}).get("sub_idxs")
    guided = options.get(GUIDED_KEY, True)
    return PassInputs(roles, x, timesteps, conditioning, step, steps, window=None if window is None else tuple(window), guided=guided)


def tell_guided(executor: Any, model: Any, conditionings: Sequence[Any], x: Tensor, timestep: Tensor, options: dict[str, Any]) -> Any:
    """Wraps core's evaluation of a step's conditionings: passes are told whether there are several (:data:`GUIDED_KEY`)."""
    guided = sum(each is not None for each in conditionings) > 1
    told = {**options, "transformer_options": {**options.get("transformer_options", {}), GUIDED_KEY: guided}}
    return executor(model, conditionings, x, timestep, told)


def with_hooks(model: Any, *factories: HookFactory) -> Any:
    """A clone of a MODEL with further hooks."""
    clone = model.clone()
    options = clone.model_options["transformer_options"]
    options[HOOKS_KEY] = (*options.get(HOOKS_KEY, ()), *factories)
    clone.remove_wrappers_with_key(WrappersMP.CALC_COND_BATCH, GUIDED_KEY)
    clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, GUIDED_KEY, tell_guided)
    return clone


def hooks_of(
    options: dict[str, Any],
    control: dict[str, list[Tensor | None]] | None,
    x: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    role: Tensor | None = None,
) -> Hooks | None:
    """The hooks of one pass over videos ``[n, c, t, h, w]``: ComfyUI's patches, then those of :data:`HOOKS_KEY`; None if there are none.

    Args:
        options: ComfyUI's ``transformer_options``; they are not changed.
        control: the residuals of ControlNets and T2I adapters under ``input``, ``middle`` and ``output``, the first block's last.
        role: ``[n]``, see :func:`role_of`.

    Raises:
        ValueError: patches of a kind for other networks.
    """
    factories: Sequence[HookFactory] = options.get(HOOKS_KEY, ())
    made: list[Hooks | None] = [_patch_hooks(options, control, x)]
    if factories:  # only then: the roles and the number of the step are read, for which a GPU is waited for
        inputs = pass_inputs(options, x, timesteps, conditioning, role)
        made += [factory(inputs) for factory in factories]
    return combine([each for each in made if each is not None])


def _patch_hooks(
    transformer_options: dict[str, Any], control: dict[str, list[Tensor | None]] | None, x: Tensor
) -> Hooks | None:
    patches, replacements = transformer_options.get("patches", {}), transformer_options.get("patches_replace", {})
    foreign = [kind for kind in FOREIGN_PATCHES if patches.get(kind)]
    foreign += [kind for kind in FOREIGN_REPLACEMENTS if replacements.get(kind)]
    if foreign:
        raise ValueError(
            f"A node patches the model at {', '.join(foreign)}, which VideoCrafter's UNet doesn't have: the node is for another kind of "
            "model, such as a diffusion transformer. Remove it; nodes for Stable Diffusion's UNet work."
        )
    patched = control is not None or any(patches.get(kind) for kind in (*BLOCK_PATCHES, *ATTENTION_PATCHES))
    if not patched and not any(replacements.get(kind) for kind in REPLACEMENTS):
        return None
    videos, channels, frames, height, width = x.shape
    return ComfyHooks({**transformer_options, "original_shape": [videos * frames, channels, height, width]}, control or {})


class ComfyHooks(Hooks):
    """ComfyUI's patches and ControlNets in one pass through the UNet."""

    def __init__(self, options: dict[str, Any], control: dict[str, list[Tensor | None]]) -> None:
        self.options = options
        self.patches: dict[str, list[Callable[..., Any]]] = options.get("patches", {})
        self.replacements: dict[str, dict[tuple[Any, ...], Callable[..., Tensor]]] = options.get("patches_replace", {})
        self.residuals = control
        #: Rows of one conditioning.
        self.rows = options["original_shape"][0] // len(options.get("cond_or_uncond", [0]))

    def spatial(self, site: Site) -> SpatialHooks | None:
        block = (site.part, site.block)
        self.options |= {
            "block": block, "block_index": site.depth, "transformer_index": site.transformer, "activations_shape": list(site.shape),
        }
        replaced = {}
        for kind in REPLACEMENTS:
            by_block = self.replacements.get(kind, {})
            if found := by_block.get((*block, site.depth), by_block.get(block)):
                replaced[kind] = found
        if not replaced and not any(self.patches.get(kind) for kind in ATTENTION_PATCHES):
            return None
        options = {name: value for name, value in self.options.items() if name not in ("patches", "patches_replace")}
        return ComfySpatialHooks(self.patches, replaced, options)

    def after_input_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        self.options["block"] = ("input", number)
        hidden = self._controlled("input", number, hidden)
        for patch in self.patches.get("input_block_patch", ()):
            hidden = patch(hidden, self.options)
        skip = hidden
        for patch in self.patches.get("input_block_patch_after_skip", ()):
            hidden = patch(hidden, self.options)
        return hidden, skip

    def after_middle_block(self, hidden: Tensor) -> Tensor:
        self.options["block"] = ("middle", 0)
        return self._controlled("middle", 0, hidden)

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        self.options["block"] = ("output", number)
        skip = self._controlled("output", number, skip)
        for patch in self.patches.get("output_block_patch", ()):
            hidden, skip = patch(hidden, skip, self.options)
        return hidden, skip

    def _controlled(self, name: str, number: int, hidden: Tensor) -> Tensor:
        """The activations plus the residual of a block; the first block's residual is stored last."""
        residuals = self.residuals.get(name, [])
        residual = residuals[-1 - number] if number < len(residuals) else None
        if residual is None:
            return hidden
        if residual.shape[1:] != hidden.shape[1:] or len(residual) != 1 and len(residual) % self.rows:
            part, number = self.options["block"]
            raise ValueError(
                f"The ControlNet (or T2I adapter) gives {list(residual.shape)} for {part} block {number}; the model needs "
                f"{list(hidden.shape)} (rows, channels, height, width). Use one made for Stable Diffusion 2.1. If only height or width "
                "differ, use a video whose width and height are multiples of 64, and no node that downscales activations."
            )
        if len(residual) not in (1, len(hidden)):
            # A T2I adapter reuses its result, equal for all conditionings, in passes with more or fewer conditionings.
            residual = residual[torch.arange(len(hidden), device=residual.device) % len(residual)]
        return hidden + residual.to(hidden)


class ComfySpatialHooks(SpatialHooks):
    """ComfyUI's patches in one block of a spatial transformer.

    Args:
        replaced: functions that replace the attention function, by the layer's name.
        options: ``transformer_options`` without the patches.
    """

    def __init__(
        self, patches: dict[str, list[Callable[..., Any]]], replaced: dict[str, Callable[..., Tensor]], options: dict[str, Any]
    ) -> None:
        self.patches, self.replaced, self.options = patches, replaced, options

    def self_attention(self, layer: SelfAttention, x: Tensor, attention: Attention | None) -> Tensor:
        self._describe(layer)
        x, keys, values = self._inputs("attn1_patch", x, x)
        return self._output("attn1_output_patch", layer(x, keys, values, self._replaced("attn1") or attention))

    def between(self, x: Tensor) -> Tensor:
        return self._output("middle_patch", x)

    def cross_attention(
        self, layer: CrossAttention, x: Tensor, streams: list[ContextStream], attention: Attention | None
    ) -> Tensor:
        self._describe(layer)
        text, *others = streams
        tokens = text.tokens
        if self.patches.get("attn2_patch") or "attn2" in self.replaced:
            # The core has one row of text per video; a patch expects one per frame.
            tokens = tokens.repeat_interleave(len(x) // len(tokens), dim=0)
        x, tokens, values = self._inputs("attn2_patch", x, tokens)
        text = replace(text, tokens=tokens, value_tokens=values, attention=self._replaced("attn2"))
        return self._output("attn2_output_patch", layer(x, [text, *others], attention))

    def _describe(self, layer: SelfAttention | CrossAttention) -> None:
        self.options |= {"n_heads": layer.heads, "dim_head": layer.head_channels, "attn_precision": None}

    def _inputs(self, kind: str, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inputs of the projections to queries, keys and values."""
        keys = values = context
        for patch in self.patches.get(kind, ()):
            x, keys, values = patch(x, keys, values, self.options)
        return x, keys, values

    def _replaced(self, name: str) -> Attention | None:
        replacement = self.replaced.get(name)
        if replacement is None:
            return None
        return lambda q, k, v, heads: replacement(q, k, v, self.options)

    def _output(self, kind: str, x: Tensor) -> Tensor:
        for patch in self.patches.get(kind, ()):
            x = patch(x, self.options)
        return x


def check_controlnet(control: Any, context_dim: int) -> None:
    """Check a ControlNet before the run, since later errors would be less clear.

    Args:
        control: a ControlNet of ComfyUI's; those chained to it are checked too.
        context_dim: width of the model's text tokens.

    Raises:
        ValueError: a ControlNet for text of another width, or a Control-LoRA.
    """
    for each in chain(control):
        if hasattr(each, "control_weights"):
            raise ValueError(
                "A Control-LoRA is completed by the weights of the image model it was made for, which a VideoCrafter model doesn't have: "
                "use a complete ControlNet for Stable Diffusion 2.1."
            )
        network = getattr(each, "control_model", None)
        widths = {layer.in_features for name, layer in network.named_modules() if name.endswith("attn2.to_k")} if network else set()
        if widths - {context_dim}:
            raise ValueError(
                f"The ControlNet reads text of width {max(widths)}, but the model's is {context_dim} wide: it was made for another base "
                "model (768 is Stable Diffusion 1.5, 2048 is SDXL). Use one for Stable Diffusion 2.1."
            )


def chain(control: Any) -> Iterable[Any]:
    """A ControlNet of ComfyUI's, and those chained to it."""
    while control is not None:
        yield control
        control = control.previous_controlnet
