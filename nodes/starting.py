"""Nodes for the noise that sampling starts from."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..vc_core.diffusion.freeinit import FreeInit
from ..vc_core.diffusion.frequency import FILTERS, LowPass
from ..vc_core.diffusion.initial_noise import read_statistics
from .bridge.freeinit import FreeInitSampler
from .bridge.initial_noise import NONE, InitialNoise, files, path_of
from .bridge.sampling import below_whole, schedule_of
from .bridge.schema import advanced, checked_inputs, schema


class VideoCrafterInitialNoise(io.ComfyNode):
    """The core's noise as a NOISE, drawn by statistics of the training's clips."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterInitialNoise",
            display_name="VideoCrafter Initial Noise",
            category="VideoCrafter",
            description="The noise that a video starts from, for a start_timestep below 1000: drawn by the mean and the variance of the "
            "training's latents (analytic initial noise), so that the start looks like one of training. For VideoCrafter Sampler or "
            "SamplerCustomAdvanced.",
            search_aliases=["analytic init", "init noise", "ddpm_from", "noise", "conditional image leakage", "cil", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A VideoCrafter or DynamiCrafter model. Its noise schedule is used."),
                io.Combo.Input(
                    "statistics", options=files(), default=NONE,
                    tooltip="A file of statistics in models/videocrafter_initial_noise, such as the authors' initial_noise_512.pt, for "
                    "videos of one size and length. none: the usual noise.",
                ),
                io.Int.Input(
                    "noise_seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Seed of the noise. In a batch, the second video uses noise_seed + 1, and so on.",
                ),
                io.Int.Input(
                    "start_timestep", default=940, min=1, max=1000,
                    tooltip="The same as in VideoCrafter Sampler or VideoCrafter Scheduler. 1000: with DynamiCrafter 512 and 1024, "
                    "statistics change nothing there.",
                ),
            ],
            outputs=[io.Noise.Output(tooltip="The noise, for VideoCrafter Sampler or SamplerCustomAdvanced.")],
        )

    @classmethod
    def fingerprint_inputs(cls, statistics: str | None = None, **_: object) -> tuple[int, int, int] | None:
        """The file's identity, so that another file under the same name is read anew; None without a file."""
        if statistics is None or statistics == NONE:
            return None
        stat = path_of(statistics).stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    @classmethod
    @checked_inputs
    def execute(cls, model: Any, statistics: str, noise_seed: int, start_timestep: int) -> io.NodeOutput:
        schedule = schedule_of(model).schedule
        start = below_whole(start_timestep)
        schedule.check_start(start or schedule.timesteps)
        found = None if statistics == NONE else read_statistics(path_of(statistics))
        return io.NodeOutput(InitialNoise(noise_seed, found, schedule, start))


class VideoCrafterFreeInit(io.ComfyNode):
    """A SAMPLER that samples several times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterFreeInit",
            display_name="VideoCrafter FreeInit",
            category="VideoCrafter",
            description="Steadier videos, without training: the video is sampled several times, each time from noise that keeps the low "
            "frequencies of the video before. It takes as many times as long. For SamplerCustomAdvanced.",
            search_aliases=["freeinit", "free init", "temporal consistency", "flicker", "iterations", "videocrafter"],
            inputs=[
                io.Sampler.Input("sampler", tooltip="The sampler of each iteration: VideoCrafter DDIM, or any from KSamplerSelect."),
                io.Int.Input("iterations", default=3, min=1, max=50, tooltip="How often the video is sampled. 1: off. Authors: 5; 3 to 5."),
                io.Combo.Input(
                    "filter", options=list(FILTERS), default="butterworth",
                    tooltip="The form of the low-pass filter. The authors use butterworth.",
                ),
                io.Float.Input(
                    "spatial_stop", default=0.25, min=0.0, max=1.0, step=0.01,
                    tooltip="The highest frequency in space that is kept of the video before. 0: nothing. Authors: 0.25.",
                ),
                io.Float.Input(
                    "temporal_stop", default=0.25, min=0.0, max=1.0, step=0.01,
                    tooltip="The highest frequency over time that is kept of the video before. 0: nothing. Authors: 0.25.",
                ),
                io.Boolean.Input(
                    "fast", default=False,
                    tooltip="Fewer steps in the first iterations, all steps in the last one only.",
                ),
                advanced(
                    io.Int.Input(
                        "order", default=4, min=1, max=100, optional=True,
                        tooltip="Order of the butterworth filter. Higher: a sharper edge between what is kept and what is fresh.",
                    )
                ),
            ],
            outputs=[io.Sampler.Output(tooltip="The sampler with FreeInit, for SamplerCustomAdvanced.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, sampler: Any, iterations: int, filter: str, spatial_stop: float, temporal_stop: float, fast: bool, order: int = 4
    ) -> io.NodeOutput:
        settings = FreeInit(iterations, LowPass(filter, order, spatial_stop, temporal_stop), fast)
        return io.NodeOutput(FreeInitSampler(sampler, settings))
