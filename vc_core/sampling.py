"""The settings of one sampling run, the same in Python, on the command line and in the nodes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch

from .config import ORIGINAL_STEPS, SAMPLERS, SPACINGS, ModelConfig, SamplingConfig, UNetConfig
from .diffusion.freeinit import FreeInit
from .diffusion.frequency import FILTERS, LowPass
from .diffusion.guidance import CAMERA_SCHEDULES, Guidance
from .diffusion.initial_noise import LatentStatistics
from .diffusion.noise import Noise
from .diffusion.samplers import Callback
from .errors import InputError
from .models.conditioning import Conditioning
from .models.hooks import HookFactory

#: Most frames, and pixels of a side; the largest scale of guidance, its opposite the least; and the highest fps. Beyond these,
#: numbers overflow or mean nothing.
MOST_FRAMES, LARGEST_SIDE, LARGEST_SCALE, HIGHEST_FPS = 1 << 16, 1 << 16, 1000, 1000
#: Those that torch's generators take.
SEEDS = range(-(2**63), 2**64)


def _option(text: str, default: Any = None) -> Any:
    """A setting that the command line has too, with its help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Sampling:
    """The settings of one run. :meth:`of` fills in a model's own defaults.

    Attributes:
        noise: in place of the seed's.
        initial_noise: statistics by which the noise of the start is drawn, for a ``start_timestep``.
        callback: called after each step.
        hooks: make the hooks of each UNet pass, beside those of the model's adapters.
    """

    frames: int = _option("number of frames; published models: 16", 16)
    height: int = _option("height in pixels, a multiple of 8", 320)
    width: int = _option("width in pixels, a multiple of 8", 512)
    steps: int = _option("sampling steps; the uniform schedule can run more, as the authors' does (30 -> 31)", 50)
    eta: float = _option("noise added at every step, 0 (none) to 1", 1.0)
    guidance_scale: float = _option("CFG scale: how closely to follow the prompt; 1: no guidance", 12.0)
    guidance_rescale: float = _option("reduces the contrast of a high CFG scale, 0 to 1", 0.0)
    image_guidance_scale: float | None = _option("separate CFG scale of the image, with a third pass at each step; none: the CFG scale")
    style_guidance_scale: float | None = _option("separate CFG scale of the style, with a third pass at each step; none: the CFG scale")
    temporal_guidance_scale: float = _option("how far to push away from the prediction without temporal attention; 0: off", 0.0)
    camera_guidance_scale: float = _option("guidance by the camera's path, with a third pass at each step; 1: off", 1.0)
    camera_guidance_schedule: str = _option("guidance by the camera's path over the run: " + " or ".join(CAMERA_SCHEDULES), "constant")
    fps: float = _option("speed of the motion, higher is slower; not the speed of playback", 8.0)
    sampler: str = _option("sampler: ddim, or consistency for distilled models", "ddim")
    spacing: str = _option("spacing of the timesteps: " + " or ".join(SPACINGS), "uniform")
    original_steps: int = _option("for consistency spacing: steps of the solver that the model was distilled with", ORIGINAL_STEPS)
    distilled_guidance: float = _option("scale of guidance that a distilled model reads, in place of CFG; T2V-Turbo: 2 to 15", 7.5)
    motion_guidance: float = _option("scale of motion guidance that T2V-Turbo v2 reads; below 0: none", 0.05)
    motion_share: float = _option("share of the run, from its start on, in which motion guidance is not 0", 0.5)
    denoise: float = _option("denoising strength; below 1 starts from the input video, the lower, the closer to it", 1.0)
    start_timestep: int | None = _option("training timestep to start at, such as 940 of 1000: more motion from an image; none: the last")
    seed: int = _option("seed of all noise; the second video of a batch has the next seed, and so on", 0)
    deep_cache_interval: int = _option("run the full UNet every N steps; higher: faster, less exact", 1)
    deep_cache_blocks: int = _option("first and last blocks that run at every step, with a deep cache interval above 1", 3)
    freeinit_iterations: int = _option("FreeInit: how often the clip is sampled, such as 3 to 5, for steadier clips; 1: off", 1)
    freeinit_filter: str = _option("FreeInit: filter of the low frequencies: " + ", ".join(FILTERS), "butterworth")
    freeinit_order: int = _option("FreeInit: order of the butterworth filter", 4)
    freeinit_spatial_stop: float = _option("FreeInit: highest frequency in space that is kept, 0 to 1", 0.25)
    freeinit_temporal_stop: float = _option("FreeInit: highest frequency over time that is kept, 0 to 1", 0.25)
    freeinit_fast: bool = _option("FreeInit: fewer steps in the first iterations", False)
    playback_fps: float = _option("playback speed of the saved file, in frames per second", 8)
    noise: Noise | None = None
    initial_noise: LatentStatistics | None = None
    callback: Callback | None = None
    hooks: Sequence[HookFactory] = ()

    @classmethod
    def of(cls, config: ModelConfig, **changes: Any) -> Sampling:
        """A model's own settings, with changes; a change to None leaves the model's own.

        Raises:
            InputError: there is no such setting, or a value is invalid.
        """
        own = {**asdict(config.sampling), "fps": float(config.unet.default_fps)}
        return cls(**own).changed(**changes)

    def changed(self, **changes: Any) -> Sampling:
        """These settings with changes; a change to None changes nothing. The errors are those of :meth:`of`."""
        names = [each.name for each in fields(self)]
        for name in changes:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}."
                raise InputError(f"There is no setting {name!r}; {hint}")
        settings = replace(self, **{name: value for name, value in changes.items() if value is not None})
        settings.check()
        return settings

    @property
    def guidance(self) -> Guidance:
        """The scales of guidance."""
        return Guidance(
            self.guidance_scale, self.guidance_rescale, self.temporal_guidance_scale, self.image_guidance_scale,
            camera_scale=self.camera_guidance_scale, camera_schedule=self.camera_guidance_schedule, style_scale=self.style_guidance_scale,
        )

    def conditions(self, conditioning: Conditioning, config: UNetConfig) -> Conditioning:
        """A conditioning of B videos with what these settings say of fps, guidance and motion, where it has nothing of its own."""
        given: dict[str, float] = {"fps": self.fps}
        if config.guidance_embedding:
            given["guidance"] = self.distilled_guidance
        if config.motion_embedding and self.motion_guidance >= 0:
            given |= {"motion": self.motion_guidance, "motion_stop": motion_stop(self.motion_share)}
        text = conditioning.text
        rows = {name: torch.full((len(text),), float(value), device=text.device) for name, value in given.items()}
        return replace(conditioning, **{name: row for name, row in rows.items() if getattr(conditioning, name) is None})

    @property
    def freeinit(self) -> FreeInit:
        """The settings of FreeInit; one iteration where it is off."""
        low_pass = LowPass(self.freeinit_filter, self.freeinit_order, self.freeinit_spatial_stop, self.freeinit_temporal_stop)
        return FreeInit(self.freeinit_iterations, low_pass, self.freeinit_fast)

    def check(self) -> None:
        """
        Raises:
            InputError: a value is invalid.
        """
        # Bounds that depend on the model (the size's multiple, the number of steps) are checked where they are used.
        scales = (
            "guidance_scale", "image_guidance_scale", "style_guidance_scale", "temporal_guidance_scale", "camera_guidance_scale",
        )
        checks = (
            ("frames", 1 <= self.frames <= MOST_FRAMES, f"it must be at least 1 and at most {MOST_FRAMES}"),
            ("height", self.height <= LARGEST_SIDE, f"it must be at most {LARGEST_SIDE}"),
            ("width", self.width <= LARGEST_SIDE, f"it must be at most {LARGEST_SIDE}"),
            ("steps", self.steps >= 1, "it must be at least 1"),
            ("fps", 0 < self.fps <= HIGHEST_FPS, f"it must be more than 0 and at most {HIGHEST_FPS}"),
            ("denoise", 0 < self.denoise <= 1, "it must be above 0 and at most 1"),
            ("eta", 0 <= self.eta <= 1, "it must be 0 to 1"),
            ("guidance_rescale", 0 <= self.guidance_rescale <= 1, "it must be 0 to 1"),
            *((name, abs(getattr(self, name) or 0) <= LARGEST_SCALE, f"it must be {-LARGEST_SCALE} to {LARGEST_SCALE}") for name in scales),
            ("seed", self.seed in SEEDS, "it must be -2^63 to 2^64 - 1"),
            ("playback_fps", 1 <= self.playback_fps <= 1000, "it must be 1 to 1000"),
            ("deep_cache_interval", self.deep_cache_interval >= 1, "it must be at least 1, which is every step"),
            ("deep_cache_blocks", self.deep_cache_blocks >= 1, "it must be at least 1"),
            ("original_steps", 1 <= self.original_steps <= 1000, "it must be 1 to 1000"),
            ("distilled_guidance", 0 <= self.distilled_guidance <= LARGEST_SCALE, f"it must be 0 to {LARGEST_SCALE}"),
            ("motion_guidance", -1 <= self.motion_guidance <= 1, "it must be 0 to 1, or -1 for none"),
            ("motion_share", 0 <= self.motion_share <= 1, "it must be 0 to 1"),
            ("sampler", self.sampler in SAMPLERS, f"it can be {' or '.join(SAMPLERS)}"),
            ("spacing", self.spacing in SPACINGS, f"it can be {' or '.join(SPACINGS)}"),
            (
                "camera_guidance_schedule", self.camera_guidance_schedule in CAMERA_SCHEDULES, f"it can be {' or '.join(CAMERA_SCHEDULES)}",
            ),
            ("start_timestep", self.start_timestep is None or self.start_timestep >= 1, "it must be at least 1"),
            *self._freeinit_checks(),
        )
        for name, valid, possible in checks:
            if not valid:
                raise InputError(f"{name} is {getattr(self, name)!r:.40}; {possible}.")
        if self.image_guidance_scale is not None and self.style_guidance_scale is not None:
            raise InputError("image_guidance_scale and style_guidance_scale are both given; there is no guidance by both: leave one out.")
        if self.denoise < 1 and (beside := self._of_empty_starts()):
            raise InputError(f"denoise is {self.denoise:g}, but {beside} is for runs that start from no video: leave one of both out.")

    def _freeinit_checks(self) -> Iterator[tuple[str, bool, str]]:
        yield "freeinit_iterations", 1 <= self.freeinit_iterations <= 100, "it must be 1, which is off, to 100"
        yield "freeinit_filter", self.freeinit_filter in FILTERS, f"it can be {', '.join(FILTERS)}"
        yield "freeinit_order", 1 <= self.freeinit_order <= 100, "it must be 1 to 100"
        for name in ("freeinit_spatial_stop", "freeinit_temporal_stop"):
            yield name, 0 <= getattr(self, name) <= 1, "it must be 0 to 1"

    def _of_empty_starts(self) -> str:
        return "FreeInit" if self.freeinit_iterations > 1 else "" if self.initial_noise is None else "the statistics for the initial noise"


