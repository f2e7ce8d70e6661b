"""The command line: ``python -m vc_core COMMAND ...``, whose commands ``--help`` lists."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from PIL import Image
from tqdm import tqdm

from . import devices
from .adapters.table import identify_adapter
from .batch import suites
from .batch.command import add_options as add_batch_options
from .batch.command import batch
from .batch.job_list import JobParser
from .batch.suites import prompts
from .checkpoint import Checkpoint, convert, open_checkpoint
from .checkpoint.convert import DTYPE_NAMES, check_target
from .config import SamplingConfig, to_yaml
from .console import accept_all_text, finish, option, say
from .errors import InputError, printable
from .evaluation import command as evaluation
from .evaluation.image_fidelity import check_matplotlib, measure
from .family.bundled import bundled_models
from .family.model_file import ModelFile
from .fetch import checkpoints_folder, fetch, published_files
from .files import check_output, replacing
from .generating import generate, in_options, sampling_options
from .loading import load
from .lora.merging import LoraSetting, with_loras
from .lora.writing import convert_lora
from .media.depth import RANGES
from .media.formats import CRF, FORMATS, WORST_CRF
from .media.images import read_image
from .media.video import SUFFIXES, read_video
from .motion_clip import add_motion_options
from .parallel.split import SPLITS
from .prompt_schedule import INTERPOLATIONS
from .style_options import add_style_options
from .training.command import add_options, train


def info(arguments: argparse.Namespace) -> None:
    """Print which model a file contains, and its parts."""
    file = ModelFile.open(arguments.model, arguments.config, arguments.base)
    say(f"{file.checkpoint.path}: {file.config.title} ({file.config.name})")
    for part, prefix in file.parts.items():
        say(f"  {part}: {_counted(file.checkpoint, prefix)}")
    adapters = [] if file.added is None else [("in the file", file.added)]
    for name, checkpoint in adapters + [(path.stem, open_checkpoint(path)) for path in arguments.adapter]:
        kind = identify_adapter(checkpoint)
        say(f"  adapter {name} ({kind.title}): {_counted(kind.own(checkpoint, file.config), kind.prefix)}")
    for line in to_yaml(file.config).splitlines():
        say(line)


def _counted(checkpoint: Checkpoint, prefix: str) -> str:
    shapes = [checkpoint.shape(name) for name in checkpoint.names() if name.startswith(prefix)]
    return f"{len(shapes)} tensors, {sum(torch.Size(shape).numel() for shape in shapes) / 1e6:.1f} million weights"


def convert_file(arguments: argparse.Namespace) -> None:
    """Write a published file as a smaller ``.safetensors`` with its configuration in the metadata, LoRAs merged or alone."""
    check_target(arguments.target)
    file = ModelFile.open(arguments.model, arguments.config, arguments.base)
    if arguments.lora_only:
        for line in convert_lora(file, arguments.lora, arguments.target, DTYPE_NAMES[arguments.dtype]):
            say(line)
        return
    file = with_loras(file, arguments.lora, say)
    wanted = {name for part in file.parts for name in file.names(part)} | set(file.added or ())
    checkpoint = file.checkpoint if file.added is None else file.checkpoint.replaced({each: file.added.stored(each) for each in file.added})
    with tqdm(desc="converting", unit="B", unit_scale=True) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = convert(
            checkpoint, arguments.target, DTYPE_NAMES[arguments.dtype], config_text=to_yaml(file.config),
            names=[name for name in checkpoint.names() if name in wanted], progress=advance,
        )
    say(f"{report.target}: {report.size / 1e6:.1f} MB, {len(report.names)} tensors, {len(report.dropped)} left out")
    for line in file.contents().left_out():
        say(f"  {line}")


def measure_file(arguments: argparse.Namespace) -> None:
    """Print how similar each frame of a video is to its source image."""
    if arguments.plot is not None:
        _check_plot(arguments.plot)
    frames, image = read_video(arguments.video), read_image(arguments.image)
    model = load(arguments.model, arguments.config, arguments.device, base=arguments.base)
    fidelity = measure(frames, image, model.embed_image)
    for line in fidelity.table().splitlines():
        say(line)
    if arguments.plot is not None:
        pixels = (fidelity.plot() * 255).round().byte().numpy()
        with replacing(arguments.plot) as temporary:
            Image.fromarray(pixels).save(temporary)


def _check_plot(path: Path) -> None:
    """
    Raises:
        InputError: Pillow writes no images of that name's ending, or matplotlib is not installed.
        FileWriteError: the file can't be written.
    """
    check_matplotlib()
    form = Image.registered_extensions().get(path.suffix.lower(), "")
    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), form)
    except (KeyError, OSError, ValueError) as error:  # Pillow doesn't know the form, can only read it, or not in colour
        raise InputError(f"--plot is {path}; give the path of an image file, such as plot.png.") from error
    check_output(path)


def fetch_file(arguments: argparse.Namespace) -> None:
    """Download a published model's file from its authors' repository."""
    fetch(arguments.name, arguments.folder, report=say)


def device(name: str) -> torch.device:
    """A device of this machine, for argparse."""
    try:
        return devices.device(name)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole_number(text: str) -> int:
    """A whole number, for argparse."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number") from error


