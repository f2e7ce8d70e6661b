"""Nodes that sample as the authors do."""

from __future__ import annotations

from typing import Any

import comfy.sample
import latent_preview
import node_helpers
from comfy_api.latest import io

from ..vc_core.config import SPACINGS
from ..vc_core.diffusion.samplers import seeded_noise
from .bridge.frames import FRAMES_KEY, frames_per_video, unfold
from .bridge.guidance import PictureGuider, with_guidance_rescale
from .bridge.sampling import DDIMSampler, ScaledModelSampling, authors_sigmas
from .bridge.schema import advanced, schema

STEPS_TOOLTIP = "The authors use 50. As theirs, the schedule can hold more than asked for (30 gives 31 where it is uniform)."


def spacing_input() -> io.Combo.Input:
    """How the visited timesteps are spaced."""
    return io.Combo.Input(
        "spacing", options=["auto", *SPACINGS], default="auto", optional=True,
        tooltip="How the steps are spaced: auto is as the model's authors do it, uniform for most, uniform_trailing for DynamiCrafter at "
        "512 and 1024.",
    )  # fmt: skip


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
                    tooltip="How strongly the prompt is followed. The authors use 12, for DynamiCrafter 7.5; 1 is no guidance and twice "
                    "as fast.",
                ),
                io.Float.Input(
                    "eta", default=1.0, min=0.0, max=1.0, step=0.05, round=0.01,
                    tooltip="Noise added at every step: the authors use 1; at 0 only the start decides.",
                ),
                advanced(
                    io.Float.Input(
                        "guidance_rescale", default=0.0, min=0.0, max=1.0, step=0.05, round=0.01,
                        tooltip="Takes back the contrast that strong guidance adds: 0 not at all, 1 wholly. DynamiCrafter's authors use "
                        "0.7 at 512 and 1024.",
                    )
                ),
                io.Float.Input(
                    "denoise", default=1.0, min=0.01, max=1.0, step=0.01,
                    tooltip="Less than 1 keeps so much of the latent that is given (video to video).",
                ),
                advanced(spacing_input()),
            ],  # fmt: skip
            outputs=[io.Latent.Output(tooltip="The sampled video, for VAEDecode or VideoCrafter Decode.")],
        )

    @classmethod
    def execute(
        cls, model: Any, positive: Any, negative: Any, latent_image: dict[str, Any], seed: int, steps: int, cfg: float, eta: float,
        guidance_rescale: float, denoise: float, spacing: str = "auto",
    ) -> io.NodeOutput:  # fmt: skip
        sigmas = authors_sigmas(schedule_of(model), steps, denoise, spacing)
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
                spacing_input(),
            ],
            outputs=[io.Sigmas.Output(tooltip="Falling, with a 0 at the end.")],
        )

    @classmethod
    def execute(cls, model: Any, steps: int, denoise: float, spacing: str = "auto") -> io.NodeOutput:
        return io.NodeOutput(authors_sigmas(schedule_of(model), steps, denoise, spacing))


class VideoCrafterGuider(io.ComfyNode):
    """Guidance by the picture apart from that by the text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterGuider",
            display_name="VideoCrafter Guider",
            category="VideoCrafter",
            description=(
                "Guides by the text and by the picture apart, for SamplerCustomAdvanced: one of them can be followed strongly and the "
                "other less. It takes three passes a step where others take two."
            ),
            search_aliases=["guider", "dual cfg", "image guidance", "multi cond cfg", "dynamicrafter", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="An image-to-video model of the family."),
                io.Conditioning.Input("positive", tooltip="With the picture, from VideoCrafter Image to Video or Interpolation."),
                io.Conditioning.Input("negative", tooltip="With the empty picture, from the same node."),
                io.Float.Input(
                    "cfg", default=7.5, min=0.0, max=100.0, step=0.5, round=0.01, tooltip="How strongly the prompt is followed."
                ),
                io.Float.Input(
                    "image_cfg", default=7.5, min=0.0, max=100.0, step=0.5, round=0.01,
                    tooltip="How strongly the picture is followed. Where it is cfg too, this is the usual guidance.",
                ),
                io.Float.Input(
                    "guidance_rescale", default=0.0, min=0.0, max=1.0, step=0.05, round=0.01,
                    tooltip="Takes back the contrast that strong guidance adds: 0 not at all, 1 wholly.",
                ),
            ],  # fmt: skip
            outputs=[io.Guider.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls, model: Any, positive: Any, negative: Any, cfg: float, image_cfg: float, guidance_rescale: float
    ) -> io.NodeOutput:
        schedule_of(model)
        guider = PictureGuider(model)
        guider.set_conds(positive, negative)
        guider.set_guidance(cfg, image_cfg, guidance_rescale)
        return io.NodeOutput(guider)
