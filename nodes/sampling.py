"""Nodes that sample as the authors' code does."""

from __future__ import annotations

import logging
from typing import Any

import comfy.sample
import latent_preview
import node_helpers
from comfy_api.latest import io

from ..vc_core.config import ORIGINAL_STEPS, SPACINGS
from ..vc_core.diffusion.noise import SeededNoise
from ..vc_core.sampling import advice
from .bridge.frames import FRAMES_KEY, frames_per_video, unfold
from .bridge.guidance import ImageGuider, with_guidance_rescale
from .bridge.keyframes import check_place
from .bridge.progress_text import show
from .bridge.sampling import WHOLE, AuthorsSampler, authors_sigmas, below_whole, schedule_of
from .bridge.schema import advanced, checked_inputs, schema

STEPS_TOOLTIP = (
    "Sampling steps. T2V-Turbo: 4 to 8. All other published models: 50. Bundled models: 25. The uniform schedule can run more steps than "
    "requested, as the authors' does (30 -> 31)."
)
#: Whose settings VideoCrafter Sampler takes: the node's, or those of the model's configuration.
AS_SET, THE_MODELS, THE_MODELS_SAMPLER = "as set", "the model's", "the model's sampler"


def eta_input() -> io.Float.Input:
    """The widget for DDIM's noise."""
    return io.Float.Input(
        "eta", default=1.0, min=0.0, max=1.0, step=0.05, round=0.01,
        tooltip="Noise added at every step. All published models: 1. 0: none, the result depends on the initial noise only.",
    )


def spacing_input() -> io.Combo.Input:
    """The widget for the spacing of the timesteps."""
    return io.Combo.Input(
        "spacing", options=["auto", *SPACINGS], default="auto", optional=True,
        tooltip="Spacing of the timesteps. auto: the model's own, which is uniform_trailing for DynamiCrafter 512, 1024 "
        "and interpolation, consistency for T2V-Turbo, and uniform for all other published models.",
    )


def start_input() -> io.Int.Input:
    """The widget for the timestep that a run starts at."""
    return io.Int.Input(
        "start_timestep", default=WHOLE, min=1, max=WHOLE, optional=True,
        tooltip="The training timestep to start at. 1000: the last one, as usual. Lower, such as 940: more motion from an image with "
        "DynamiCrafter (conditional image leakage); use VideoCrafter Initial Noise with it. Not together with a denoise below 1.",
    )