def number(text: str) -> float:
    """A number, for argparse."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number") from error


def words(text: str) -> str:
    """Text in UTF-8, whatever the console's encoding, for argparse."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError as error:
        raise argparse.ArgumentTypeError("it is not text in UTF-8") from error


def lora(text: str) -> LoraSetting:
    """A LoRA file with its strength and alpha, for argparse."""
    try:
        return LoraSetting.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class Parser(argparse.ArgumentParser):
    """Argparse's, without control characters in its errors."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    top = Parser(prog="python -m vc_core", description="The VideoCrafter family of video diffusion models.")
    commands = top.add_subparsers(
        required=True, metavar="generate | batch | prompts | info | convert | measure | evaluate | compare | total | fetch | train"
    )

    def plain(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        sub.set_defaults(run=run)
        return sub

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = plain(name, run, text)
        bundled = ", ".join(bundled_models()) or "none"
        sub.add_argument("model", help=f"a .ckpt or .safetensors file, or a bundled model ({bundled})")
        sub.add_argument("--base", help="file with the parts that the model's file lacks: VideoCrafter2's for T2V-Turbo's files")
        sub.add_argument("--config", help="a YAML file or the name of a published model, for what the file's tensors do not show")
        return sub

    _add_generate_options(command("generate", generate, "Make a video from a prompt, and from one or two images."))

    _add_many(command("batch", batch, "Make the clips of a list of jobs: in one process, under torchrun, or on Ray."))
    suites.add_options(plain("prompts", prompts, "Write the prompts of a suite, EvalCrafter's or VBench's, as a list of jobs for batch."))

    show = command("info", info, "Show which model a file contains, its parts and its configuration.")
    show.add_argument("--adapter", type=Path, action="append", default=[], help="adapter file to list with the model")

    change = command("convert", convert_file, "Write the model of a file as .safetensors, with its configuration inside.")
    change.add_argument("target", type=Path, help="the .safetensors file to write")
    change.add_argument("--dtype", choices=DTYPE_NAMES, default="float16", help="data type of the weights in the new file")
    _add_lora_option(change, "LoRA file to merge into the weights")
    change.add_argument(
        "--lora-only", action="store_true",
        help="write the LoRA alone, under the model's names and with its alpha, in place of the model",
    )

    compare = command("measure", measure_file, "Measure how similar each frame of a video is to its source image (SSIM and CLIP).")
    compare.add_argument("video", type=Path, help="the video file")
    compare.add_argument("image", type=Path, help="the source image")
    compare.add_argument("--plot", type=Path, help="image file for a plot")
    compare.add_argument("--device", type=device, default=devices.default_device(), help="torch device")

    text = "Measure videos with EvalCrafter's and VBench's measures, as far as there are weights, into a table and a page."
    evaluation.add_evaluate_options(plain("evaluate", evaluation.run_evaluate, text))
    text = "Compare two evaluations, paired by prompt, with confidence intervals."
    evaluation.add_compare_options(plain("compare", evaluation.run_compare, text))
    text = "Compute VBench's or EvalCrafter's total from all values of its own tool."
    evaluation.add_total_options(plain("total", evaluation.run_total, text))

    get = plain("fetch", fetch_file, "Download a published model and check it. Needs huggingface_hub.")
    get.add_argument("name", choices=list(published_files()), metavar="name", help=", ".join(published_files()))
    get.add_argument("--folder", type=Path, default=checkpoints_folder(), help="target folder")

    add_options(plain("train", train, "Train a LoRA or a whole model on clips. Needs accelerate and peft."))
    return top


def _add_generate_options(make: argparse.ArgumentParser) -> None:
    make.add_argument("prompt", type=words, help="what the video shows and how it moves")
    make.add_argument("--output", type=Path, default=Path("video.mp4"), help="output file; its name ends in " + ", ".join(SUFFIXES))
    text = "under torchrun: what the processes share of the clip, the passes of guidance, the frames, or both"
    make.add_argument("--split", choices=SPLITS, help=text)
    _add_clip_options(make)
    _add_file_options(make)


def _add_many(make: argparse.ArgumentParser) -> None:
    job_parser = JobParser()
    for each in (make, job_parser):
        _add_clip_options(each)
    _add_file_options(make)
    add_batch_options(make, job_parser)
    make.set_defaults(device=None)


def _add_clip_options(make: argparse.ArgumentParser) -> None:
    """What decides a clip beside its prompt, its model and the form of its file."""
    make.add_argument("--negative-prompt", type=words, default="", help="negative prompt")
    text = """prompts over time, each after the prompt, such as '"0": "a red circle", "-1": "a blue circle"'"""
    make.add_argument("--prompt-schedule", type=words, help=text)
    make.add_argument("--prompt-interpolation", choices=INTERPOLATIONS, help="how the schedule's prompts are mixed (default: linear)")
    make.add_argument("--image", type=Path, help="first image, for image-to-video models")
    make.add_argument("--end-image", type=Path, help="last image, for interpolation models")
    make.add_argument("--loop", action="store_true", help="end with the first image, for interpolation models")
    make.add_argument("--keep-last-frame", action="store_true", help="with --loop: keep the last frame, which repeats the first")
    make.add_argument("--frame-images", type=Path, help="video file with an image for every frame, for models such as ViewCrafter")
    add_style_options(make, number)
    make.add_argument("--depth", type=Path, help="video file with a depth map for every frame, white near, for Make-Your-Video")
    make.add_argument("--depth-range", choices=RANGES, help="black and white of the depth maps: by clip, or by frame as its authors do")
    text = """strength of the depth, 0 to 1: a number, or numbers over time, such as '"0": 1.0, "-1": 0.3' (default: 1)"""
    make.add_argument("--depth-strength", type=words, help=text)
    make.add_argument("--video", type=Path, help="input video to start from; needs --denoise below 1")
    text = "file of statistics (initial_noise_512.pt) by which the initial noise is drawn, with --start-timestep"
    make.add_argument("--initial-noise", type=Path, help=text)
    add_motion_options(make, number)
    _add_control_options(make)
    kinds: dict[str, Any] = {"int": whole_number, "float": number, "str": str}
    for setting in sampling_options():
        own = setting.name == "fps" or hasattr(SamplingConfig, setting.name)
        default = "the model's own" if own else setting.default
        text = f"{setting.metadata['help']} (default: {default})"
        flags = (option(setting.name), *(["--deep-cache"] if setting.name == "deep_cache_interval" else []))
        if setting.type == "bool":
            make.add_argument(*flags, action="store_true", help=text, default=argparse.SUPPRESS)
            continue
        make.add_argument(*flags, type=kinds[str(setting.type).removesuffix(" | None")], help=text, default=argparse.SUPPRESS)


def _add_control_options(make: argparse.ArgumentParser) -> None:
    text = "how the camera moves, such as 'pan left, zoom in', or a file of poses (RealEstate10K); for models with camera layers"
    make.add_argument("--camera", type=words, help=text)
    make.add_argument("--trajectory", type=Path, help="JSON file of paths in pixels of the video, such as of KJNodes' Spline Editor")
    make.add_argument("--subject", type=words, default="", help="the words of the prompt for what follows the path, for FreeTraj")
    text = "steps in which FreeTraj acts, from the first on; more: closer to the path, but worse"
    make.add_argument("--trajectory-steps", type=whole_number, help=text)


def _add_file_options(make: argparse.ArgumentParser) -> None:
    """What goes with a clip's model, and the form of its file."""
    make.add_argument("--adapter", type=Path, action="append", default=[], help="adapter file; can be given more than once")
    text = "file with the image tower that reads a style, OpenCLIP ViT-H/14's; an image-to-video model has one"
    make.add_argument("--image-encoder", type=Path, help=text)
    _add_lora_option(make, "LoRA file to use")
    make.add_argument("--device", type=device, default=devices.default_device(), help="torch device")
    make.add_argument("--dtype", choices=DTYPE_NAMES, default="float32", help="data type of the weights, and of computation if supported")
    names = "; ".join(f"{name}: {form.title}" for name, form in FORMATS.items())
    text = f"format of the output, by default that of the file name's ending; png needs the name of a new folder ({names})"
    make.add_argument("--format", choices=FORMATS, metavar="NAME", help=text)
    text = f"quality of the output, 0 (best) to {WORST_CRF} (default: {CRF}, and lossless for WebP); ProRes, FFV1, GIF and PNG have none"
    make.add_argument("--crf", type=number, help=text)
    make.add_argument("--ping-pong", action="store_true", help="play forwards, then backwards")
    text = "how often the video is played; 0: without end in animated images, once in others"
    make.add_argument("--loop-count", type=whole_number, default=0, help=text)


def _add_lora_option(command: argparse.ArgumentParser, text: str) -> None:
    text += ", with its strength (1 if left out) and its alpha (the file's if left out); can be given more than once"
    command.add_argument("--lora", type=lora, action="append", default=[], metavar="FILE:STRENGTH:ALPHA", help=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; ``sys.argv[1:]`` by default.

    Returns:
        The exit code, see :func:`vc_core.console.finish`.
    """
    accept_all_text()
    arguments = parser().parse_args(argv)
    return finish(lambda: arguments.run(arguments), in_options)


if __name__ == "__main__":
    sys.exit(main())
