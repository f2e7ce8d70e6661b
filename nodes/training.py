"""Nodes that train."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from .bridge.frames import fold, frames_per_video
from .bridge.model import config_of
from .bridge.schema import advanced, checked_inputs, schema
from .bridge.training import TRAINED, LoraTraining, clips_of, conditioning_of, train_lora

#: Inputs that are lists; of the others the first is taken.
LISTS = ("latents", "positive", "negative")


class VideoCrafterTrainingClips(io.ComfyNode):
    """Gives core's training clips in place of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterTrainingClips",
            display_name="VideoCrafter Training Clips",
            category="VideoCrafter",
            description=(
                "Makes each video of a latent one sample for core's Train LoRA, which would take each frame for a sample otherwise. "
                "VideoCrafter Train LoRA doesn't need it."
            ),
            search_aliases=["train lora", "dataset", "videocrafter"],
            is_input_list=True,
            inputs=[io.Latent.Input("latents", tooltip="The clips: VAEEncode of their frames. A latent, or a list of latents.")],
            outputs=[io.Latent.Output(is_output_list=True, tooltip="One latent for each clip, for core's Train LoRA.")],
        )

    @classmethod
    def execute(cls, latents: list[dict[str, Any]]) -> io.NodeOutput:
        videos = [fold(latent["samples"], frames_per_video(latent)) for latent in latents]
        return io.NodeOutput([{"samples": video[None]} for each in videos for video in each])


def _numbers() -> list[Any]:
    """The numbers of a training, as core's Train LoRA calls them."""
    return [
        io.Int.Input("steps", default=200, min=1, max=100_000, tooltip="Training steps. Each changes the LoRA once."),
        io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Clips in one pass. More take more memory."),
        io.Int.Input(
            "grad_accumulation_steps", default=4, min=1, max=1024, tooltip="Passes of a step. More make a step calmer and longer."
        ),
        io.Float.Input(
            "learning_rate", default=0.0001, min=0.0000001, max=1.0, step=0.0000001, round=False,
            tooltip="How much a step changes. Published models: 0.0001. Bundled models: 0.003.",
        ),
        io.Int.Input("rank", default=16, min=1, max=1024, tooltip="Rank of the LoRA. Higher: it can learn more, and is larger."),
        io.Int.Input(
            "seed", default=0, min=0, max=2**53, control_after_generate=True, tooltip="Seed of all that is random in the training."
        ),
    ]


class VideoCrafterTrainLora(io.ComfyNode):
    """Trains a LoRA on videos."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterTrainLora",
            display_name="VideoCrafter Train LoRA",
            category="VideoCrafter",
            description=(
                "Trains a LoRA on videos, with the authors' loss. A sample is a whole clip with its fps. Use the result with core's "
                "Load LoRA Model, and keep it with Save LoRA Weights. For large sets of files use vc-core train."
            ),
            search_aliases=["train lora", "fine-tune", "finetune", "lora training", "videocrafter"],
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="A model of the VideoCrafter family. It stays as it is."),
                io.Latent.Input("latents", tooltip="The clips: VAEEncode of their frames. A latent, or a list of latents."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The captions, with fps (VideoCrafter Conditioning) and, for image-to-video models, the image "
                    "(VideoCrafter Image to Video): one for all clips, one for each latent, or one for each clip.",
                ),
                io.Combo.Input(
                    "trained", options=list(TRAINED), default="style",
                    tooltip="style: how frames look (layers within a frame). motion: how things move (layers over time). subject: "
                    "both, attention only. all: both.",
                ),
                *_numbers(),
                io.Conditioning.Input(
                    "negative", optional=True,
                    tooltip="The empty prompt, with fps and, for image-to-video models, the empty image. It takes the place of some "
                    "captions, so that guidance works. Without it no captions are dropped.",
                ),
                advanced(
                    io.Float.Input(
                        "alpha", default=16.0, min=0.01, max=4096.0, step=0.01, optional=True,
                        tooltip="Strength of the LoRA while it is trained: alpha / rank.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "gradient_checkpointing", default=True, optional=True,
                        tooltip="Saves memory, and takes about a third longer.",
                    )
                ),
            ],
            outputs=[
                io.Custom("LORA_MODEL").Output(display_name="lora", tooltip="The LoRA, for Load LoRA Model and Save LoRA Weights."),
                io.Custom("LOSS_MAP").Output(display_name="loss_map", tooltip="The loss of each step, for Plot Loss Graph."),
                io.Int.Output(display_name="steps", tooltip="The number of steps, for Save LoRA Weights."),
            ],
        )

    @classmethod
    def execute(cls, **values: list[Any]) -> io.NodeOutput:
        return cls.train(**{name: value if name in LISTS else value[0] for name, value in values.items()})

    @classmethod
    @checked_inputs
    def train(
        cls, model: Any, latents: list[Any], positive: list[Any], trained: str, steps: int, batch_size: int, grad_accumulation_steps: int,
        learning_rate: float, rank: int, seed: int, negative: list[Any] | None = None, alpha: float = 16.0,
        gradient_checkpointing: bool = True,
    ) -> io.NodeOutput:
        config_of(model)  # refuses models of other families
        settings = LoraTraining(
            trained, steps, batch_size, grad_accumulation_steps, learning_rate, rank, alpha, seed, gradient_checkpointing
        )
        comfy.model_management.load_models_gpu([model])
        device = comfy.model_management.get_torch_device()
        losses: list[float] = []
        bar = comfy.utils.ProgressBar(steps)

        def after_step(loss: float) -> None:
            losses.append(loss)
            bar.update(1)

        with torch.inference_mode(False):
            with torch.no_grad():
                clips = clips_of(model.model, latents, positive, device)
                empty = conditioning_of(model.model, negative[0][0], clips[0].latents, device) if negative else None
            with torch.enable_grad():
                lora = train_lora(model, clips, empty, settings, after_step)
        return io.NodeOutput(lora, {"loss": losses}, steps)