class VideoCrafterSampler(io.ComfyNode):
    """The authors' sampling in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterSampler",
            display_name="VideoCrafter Sampler",
            category="VideoCrafter",
            description=(
                "Samples a video with the authors' DDIM and timesteps, or with the model's own sampler and settings. "
                "A seed gives the same video here as in vc_core without ComfyUI. KSampler works as well, with any "
                "sampler and scheduler."
            ),
            search_aliases=["videocrafter", "ksampler", "ddim", "video sampler"],
            inputs=[
                io.Model.Input("model", tooltip="A VideoCrafter or DynamiCrafter model."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The positive conditioning, from VideoCrafter Conditioning, Image to Video, "
                    "Interpolation or Keyframes.",
                ),
                io.Conditioning.Input("negative", tooltip="The negative conditioning, from the same node."),
                io.Latent.Input("latent_image", tooltip="The video latent to start from, usually an empty one."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Seed of all noise. In a batch, the second video uses seed + 1, and so on.",
                ),
                io.Int.Input("steps", default=50, min=1, max=1000, tooltip=STEPS_TOOLTIP),
                io.Float.Input(
                    "cfg", default=12.0, min=0.0, max=100.0, step=0.5, round=0.01,
                    tooltip="CFG scale: how closely the video follows the prompt. VideoCrafter: 12. DynamiCrafter: "
                    "7.5. Bundled models: 4. 1: no guidance, twice as fast; T2V-Turbo needs 1.",
                ),
                eta_input(),
                advanced(
                    io.Float.Input(
                        "guidance_rescale", default=0.0, min=0.0, max=1.0, step=0.05, round=0.01,
                        tooltip="Reduces the contrast that a high CFG scale adds. 0: off. 1: full. DynamiCrafter "
                        "512, 1024 and interpolation: 0.7. All other published models: 0.",
                    )
                ),
                io.Float.Input(
                    "denoise", default=1.0, min=0.01, max=1.0, step=0.01,
                    tooltip="Denoising strength. Below 1 starts from the input video; the lower, the closer to it.",
                ),
                advanced(spacing_input()),
                io.Combo.Input(
                    "settings", options=[AS_SET, THE_MODELS, THE_MODELS_SAMPLER], default=AS_SET, optional=True,
                    tooltip="as set: DDIM with the settings above. the model's: the sampler, steps, cfg, eta, "
                    "guidance_rescale and spacing of the model's authors, whatever is set above. the model's sampler: only the sampler and "
                    "spacing of the authors, the rest as set. Choose one of these two for T2V-Turbo, which is not sampled with DDIM.",
                ),
                advanced(start_input()),
                io.Noise.Input(
                    "noise", optional=True,
                    tooltip="The noise to start from, of VideoCrafter Initial Noise, in place of the seed's. The seed still decides the "
                    "noise of the steps.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The sampled video latent, for VideoCrafter Decode or VAEDecode.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, positive: Any, negative: Any, latent_image: dict[str, Any], seed: int, steps: int, cfg: float, eta: float,
        guidance_rescale: float, denoise: float, spacing: str = "auto", settings: str = AS_SET, start_timestep: int = WHOLE,
        noise: Any = None,
    ) -> io.NodeOutput:
        schedule, config, sampler = schedule_of(model), model.model.config, "ddim"
        own = config.sampling
        if settings == THE_MODELS:
            steps, cfg, eta, guidance_rescale = own.steps, own.guidance_scale, own.eta, own.guidance_rescale
        if settings != AS_SET:
            spacing, sampler = own.spacing, own.sampler
        cls._advise(advice(config, sampler, steps, cfg), cfg)
        sigmas = authors_sigmas(schedule, steps, denoise, spacing, own.original_steps, below_whole(start_timestep))
        frames = frames_per_video(latent_image)
        start = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
        shape = (start.shape[0] // frames, start.shape[1], frames, *start.shape[2:])
        drawn = unfold(SeededNoise(shape, seed).start) if noise is None else noise.generate_noise({**latent_image, "samples": start})
        if guidance_rescale:
            model = with_guidance_rescale(model, guidance_rescale, frames)
        samples = comfy.sample.sample_custom(
            model, drawn, cfg, AuthorsSampler(sampler, eta, frames), sigmas,
            node_helpers.conditioning_set_values(positive, {FRAMES_KEY: frames}),
            node_helpers.conditioning_set_values(negative, {FRAMES_KEY: frames}),
            start, noise_mask=latent_image.get("noise_mask"), callback=latent_preview.prepare_callback(model, len(sigmas) - 1), seed=seed,
        )
        return io.NodeOutput({**latent_image, "samples": samples})

    @classmethod
    def _advise(cls, sentences: list[str], cfg: float) -> None:
        """Warn of settings, in the log and on the node."""
        if cfg == 1:
            logging.info("VideoCrafter Sampler: cfg is 1, at which the negative conditioning is not read.")
        if sentences:
            remedy = "Choose settings: the model's; or the model's sampler, with cfg 1 and few steps of your own."
            logging.warning("VideoCrafter Sampler: %s %s", " ".join(sentences), remedy)
            show(cls, "\n".join([*sentences, remedy]))


class VideoCrafterDDIM(io.ComfyNode):
    """The authors' DDIM as a SAMPLER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterDDIM",
            display_name="VideoCrafter DDIM",
            category="VideoCrafter",
            description="The authors' DDIM as a SAMPLER for SamplerCustomAdvanced. Use it with the sigmas of "
            "VideoCrafter Scheduler or of another scheduler.",
            search_aliases=["ddim", "sampler", "videocrafter"],
            inputs=[
                eta_input(),
            ],
            outputs=[io.Sampler.Output(tooltip="The sampler, for SamplerCustomAdvanced.")],
        )

    @classmethod
    @checked_inputs
    def execute(cls, eta: float) -> io.NodeOutput:
        return io.NodeOutput(AuthorsSampler("ddim", eta))


