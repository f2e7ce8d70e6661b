"""The node that loads LoRA files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from .bridge.lora import with_lora
from .bridge.progress_text import show
from .bridge.schema import advanced, checked_inputs, schema


class VideoCrafterLoadLora(io.ComfyNode):
    """Applies a LoRA file of any layout to a model and its text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterLoadLora",
            display_name="VideoCrafter Load LoRA",
            category="VideoCrafter",
            description=(
                "Applies a LoRA to the model and its text encoder. Reads LoRAs of VADER, VideoTuna, peft, kohya, diffusers, T2V-Turbo and "
                "this pack, shows how many layers matched and which alpha was taken, and refuses LoRAs of other models."
            ),
            search_aliases=["lora", "load lora", "lora loader", "vader", "videotuna", "t2v-turbo", "peft", "kohya", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A model of the VideoCrafter family."),
                io.Combo.Input(
                    "lora_name", options=folder_paths.get_filename_list("loras"),
                    tooltip="A LoRA file in a loras folder of ComfyUI: .safetensors, .pt or .ckpt. Reading it never runs code from it.",
                ),
                io.Float.Input(
                    "strength_model", default=1.0, min=-100.0, max=100.0, step=0.01,
                    tooltip="How much the LoRA changes the model. 1: as trained. 0: not at all. Negative values do the opposite.",
                ),
                io.Float.Input(
                    "strength_clip", default=1.0, min=-100.0, max=100.0, step=0.01,
                    tooltip="How much the LoRA changes the text encoder, if it has layers for it. Most LoRAs of this family have none.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="The text encoder. Needed only for LoRAs that change it."),
                advanced(
                    io.Float.Input(
                        "alpha", default=0.0, min=0.0, max=100000.0, step=0.5, optional=True,
                        tooltip="What the LoRA adds is multiplied by alpha / rank. 0: the alpha of the file, or of the program that wrote "
                        "it. Set it only if you know what the LoRA was trained with and the node shows another.",
                    )
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with the LoRA, for any sampler or a further LoRA."),
                io.Clip.Output(tooltip="The text encoder with the LoRA, for CLIPTextEncode."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None = None, **_: object) -> tuple[int, int, int] | None:
        """The file's identity, so that another file under the same name is loaded anew; None where the name comes by a link."""
        if lora_name is None:
            return None
        stat = lora_path(lora_name).stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, lora_name: str, strength_model: float, strength_clip: float, clip: Any = None, alpha: float = 0.0
    ) -> io.NodeOutput:
        changed, text, lora = with_lora(model, clip, lora_path(lora_name), strength_model, strength_clip, alpha or None)
        report = lora.report()
        for line in report:
            logging.info(line)
        show(cls, "\n".join(report))
        return io.NodeOutput(changed, text)


def lora_path(name: str) -> Path:
    """The file of an entry in the list of LoRAs.

    Raises:
        FileNotFoundError: there is none.
    """
    return Path(folder_paths.get_full_path_or_raise("loras", name))
