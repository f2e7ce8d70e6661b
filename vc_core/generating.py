"""The command ``generate``: everything that can be known is checked before a model is loaded."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .adapters.table import ADAPTERS, AdapterKind, identify_adapter
from .checkpoint import open_checkpoint
from .checkpoint.convert import DTYPE_NAMES
from .config import ModelConfig
from .console import option, say
from .controlling import EDITED_STEPS, Motion, read_motion, with_motion
from .diffusion.freeinit import noising_timestep
from .diffusion.initial_noise import LatentStatistics, read_statistics
from .diffusion.schedule import Schedule
from .errors import InputError
from .family.model_file import ModelFile
from .loading import load
from .lora.merging import with_loras
from .media.clip import MOST_PLAYS
from .media.depth import check_depth_count, depth_of_frames
from .media.images import read_image
from .media.video import check_target, read_video, save_video
from .motion_clip import with_clip_motion
from .number_schedule import numbers_over_time
from .parallel.split import Split
from .parallel.world import World, joined, under_torchrun
from .pipeline import VideoModel
from .prompt_schedule import Prompt, read_schedule
from .sampling import Sampling, check_size, suggested_size
from .style_options import StyleWish, check_style_options, read_style

#: What a strength of depth can be.
DEPTH_STRENGTHS = (0.0, 1.0)


@dataclass(frozen=True)
class Inputs:
    """The pictures of a run: ``[3, H, W]``, and videos ``[1, 3, T, H, W]``, all in [-1, 1]; and the statistics for its noise."""

    image: Tensor | None
    end_image: Tensor | None
    video: Tensor | None
    #: An image for every frame.
    frames: Tensor | None = None
    statistics: LatentStatistics | None = None
    #: A depth map of every frame, ``[1, 1, T, H, W]`` in any range, with its range and the strength of each frame.
    depth: Tensor | None = None
    depth_range: str = "clip"
    depth_strength: str = "1"
    style: StyleWish | None = None

    def settings(self, config: ModelConfig, given: Mapping[str, object]) -> dict[str, object]:
        """The size and the number of frames that the pictures suggest, where the user gives none."""
        suggested: dict[str, object] = {}
        if self.image is not None and given["height"] is None and given["width"] is None:
            suggested["width"], suggested["height"] = suggested_size(config.sampling, self.image.shape[2], self.image.shape[1])
        each_frame = self.depth if self.frames is None else self.frames
        if each_frame is not None and given["frames"] is None and self.video is None:
            suggested["frames"] = each_frame.shape[2]
        return suggested


@dataclass(frozen=True)
class Given:
    """The files that clips are made with: a model, the kinds of the adapters beside it, and whether it has an image tower."""

    file: ModelFile
    adapters: tuple[AdapterKind, ...]
    has_image_encoder: bool

    @classmethod
    def of(cls, file: ModelFile, adapters: Sequence[Path], image_encoder: Path | None) -> Given:
        """Read what the adapters are.

        Raises:
            CheckpointError: one can't be read, or is none.
        """
        kinds = tuple(identify_adapter(open_checkpoint(path)) for path in adapters)
        return cls(file, kinds, image_encoder is not None or "image_encoder" in file.parts)

    @property
    def moves(self) -> bool:
        """Whether there is an adapter for cameras or paths."""
        return self.file.added is not None or any(kind is not ADAPTERS["style"] for kind in self.adapters)


@dataclass(frozen=True)
class Plan:
    """What one clip is made from, checked against its model.

    Attributes:
        prompts: the prompt and the negative prompt.
        loop: the clip ends with the image that it starts with.
        drops_last: the last frame, which repeats the first of a loop, is left out, as the authors' scripts do.
        motion: the paths of the camera and of objects.
        text: the prompt without its schedule, in which FreeTraj looks for its subject.
    """

    inputs: Inputs
    settings: Sampling
    prompts: tuple[Prompt, Prompt]
    loop: bool
    drops_last: bool
    motion: Motion = Motion()
    text: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.settings.height, self.settings.width


def generate(arguments: argparse.Namespace) -> None:
    """Make a video from a prompt, and from images if there are any, and save it.

    Under torchrun all processes make it together, and the first one writes it.
    """
    if arguments.split is None:
        if under_torchrun():
            raise InputError("torchrun started several processes, which would all write the same video: give --split, or use batch.")
        _generate(arguments, None)
        return
    with joined(torch.device(arguments.device).type) as world:
        arguments.device = world.device(str(arguments.device))
        _generate(arguments, world)


def _generate(arguments: argparse.Namespace, world: World | None) -> None:
    leads = world is None or world.leads
    check_options(arguments)
    check_target(arguments.output, format=arguments.format, crf=arguments.crf)
    inputs = read_inputs(arguments)
    file = ModelFile.open(arguments.model, arguments.config, arguments.base)
    plan = planned(arguments, Given.of(file, arguments.adapter, arguments.image_encoder), inputs)
    height, width = plan.size
    check_target(arguments.output, width, height, plan.settings.playback_fps, arguments.format)
    file = with_loras(file, arguments.lora, say if leads else None)
    tower = arguments.image_encoder
    model = load(file, None, arguments.device, DTYPE_NAMES[arguments.dtype], arguments.adapter, image_encoder=tower)
    if world is not None:
        model.split = Split.of(arguments.split, world, model.unet)
    with tqdm(desc="sampling", unit="step", disable=not leads) as bar:

        def advance(step: int, total: int, *_: object) -> None:
            bar.total = total
            bar.update()

        frames = make(model, plan, plan.settings.changed(callback=advance))
    if not leads:
        return
    look = (arguments.format, arguments.crf, arguments.ping_pong, arguments.loop_count)
    save_video(frames, arguments.output, plan.settings.playback_fps, *look)
    say(str(arguments.output))


def planned(arguments: argparse.Namespace, files: Given, inputs: Inputs) -> Plan:
    """The clip that options ask of a model. The options have been through :func:`check_options`.

    Raises:
        InputError: as :func:`check_run`, or a setting, a prompt schedule or a path that can't be.
    """
    given, config = given_settings(arguments), files.file.config
    settings = Sampling.of(config, **(given | inputs.settings(config, given)), initial_noise=inputs.statistics)
    check_run(config, settings, inputs, given, loop=arguments.loop)
    settings = with_clip_motion(arguments, settings, config, inputs.video)
    if inputs.video is not None:
        settings = settings.changed(frames=inputs.video.shape[2], height=inputs.video.shape[3], width=inputs.video.shape[4])
    steps = EDITED_STEPS if arguments.trajectory_steps is None else arguments.trajectory_steps
    motion = read_motion(arguments.camera, arguments.trajectory, arguments.subject, settings, steps)
    motion.check(config, files.moves)
    if inputs.style is not None:
        inputs.style.check(config, files.adapters, files.has_image_encoder)
    prompt: Prompt = arguments.prompt
    if arguments.prompt_schedule is not None:
        prompt = read_schedule(arguments.prompt_schedule, arguments.prompt, interpolation=arguments.prompt_interpolation or "linear")
        prompt.mixes(settings.frames)  # which checks its keys
    drops_last = arguments.loop and not arguments.keep_last_frame
    return Plan(inputs, settings, (prompt, arguments.negative_prompt), arguments.loop, drops_last, motion, arguments.prompt)


def make(model: VideoModel, plan: Plan, sampling: Sampling | None = None) -> Tensor:
    """The clip ``[3, T, H, W]`` in [-1, 1].

    Args:
        sampling: in place of the plan's settings, such as with a callback.
    """
    inputs, prompts = plan.inputs, plan.prompts
    run = with_motion(model, sampling or plan.settings, plan.motion, plan.text)
    if inputs.style is not None:
        run = run.changed(hooks=[*run.hooks, inputs.style.of(model)])
    if inputs.frames is not None:
        clips = model.frames_to_video(inputs.frames, *prompts, sampling=run)
    elif inputs.depth is not None:
        strength = numbers_over_time(inputs.depth_strength, inputs.depth.shape[2], *DEPTH_STRENGTHS, "--depth-strength")
        clips = model.depth_to_video(inputs.depth, *prompts, inputs.depth_range, strength, inputs.video, run)
    elif inputs.image is None:
        clips = model.text_to_video(*prompts, video=inputs.video, sampling=run)
    else:
        clips = model.image_to_video(
            inputs.image, *prompts, end_image=inputs.end_image, loop=plan.loop, video=inputs.video, sampling=run
        )
    return clips[0][:, :-1] if plan.drops_last else clips[0]


def given_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """The settings of :class:`Sampling` that options give, by name; None for the others.

    Raises:
        InputError: a value that can't be for any model.
    """
    given = {each.name: getattr(arguments, each.name, None) for each in sampling_options()}
    Sampling().changed(**given)
    return given


def sampling_options() -> list[Field[Any]]:
    """The fields of :class:`Sampling` that are options of the command line."""
    return [each for each in fields(Sampling) if "help" in each.metadata]


def in_options(message: str) -> str:
    """A message about settings with the options in place of their names in Python: ``--fps is inf`` for ``fps is inf``."""
    names = {each.name: option(each.name) for each in sampling_options()} | {"blocks": "--deep-cache-blocks"}
    pattern = rf"(?<![-\w.])(?:({'|'.join(names)})(?= is )|(start_timestep)\b)"
    return re.sub(pattern, lambda match: names[match[1] or match[2]], message)


def check_options(arguments: argparse.Namespace) -> None:
    """Check options, each alone and all together, without their files.

    Raises:
        InputError: a value that can't be for any model, or options that don't go together.
    """
    given_settings(arguments)
    image, end_image, video, loop = arguments.image, arguments.end_image, arguments.video, arguments.loop
    _check_beside_frames(arguments)
    _check_motion(arguments)
    check_style_options(arguments)
    denoise = getattr(arguments, "denoise", 1.0)
    has_size = any(hasattr(arguments, name) for name in ("frames", "height", "width"))
    checks = (
        (image is None and (end_image is not None or loop), "--end-image and --loop need a first image: give --image."),
        (end_image is not None and loop, "A loop ends with the image that it starts with: give --loop or --end-image, not both."),
        (
            arguments.prompt_interpolation is not None and arguments.prompt_schedule is None,
            "--prompt-interpolation mixes the prompts of a schedule: give --prompt-schedule.",
        ),
        (not 0 <= arguments.loop_count <= MOST_PLAYS, f"--loop-count is {arguments.loop_count}; it must be 0 to {MOST_PLAYS}."),
        (arguments.keep_last_frame and not loop, "--keep-last-frame is for --loop; other videos have their last frame in any case."),
        (video is not None and has_size, "--video decides the number of frames and the size: leave --frames, --height and --width out."),
        (
            video is None and denoise < 1,
            f"--denoise is {denoise:g}, but there is no video to start from: give --video, or leave --denoise out.",
        ),
        (video is not None and denoise >= 1, "--video needs --denoise below 1, such as 0.6; at 1 nothing of the video is kept."),
    )
    for wrong, message in checks:
        if wrong:
            raise InputError(message)


def _check_motion(arguments: argparse.Namespace) -> None:
    steps: int | None = arguments.trajectory_steps
    if arguments.trajectory is None and (arguments.subject or steps is not None):
        raise InputError("--subject and --trajectory-steps are of a path: give --trajectory.")
    if steps is not None and not 0 <= steps <= 1000:
        raise InputError(f"--trajectory-steps is {steps}; it must be 0 to 1000.")
    if arguments.camera is None and getattr(arguments, "camera_guidance_scale", None) is not None:
        raise InputError("--camera-guidance-scale is of a camera's path: give --camera.")


def _check_beside_frames(arguments: argparse.Namespace) -> None:
    images = {"--image": arguments.image, "--end-image": arguments.end_image, "--loop": arguments.loop or None}
    beside = [name for name, value in ({"--video": arguments.video, "--depth": arguments.depth} | images).items() if value is not None]
    if arguments.frame_images is not None and beside:
        raise InputError(f"--frame-images has an image for every frame of the video: leave {' and '.join(beside)} out.")
    beside = [name for name, value in images.items() if value is not None]
    if arguments.depth is not None and beside:
        raise InputError(f"--depth is for models that take a depth map of every frame and no image: leave {' and '.join(beside)} out.")
    if arguments.depth is None and (arguments.depth_range or arguments.depth_strength):
        raise InputError("--depth-range and --depth-strength are of depth maps: give --depth.")


def read_inputs(arguments: argparse.Namespace) -> Inputs:
    """The first image, the last image, the videos and the statistics."""
    image, end_image = (None if path is None else read_image(path) for path in (arguments.image, arguments.end_image))
    video, frames = (None if path is None else read_video(path)[None] for path in (arguments.video, arguments.frame_images))
    statistics = None if arguments.initial_noise is None else read_statistics(arguments.initial_noise)
    depth = None if arguments.depth is None else depth_of_frames(read_video(arguments.depth)[None])
    return Inputs(
        image, end_image, video, frames, statistics, depth, arguments.depth_range or "clip", arguments.depth_strength or "1",
        read_style(arguments),
    )


def check_run(config: ModelConfig, settings: Sampling, inputs: Inputs, given: Mapping[str, object], loop: bool) -> None:
    """Check a run against its model.

    Raises:
        InputError: pictures or settings that the model has no use for, a picture that it needs, or a size or a number of steps that
            it can't make.
    """
    ends = loop or inputs.end_image is not None
    _check_frames(config, settings, inputs)
    _check_depth(config, settings, inputs)
    if inputs.frames is None:
        _check_place(config, None if inputs.image is None else "ends" if ends else "first")
    if ends and settings.frames < 2 and inputs.video is None:
        raise InputError(f"--frames is {settings.frames}; a video that ends with an image has at least 2.")
    if given["image_guidance_scale"] is not None and not config.unet.image_attention:
        raise InputError(f"{config.title} takes no image: leave --image-guidance-scale out.")
    factor = config.downscale
    if inputs.video is not None:
        height, width = inputs.video.shape[-2:]
        if height % factor or width % factor:
            raise InputError(f"--video is {width}x{height} pixels; both sides must be multiples of {factor}: scale or cut it first.")
    else:
        check_size(settings.height, settings.width, factor)
    _check_schedule(config, settings, inputs.video)


def _check_frames(config: ModelConfig, settings: Sampling, inputs: Inputs) -> None:
    if inputs.frames is None:
        return
    _check_place(config, "frames")
    count = inputs.frames.shape[2]
    if count != settings.frames:
        raise InputError(
            f"--frame-images has {count} frame{'s' * (count > 1)}, but --frames is {settings.frames}: there must be an image for every "
            "frame. Leave --frames out, or cut the video."
        )


def _check_depth(config: ModelConfig, settings: Sampling, inputs: Inputs) -> None:
    if config.unet.takes_depth and inputs.depth is None:
        raise InputError(f"{config.title} makes videos from a depth map of every frame: give a video file of them as --depth.")
    if inputs.depth is None:
        return
    if not config.unet.takes_depth:
        raise InputError(f"{config.title} takes no depth maps: leave --depth out, or take a model that does, such as make_your_video_v1.")
    check_depth_count(inputs.depth, settings.frames if inputs.video is None else inputs.video.shape[2])
    numbers_over_time(inputs.depth_strength, inputs.depth.shape[2], *DEPTH_STRENGTHS, "--depth-strength")


def _check_schedule(config: ModelConfig, settings: Sampling, video: Tensor | None) -> None:
    schedule = Schedule.from_config(config.schedule)
    visited = schedule.visited(settings.steps, settings.spacing, settings.denoise, settings.original_steps, settings.start_timestep)
    if settings.freeinit_iterations > 1:
        noising_timestep(schedule, int(visited[-1]))
    if settings.initial_noise is not None and video is None:
        sides = settings.height // config.downscale, settings.width // config.downscale
        settings.initial_noise.check((1, config.unet.out_channels, settings.frames, *sides))


def _check_place(config: ModelConfig, place: str | None) -> None:
    title = config.title
    problems = {
        "no image taken": f"{title} takes no image: leave --image out, or take an image-to-video model.",
        "no image given": f"{title} makes videos from an image: give --image.",
        "no end taken": f"{title} can't end a video with an image: leave --end-image and --loop out, or take a model for interpolation.",
        "no end given": f"{title} joins two images: give --end-image, or --loop.",
        "no frames taken": f"{title} takes no image for every frame: leave --frame-images out, or take a model such as viewcrafter_25_v1.",
        "no frames given": f"{title} takes an image for every frame: give them as --frame-images.",
    }
    if problem := config.image_problem(place):
        raise InputError(problems[problem])
