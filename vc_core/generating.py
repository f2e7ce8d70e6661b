"""The command ``generate``: everything that can be known is checked before a model is loaded."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from .adapters.table import ADAPTERS, identify_adapter
from .checkpoint import open_checkpoint
from .checkpoint.convert import DTYPE_NAMES
from .config import ModelConfig
from .console import option, say
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
from .number_schedule import numbers_over_time
from .pipeline import VideoModel
from .prompt_schedule import Prompt, read_schedule
from .sampling import Sampling, check_size, suggested_size
from .style import style_of

#: What a strength of depth can be.
DEPTH_STRENGTHS = (0.0, 1.0)
#: Most that a strength of style can be.
MOST_STYLE = 5.0


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

    def settings(self, config: ModelConfig, given: Mapping[str, object]) -> dict[str, object]:
        """The size and the number of frames that the pictures suggest, where the user gives none."""
        suggested: dict[str, object] = {}
        if self.image is not None and given["height"] is None and given["width"] is None:
            suggested["width"], suggested["height"] = suggested_size(config.sampling, self.image.shape[2], self.image.shape[1])
        each_frame = self.depth if self.frames is None else self.frames
        if each_frame is not None and given["frames"] is None and self.video is None:
            suggested["frames"] = each_frame.shape[2]
        return suggested


def generate(arguments: argparse.Namespace) -> None:
    """Make a video from a prompt, and from images if there are any, and save it."""
    given = {each.name: getattr(arguments, each.name, None) for each in sampling_options()}
    Sampling().changed(**given)  # each value alone; together with the model's own below
    check_options(arguments)
    check_target(arguments.output, format=arguments.format, crf=arguments.crf)
    inputs = read_inputs(arguments)
    file = ModelFile.open(arguments.model, arguments.config, arguments.base)
    config = file.config
    _check_adapters(arguments, file)
    settings = Sampling.of(config, **(given | inputs.settings(config, given)), initial_noise=inputs.statistics)
    check_run(config, settings, inputs, given, loop=arguments.loop)
    prompt: Prompt = arguments.prompt
    if arguments.prompt_schedule is not None:
        prompt = read_schedule(arguments.prompt_schedule, arguments.prompt, interpolation=arguments.prompt_interpolation or "linear")
        prompt.mixes(settings.frames if inputs.video is None else inputs.video.shape[2])  # which checks its keys
    height, width = (settings.height, settings.width) if inputs.video is None else inputs.video.shape[-2:]
    check_target(arguments.output, width, height, settings.playback_fps, arguments.format)
    file = with_loras(file, arguments.lora, say)
    tower = arguments.image_encoder
    model = load(file, None, arguments.device, DTYPE_NAMES[arguments.dtype], arguments.adapter, image_encoder=tower)
    if arguments.style:
        images = [read_image(path) for path in arguments.style]
        settings = settings.changed(hooks=[style_of(model, images, arguments.style_strength)])
    with tqdm(desc="sampling", unit="step") as bar:

        def advance(step: int, total: int, *_: object) -> None:
            bar.total = total
            bar.update()

        sampling, prompts = settings.changed(callback=advance), (prompt, arguments.negative_prompt)
        frames = make(model, inputs, prompts, arguments.loop, sampling)[0]
    if arguments.loop and not arguments.keep_last_frame:  # as the authors' scripts do
        frames = frames[:, :-1]
    look = (arguments.format, arguments.crf, arguments.ping_pong, arguments.loop_count)
    save_video(frames, arguments.output, settings.playback_fps, *look)
    say(str(arguments.output))


def add_style_options(make: argparse.ArgumentParser) -> None:
    """The options of a style of images."""
    text = "image whose style the video takes on, with StyleCrafter's adapter (--adapter adapter_v1.pth); several together are one style"
    make.add_argument("--style", type=Path, action="append", default=[], help=text)
    make.add_argument("--style-strength", type=float, default=1.0, help="strength of the style; 0: none")
    text = "file with the image tower that reads the style, OpenCLIP ViT-H/14's; an image-to-video model has one"
    make.add_argument("--image-encoder", type=Path, help=text)


def make(model: VideoModel, inputs: Inputs, prompts: tuple[Prompt, Prompt], loop: bool, sampling: Sampling) -> Tensor:
    """The clip ``[1, 3, T, H, W]``, by what there is of pictures."""
    if inputs.frames is not None:
        return model.frames_to_video(inputs.frames, *prompts, sampling=sampling)
    if inputs.depth is not None:
        strength = numbers_over_time(inputs.depth_strength, inputs.depth.shape[2], *DEPTH_STRENGTHS, "--depth-strength")
        return model.depth_to_video(inputs.depth, *prompts, inputs.depth_range, strength, inputs.video, sampling)
    if inputs.image is None:
        return model.text_to_video(*prompts, video=inputs.video, sampling=sampling)
    return model.image_to_video(
        inputs.image, *prompts, end_image=inputs.end_image, loop=loop, video=inputs.video, sampling=sampling
    )


def sampling_options() -> list[Field[Any]]:
    """The fields of :class:`Sampling` that are options of the command line."""
    return [each for each in fields(Sampling) if "help" in each.metadata]


def in_options(message: str) -> str:
    """A message about settings with the options in place of their names in Python: ``--fps is inf`` for ``fps is inf``."""
    names = {each.name: option(each.name) for each in sampling_options()} | {"blocks": "--deep-cache-blocks"}
    pattern = rf"(?<![-\w])(?:({'|'.join(names)})(?= is )|(start_timestep)\b)"
    return re.sub(pattern, lambda match: names[match[1] or match[2]], message)


def check_options(arguments: argparse.Namespace) -> None:
    """
    Raises:
        InputError: options that don't go together.
    """
    image, end_image, video, loop = arguments.image, arguments.end_image, arguments.video, arguments.loop
    _check_beside_frames(arguments)
    _check_style(arguments)
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


def _check_adapters(arguments: argparse.Namespace, file: ModelFile) -> None:
    kinds = [identify_adapter(open_checkpoint(path)) for path in arguments.adapter]
    if arguments.style and ADAPTERS["style"] not in kinds:
        raise InputError("--style needs StyleCrafter's adapter: give its file as --adapter adapter_v1.pth.")
    if arguments.style and arguments.image_encoder is None and "image_encoder" not in file.parts:
        raise InputError(
            f"{file.config.title} has no image tower, which reads the style: give OpenCLIP ViT-H/14's file as --image-encoder."
        )


def _check_style(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.style_strength <= MOST_STYLE:
        raise InputError(f"--style-strength is {arguments.style_strength:g}; it must be 0 to {MOST_STYLE:g}.")
    if not arguments.style and getattr(arguments, "style_guidance_scale", None) is not None:
        raise InputError("--style-guidance-scale is of a style: give --style.")


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
    return Inputs(image, end_image, video, frames, statistics, depth, arguments.depth_range or "clip", arguments.depth_strength or "1")


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
