"""Nodes that sample as the authors do."""

from __future__ import annotations

from typing import Any

import comfy.sample
import latent_preview
import node_helpers
from comfy_api.latest import io

from ..vc_core.diffusion.ddim import seeded_noise
from .bridge.frames import FRAMES_KEY, frames_per_video, unfold
from .bridge.guidance import with_guidance_rescale
from .bridge.sampling import DDIMSampler, ScaledModelSampling, uniform_sigmas
from .bridge.schema import advanced, schema

STEPS_TOOLTIP = "The authors use 50. As theirs, the schedule can hold more than asked for (30 gives 31)."


def schedule_of(model: Any) -> ScaledModelSampling:
    """A model's noise schedule.

    Raises:
        ValueError: it is not a model of the family.
    """
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, ScaledModelSampling):
        raise ValueError(
            f"This node needs a VideoCrafter model with its own noise schedule; it got {type(model.model).__name__} with "
            f"{type(sampling).__name__}. Use the node Load VideoCrafter Model, and no node that changes the schedule."
        )
    return sampling


class VideoCrafterSampler(io.ComfyNode):
    """The authors' whole sampling in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterSampler",
            display_name="VideoCrafter Sampler",
            category="VideoCrafter",
            description=(
                "Samples a video as the authors do: DDIM over their timesteps, with noise added at every step. A seed gives the same "
                "video here as in vc_core without ComfyUI. KSampler works as well, with any sampler and scheduler."
            ),
            search_aliases=["videocrafter", "ksampler", "ddim", "video sampler"],
            inputs=[
                io.Model.Input("model", tooltip="A model of the VideoCrafter family."),
                io.Conditioning.Input("positive", tooltip="What is to be seen."),
                io.Conditioning.Input("negative", tooltip="What is not; the authors use the empty prompt."),
                io.Latent.Input("latent_image", tooltip="The video to start from, usually an empty one."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Decides all noise. The second video of a batch uses the next seed, and so on.",
                ),
                io.Int.Input("steps", default=50, min=1, max=1000, tooltip=STEPS_TOOLTIP),
                io.Float.Input(
                    "cfg", default=12.0, min=0.0, max=100.0, step=0.5, round=0.01,
                    tooltip="How strongly the prompt is followed. The authors use 12; 1 is no guidance and twice as fast.",
                ),
                io.Float.Input(
                    "eta", default=1.0, min=0.0, max=1.0, step=0.05, round=0.01,
                    tooltip="Noise added at every step: the authors use 1; at 0 only the start decides.",
                ),
                advanced(
                    io.Float.Input(
                        "guidance_rescale", default=0.0, min=0.0, max=1.0, step=0.05, round=0.01,
                        tooltip="Takes back the contrast that strong guidance adds: 0 not at all, 0.7 as is usual, 1 wholly.",
                    )
                ),
                io.Float.Input(
                    "denoise", default=1.0, min=0.01, max=1.0, step=0.01,
                    tooltip="Less than 1 keeps so much of the latent that is given (video to video).",
                ),
            ],  # fmt: skip
            outputs=[io.Latent.Output(tooltip="The sampled video, for VAEDecode or VideoCrafter Decode.")],
        )

    @classmethod
    def execute(
        cls, model: Any, positive: Any, negative: Any, latent_image: dict[str, Any], seed: int, steps: int, cfg: float, eta: float,
        guidance_rescale: float, denoise: float,
    ) -> io.NodeOutput:  # fmt: skip
        sigmas = uniform_sigmas(schedule_of(model), steps, denoise)
        frames = frames_per_video(latent_image)
        start = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
        shape = (start.shape[0] // frames, start.shape[1], frames, *start.shape[2:])
        noise = unfold(next(seeded_noise(shape, seed)))
        if guidance_rescale:
            model = with_guidance_rescale(model, guidance_rescale, frames)
        samples = comfy.sample.sample_custom(
            model, noise, cfg, DDIMSampler(eta, frames), sigmas,
            node_helpers.conditioning_set_values(positive, {FRAMES_KEY: frames}),
            node_helpers.conditioning_set_values(negative, {FRAMES_KEY: frames}),
            start, noise_mask=latent_image.get("noise_mask"), callback=latent_preview.prepare_callback(model, len(sigmas) - 1), seed=seed,
        )  # fmt: skip
        return io.NodeOutput({**latent_image, "samples": samples})


class VideoCrafterDDIM(io.ComfyNode):
    """The authors' DDIM as a SAMPLER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterDDIM",
            display_name="VideoCrafter DDIM",
            category="VideoCrafter",
            description="The authors' DDIM, for SamplerCustomAdvanced, with the sigmas of VideoCrafter Scheduler or any other.",
            search_aliases=["ddim", "sampler", "videocrafter"],
            inputs=[
                io.Float.Input(
                    "eta", default=1.0, min=0.0, max=1.0, step=0.05, round=0.01,
                    tooltip="Noise added at every step: the authors use 1; at 0 only the start decides.",
                ),
            ],  # fmt: skip
            outputs=[io.Sampler.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, eta: float) -> io.NodeOutput:
        return io.NodeOutput(DDIMSampler(eta))


class VideoCrafterScheduler(io.ComfyNode):
    """The authors' timesteps as SIGMAS."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterScheduler",
            display_name="VideoCrafter Scheduler",
            category="VideoCrafter",
            description="The sigmas at the timesteps that the authors' DDIM visits, for SamplerCustomAdvanced.",
            search_aliases=["sigmas", "ddim_uniform", "scheduler", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A model of the VideoCrafter family; its noise schedule is used."),
                io.Int.Input("steps", default=50, min=1, max=1000, tooltip=STEPS_TOOLTIP),
                io.Float.Input(
                    "denoise", default=1.0, min=0.01, max=1.0, step=0.01, tooltip="Less than 1 runs the last part of the schedule only."
                ),
            ],
            outputs=[io.Sigmas.Output(tooltip="Falling, with a 0 at the end.")],
        )

    @classmethod
    def execute(cls, model: Any, steps: int, denoise: float) -> io.NodeOutput:
        return io.NodeOutput(uniform_sigmas(schedule_of(model), steps, denoise))
