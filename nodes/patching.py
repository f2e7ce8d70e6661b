"""Nodes that change how a model runs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..vc_core.diffusion.deep_cache import check_shallow
from .bridge.deep_cache import with_deep_cache
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
