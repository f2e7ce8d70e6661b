"""Nodes for the style of images: StyleCrafter's adapter, and guidance by the style."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io
from torch import Tensor

from .bridge.guidance import StyleGuider
from .bridge.model import config_of
from .bridge.schema import advanced, checked_inputs, schema
from .bridge.style import FOLDER, files, load_patcher, style_features, with_style

#: What several images are.
TOGETHER, EACH_FRAME = "one style", "one for each frame"


class VideoCrafterStyle(io.ComfyNode):
    """Adds the style of images to a model, by StyleCrafter's adapter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterStyle",
            display_name="VideoCrafter Style",
            category="VideoCrafter",
            description=(
                "Gives videos the style of one or several images, with StyleCrafter's adapter for VideoCrafter1's Text2Video-512. The "
                "prompt says what the video shows."
            ),
            search_aliases=["stylecrafter", "style transfer", "reference image", "ip adapter", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="VideoCrafter1's Text2Video-512, or StyleCrafter's temporal file over it."),
                io.Combo.Input(
                    "adapter_name", options=files(),
                    tooltip=f"StyleCrafter's adapter_v1.pth, in models/{FOLDER}.",
                ),
                io.ClipVision.Input("clip_vision", tooltip="OpenCLIP ViT-H/14 from CLIPVisionLoader."),
                io.Image.Input("images", tooltip="The style images, of any size; their middle square is read."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=5.0, step=0.05, round=0.01,
                    tooltip="Strength of the style. 1: as trained. 0: off.",
                ),
                io.Combo.Input(
                    "several", options=[TOGETHER, EACH_FRAME], default=TOGETHER, optional=True,
                    tooltip="What several images are: one style together, as the authors do, or the style of one frame each.",
                ),
                advanced(
                    io.Boolean.Input(
                        "still", default=False, optional=True,
                        tooltip="For a latent of one frame: leaves out the layers over time, as the authors do for pictures.",
                    )
                ),
            ],
            outputs=[io.Model.Output(display_name="styled_model", tooltip="The model with the style.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, adapter_name: str, clip_vision: Any, images: Tensor, strength: float, several: str = TOGETHER, still: bool = False
    ) -> io.NodeOutput:
        config = config_of(model)
        if strength == 0 and not still:
            return io.NodeOutput(model)
        patcher = load_patcher(folder_paths.get_full_path_or_raise(FOLDER, adapter_name), config)
        features = style_features(clip_vision, images)
        return io.NodeOutput(with_style(model, patcher, features, strength, several == EACH_FRAME, still))


class VideoCrafterStyleGuider(io.ComfyNode):
    """Separate guidance by the prompt and by the style."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterStyleGuider",
            display_name="VideoCrafter Style Guider",
            category="VideoCrafter",
            description=(
                "Separate CFG scales for the prompt and for the style of VideoCrafter Style, for SamplerCustomAdvanced. It runs the UNet "
                "three times per step instead of twice."
            ),
            search_aliases=["stylecrafter", "style guidance", "guider", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="The model of VideoCrafter Style."),
                io.Conditioning.Input("positive", tooltip="The positive conditioning."),
                io.Conditioning.Input("negative", tooltip="The negative conditioning."),
                io.Float.Input(
                    "cfg", default=15.0, min=0.0, max=100.0, step=0.5, round=0.01, tooltip="CFG scale of the prompt. Its authors: 15."
                ),
                io.Float.Input(
                    "style_cfg", default=7.5, min=0.0, max=100.0, step=0.5, round=0.01,
                    tooltip="CFG scale of the style. Its authors: 7.5. For usual guidance by both together, use CFGGuider.",
                ),
            ],
            outputs=[io.Guider.Output(tooltip="The guider, for SamplerCustomAdvanced.")],
        )

    @classmethod
    @checked_inputs
    def execute(cls, model: Any, positive: Any, negative: Any, cfg: float, style_cfg: float) -> io.NodeOutput:
        config_of(model)
        guider = StyleGuider(model)
        guider.set_conds(positive, negative)
        guider.set_guidance(cfg, style_cfg)
        return io.NodeOutput(guider)