class VideoCrafterConsistency(io.ComfyNode):
    """Consistency sampling as a SAMPLER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterConsistency",
            display_name="VideoCrafter Consistency",
            category="VideoCrafter",
            description="The consistency sampling of distilled models such as T2V-Turbo as a SAMPLER for "
            "SamplerCustomAdvanced. Use it with the sigmas of VideoCrafter Scheduler, 4 to 8 steps and cfg 1.",
            search_aliases=["turbo", "lcm", "consistency", "few steps", "sampler", "videocrafter"],
            inputs=[],
            outputs=[io.Sampler.Output(tooltip="The sampler, for SamplerCustomAdvanced.")],
        )

    @classmethod
    @checked_inputs
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(AuthorsSampler("consistency"))


class VideoCrafterScheduler(io.ComfyNode):
    """The authors' timesteps as SIGMAS."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterScheduler",
            display_name="VideoCrafter Scheduler",
            category="VideoCrafter",
            description="The sigmas at the timesteps of the authors' sampler, for SamplerCustomAdvanced.",
            search_aliases=["sigmas", "ddim_uniform", "scheduler", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A VideoCrafter or DynamiCrafter model. Its noise schedule is used."),
                io.Int.Input("steps", default=50, min=1, max=1000, tooltip=STEPS_TOOLTIP),
                io.Float.Input(
                    "denoise", default=1.0, min=0.01, max=1.0, step=0.01,
                    tooltip="Denoising strength. Below 1 runs only the last part of the schedule, for video to "
                    "video.",
                ),
                spacing_input(),
                advanced(
                    io.Int.Input(
                        "original_steps", default=ORIGINAL_STEPS, min=1, max=1000, optional=True,
                        tooltip="For consistency spacing only: the number of steps from which the model was distilled. "
                        "The T2V-Turbo demos use 200.",
                    )
                ),
                start_input(),
            ],
            outputs=[io.Sigmas.Output(tooltip="The sigmas, from high to low, with 0 at the end.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, steps: int, denoise: float, spacing: str = "auto", original_steps: int = ORIGINAL_STEPS,
        start_timestep: int = WHOLE,
    ) -> io.NodeOutput:
        return io.NodeOutput(authors_sigmas(schedule_of(model), steps, denoise, spacing, original_steps, below_whole(start_timestep)))


class VideoCrafterGuider(io.ComfyNode):
    """Separate guidance by the prompt and by the image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterGuider",
            display_name="VideoCrafter Guider",
            category="VideoCrafter",
            description=(
                "Separate CFG scales for the prompt and for the image, for SamplerCustomAdvanced. It runs the UNet "
                "three times per step instead of twice."
            ),
            search_aliases=["guider", "dual cfg", "image guidance", "multi cond cfg", "dynamicrafter", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A VideoCrafter or DynamiCrafter image-to-video model."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The positive conditioning with the image, from VideoCrafter Image to Video, "
                    "Interpolation or Keyframes.",
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip="The negative conditioning with the empty image, from the same node.",
                ),
                io.Float.Input(
                    "cfg", default=7.5, min=0.0, max=100.0, step=0.5, round=0.01,
                    tooltip="CFG scale of the prompt. DynamiCrafter: 7.5. VideoCrafter: 12.",
                ),
                io.Float.Input(
                    "image_cfg", default=7.5, min=0.0, max=100.0, step=0.5, round=0.01,
                    tooltip="CFG scale of the image. Equal to cfg: the usual guidance.",
                ),
                io.Float.Input(
                    "guidance_rescale", default=0.0, min=0.0, max=1.0, step=0.05, round=0.01,
                    tooltip="Reduces the contrast that a high CFG scale adds. 0: off. 1: full. DynamiCrafter 512, "
                    "1024 and interpolation: 0.7.",
                ),
            ],
            outputs=[io.Guider.Output(tooltip="The guider, for SamplerCustomAdvanced.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, positive: Any, negative: Any, cfg: float, image_cfg: float, guidance_rescale: float
    ) -> io.NodeOutput:
        schedule_of(model)
        for role, conditioning in (("positive", positive), ("negative", negative)):
            for _, values in conditioning:
                check_place(model.model.config, {**values, "prompt_type": role})
        guider = ImageGuider(model)
        guider.set_conds(positive, negative)
        guider.set_guidance(cfg, image_cfg, guidance_rescale)
        return io.NodeOutput(guider)
