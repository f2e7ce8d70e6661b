"""Nodes that change how a model is evaluated."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .bridge.deep_cache import with_deep_cache
from .bridge.schema import advanced, schema
from .sampling import schedule_of


class VideoCrafterDeepCache(io.ComfyNode):
    """Deep features reused from step to step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterDeepCache",
            display_name="VideoCrafter DeepCache",
            category="VideoCrafter",
            description=(
                "Fewer evaluations of the deep layers: they run whole every few steps, and in between only the shallow ones do, on what "
                "the deep ones last made. Faster, with details that differ a little."
            ),
            search_aliases=["deepcache", "deep cache", "speed", "faster", "feature reuse", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A model of the VideoCrafter family."),
                io.Int.Input(
                    "interval", default=3, min=1, max=50,
                    tooltip="Every how many evaluations one runs whole. 1 changes nothing; more is faster and less exact.",
                ),
                io.Int.Input(
                    "blocks", default=3, min=1, max=11,
                    tooltip="How many of the first and of the last blocks run every time; these models have 12 of each. Fewer is faster "
                    "and less exact; 3 are those at full resolution.",
                ),
                advanced(
                    io.Float.Input(
                        "start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                        tooltip="Where in the sampling it begins: 0 is the first step.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                        tooltip="Where in the sampling it ends: 1 is the last step.",
                    )
                ),
            ],  # fmt: skip
            outputs=[io.Model.Output(tooltip="The model, for any sampler.")],
        )

    @classmethod
    def execute(cls, model: Any, interval: int, blocks: int, start_percent: float = 0.0, end_percent: float = 1.0) -> io.NodeOutput:
        schedule_of(model)
        most = len(model.model.diffusion_model.input_blocks) - 1
        if blocks > most:
            raise ValueError(f"blocks is {blocks}; this model has {most + 1}, so it can be 1 to {most}.")
        return io.NodeOutput(with_deep_cache(model, interval, blocks, start_percent, end_percent))