def advice(config: ModelConfig, sampler: str, steps: int, guidance_scale: float) -> list[str]:
    """Settings that make a distilled model slower or its videos worse, in sentences for the user; none for other models."""
    if not config.unet.guidance_embedding:
        return []
    own, title = config.sampling, config.title
    found = []
    if sampler != own.sampler:
        found.append(f"The sampler is {sampler}; {title} was distilled for {own.sampler} sampling.")
    if steps > 2 * own.steps:
        found.append(f"{steps} steps are set; {title} was distilled for few, such as {own.steps}: more take longer and add nothing.")
    if guidance_scale != 1:
        found.append(
            f"The CFG scale is {guidance_scale:g}; {title} reads its scale of guidance as an input. A CFG scale other than 1 guides a "
            "second time, which burns colours, and takes two passes at each step: set it to 1."
        )
    return found


def motion_stop(share: float) -> float:
    """The lowest timestep at which motion guidance acts, of the share of the 1000 timesteps at which it does."""
    return 1000 * (1 - share)


def check_size(height: int, width: int, factor: int) -> None:
    """
    Args:
        factor: the model's downscaling, see :attr:`vc_core.config.ModelConfig.downscale`.

    Raises:
        InputError: a side that is no multiple of it.
    """
    for name, value in (("height", height), ("width", width)):
        if value < factor or value % factor:
            below = max(factor, value // factor * factor)
            raise InputError(f"{name} is {value}; it must be a multiple of {factor}, such as {below} or {below + factor}.")


def suggested_size(settings: SamplingConfig, width: int, height: int) -> tuple[int, int]:
    """Width and height of a video for an image of this size: its aspect ratio, with about as many pixels as the model's own size.

    Both are multiples of 64, or of 8 where the model's own size is too small for that. Aspect ratios are limited to 1:4 and 4:1.
    """
    budget = settings.width * settings.height
    step = 64 if budget >= 256 * 256 else 8
    ratio = min(4.0, max(0.25, width / height))
    best = max(step, round((budget * ratio) ** 0.5 / step) * step)
    return best, max(step, round(budget / best / step) * step)
