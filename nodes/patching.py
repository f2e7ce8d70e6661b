"""Nodes that change how a model runs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..vc_core.diffusion.deep_cache import check_shallow
from ..vc_core.diffusion.motion import PARTS, motion_strength
from .bridge.deep_cache import with_deep_cache
from .bridge.hooks import HOOKS_KEY
from .bridge.sampling import schedule_of
from .bridge.schema import advanced, checked_inputs, schema


class VideoCrafterDeepCache(io.ComfyNode):
    """Reuses deep features from step to step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterDeepCache",
            display_name="VideoCrafter DeepCache",
            category="VideoCrafter",
            description=(
                "Speeds up sampling: the full UNet runs every few steps, the other steps run only its outer blocks "
                "and reuse the deep features. Details change a little."
            ),
            search_aliases=["deepcache", "deep cache", "speed", "faster", "feature reuse", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A model of the VideoCrafter family."),
                io.Int.Input(
                    "interval", default=3, min=1, max=50,
                    tooltip="Run the full UNet every N steps. 1: every step, nothing changes. Higher: faster, less "
                    "exact.",
                ),
                io.Int.Input(
                    "blocks", default=3, min=1, max=11,
                    tooltip="Outer blocks that run at every step: this many input blocks and as many output blocks. "
                    "The published models have 12 of each. Lower: faster, less exact. 3: the blocks at full "
                    "resolution.",
                ),
                advanced(
                    io.Float.Input(
                        "start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                        tooltip="Start of the range of steps that reuse features. 0: the first step.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                        tooltip="End of the range of steps that reuse features. 1: the last step.",
                    )
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with DeepCache, for any sampler.")],
        )

    @classmethod
    @checked_inputs
    def execute(cls, model: Any, interval: int, blocks: int, start_percent: float = 0.0, end_percent: float = 1.0) -> io.NodeOutput:
        schedule_of(model)
        check_shallow(blocks, len(model.model.diffusion_model.input_blocks))
        return io.NodeOutput(with_deep_cache(model, interval, blocks, start_percent, end_percent))


class VideoCrafterMotionStrength(io.ComfyNode):
    """Scales what the temporal layers add."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterMotionStrength",
            display_name="VideoCrafter Motion Strength",
            category="VideoCrafter",
            description="More or less motion: scales what the temporal layers of the model add. For the whole video, for each frame, or "
            "for a part of the picture.",
            search_aliases=["motion scale", "motion", "temporal", "multival", "movement", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A model of the VideoCrafter family."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.05,
                    tooltip="1: as trained, nothing changes. Below 1: calmer. 0: no temporal layers, every frame on its own. Above 1: "
                    "more motion, and soon faults; try 0.8 to 1.2 first.",
                ),
                io.Combo.Input("blocks", options=["all", *PARTS], default="all", tooltip="The blocks of the UNet that are scaled."),
                advanced(
                    io.String.Input(
                        "strengths", default="", optional=True,
                        tooltip="In place of strength: a number for each frame, such as 1, 1, 0.5. The last one stays. Empty: strength.",
                    )
                ),
                io.Mask.Input("mask", optional=True, tooltip="Where the strength holds; outside it is 1. Several masks: one for a frame."),
            ],
            outputs=[io.Model.Output(tooltip="The model with this motion, for any sampler.")],
        )

    @classmethod
    @checked_inputs
    def execute(cls, model: Any, strength: float, blocks: str, strengths: str = "", mask: Any = None) -> io.NodeOutput:
        schedule_of(model)  # which refuses other models
        chosen = _numbers(strengths) if strengths.strip() else strength
        if mask is not None and not mask.isfinite().all():
            raise ValueError("mask has values that are no numbers (NaN or infinite); a mask is 0 to 1.")
        factory = motion_strength(chosen, mask, PARTS if blocks == "all" else [blocks])
        clone = model.clone()
        options = clone.model_options["transformer_options"]
        options[HOOKS_KEY] = (*options.get(HOOKS_KEY, ()), factory)
        return io.NodeOutput(clone)


def _numbers(text: str) -> list[float]:
    """Numbers with commas or blanks between them.

    Raises:
        ValueError: something else.
    """
    try:
        numbers = [float(each) for each in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if not numbers:
        raise ValueError(f"strengths is {text!r:.80}; it must be numbers with commas between them, such as 1, 1, 0.5.")
    return numbers
