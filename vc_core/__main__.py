"""The command line: ``python -m vc_core generate | info | convert | measure | fetch``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .adapters.table import identify_adapter
from .checkpoint import Checkpoint, convert, open_checkpoint
from .checkpoint.convert import DTYPES
from .config import SamplingConfig, suggested_size, to_yaml
from .errors import InputError, VideoCrafterError
from .evaluation.image_fidelity import measure
from .family.bundled import bundled_models
from .family.model_file import ModelFile
from .fetch import checkpoints_folder, fetch, published_files
from .media.images import read_image
from .media.video import SUFFIXES, check_target, read_video, save_video
from .pipeline import load
from .sampling import Sampling

DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


def generate(arguments: argparse.Namespace) -> None:
    """Make a video from a prompt, and from images if there are any, and save it."""
    check_target(arguments.output)  # now rather than after the sampling
    image, end_image, video = _inputs(arguments)
    model = load(arguments.model, arguments.config, arguments.device, DTYPE_NAMES[arguments.dtype], arguments.adapter)
    settings = {option.name: getattr(arguments, option.name, None) for option in sampling_options()}
    if image is not None and settings["height"] is None and settings["width"] is None:
        settings["width"], settings["height"] = suggested_size(model.config.sampling, image.shape[2], image.shape[1])
    with tqdm(desc="sampling", unit="step") as bar:

        def advance(step: int, total: int, *_: object) -> None:
            bar.total = total
            bar.update()

        sampling = Sampling.of(model.config, callback=advance, **settings)
        prompts = arguments.prompt, arguments.negative_prompt
        if image is None:
            made = model.text_to_video(*prompts, video=video, sampling=sampling)
        else:
            made = model.image_to_video(image, *prompts, end_image=end_image, loop=arguments.loop, video=video, sampling=sampling)
    save_video(made[0], arguments.output, sampling.playback_fps)
    print(arguments.output)


def _inputs(arguments: argparse.Namespace) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The first image, the last image and the input video.

    Raises:
        InputError: options that don't go together.
    """
    image = None if arguments.image is None else read_image(arguments.image)
    end_image = None if arguments.end_image is None else read_image(arguments.end_image)
    video = None if arguments.video is None else read_video(arguments.video)[None]
    if image is None and (end_image is not None or arguments.loop):
        raise InputError("--end-image and --loop need a first image: give --image.")
    if video is not None and any(hasattr(arguments, name) for name in ("frames", "height", "width")):
        raise InputError("--video decides the number of frames and the size: leave --frames, --height and --width out.")
    return image, end_image, video


def sampling_options() -> list[Field[Any]]:
    """The fields of :class:`Sampling` that are options of the command line."""
    return [each for each in fields(Sampling) if "help" in each.metadata]


def info(arguments: argparse.Namespace) -> None:
    """Print which model a file contains, and its parts."""
    file = ModelFile.open(arguments.model, arguments.config)
    print(f"{file.checkpoint.path}: {file.config.title} ({file.config.name})")
    for part, prefix in file.parts.items():
        print(f"  {part}: {_counted(file.checkpoint, prefix)}")
    for path in arguments.adapter:
        checkpoint = open_checkpoint(path)
        kind = identify_adapter(checkpoint)
        print(f"  adapter {checkpoint.path.stem} ({kind.title}): {_counted(checkpoint, kind.prefix)}")
    print(to_yaml(file.config), end="")


def _counted(checkpoint: Checkpoint, prefix: str) -> str:
    shapes = [checkpoint.shape(name) for name in checkpoint.names() if name.startswith(prefix)]
    return f"{len(shapes)} tensors, {sum(torch.Size(shape).numel() for shape in shapes) / 1e6:.1f} million weights"


def convert_file(arguments: argparse.Namespace) -> None:
    """Write a published file as a smaller ``.safetensors`` with its configuration in the metadata."""
    file = ModelFile.open(arguments.model, arguments.config)
    wanted = {name for part in file.parts for name in file.names(part)}
    with tqdm(desc="converting", unit="B", unit_scale=True) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = convert(
            file.checkpoint, arguments.target, DTYPE_NAMES[arguments.dtype], config_text=to_yaml(file.config),
            names=[name for name in file.checkpoint.names() if name in wanted], progress=advance,
        )
    print(f"{report.target}: {report.size / 1e6:.1f} MB, {len(report.names)} tensors, {len(report.dropped)} left out")
    print(*(f"  {line}" for line in file.contents().left_out()), sep="\n")


def measure_file(arguments: argparse.Namespace) -> None:
    """Print how similar each frame of a video is to its source image."""
    plot: Path | None = arguments.plot
    if plot is not None and (plot.suffix.lower() not in Image.registered_extensions() or not plot.parent.is_dir()):
        raise InputError(f"--plot is {plot}; give the path of an image file, such as plot.png, in a folder that exists.")
    frames, image = read_video(arguments.video), read_image(arguments.image)
    model = load(arguments.model, arguments.config, arguments.device)
    fidelity = measure(frames, image, model.embed_image)
    print(fidelity.table())
    if plot is not None:
        pixels = (fidelity.plot() * 255).round().byte().numpy()
        Image.fromarray(pixels).save(plot)


def fetch_file(arguments: argparse.Namespace) -> None:
    """Download a published model's file from its authors' repository."""
    fetch(arguments.name, arguments.folder)


def device(name: str) -> torch.device:
    """A device of this machine, for argparse."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a GPU that torch has no support for
        raise argparse.ArgumentTypeError(f"{name!r} can't be used here ({str(error).splitlines()[0]:.160})") from error


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    top = argparse.ArgumentParser(prog="python -m vc_core", description="The VideoCrafter family of video diffusion models.")
    commands = top.add_subparsers(required=True, metavar="generate | info | convert | measure | fetch")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        sub.set_defaults(run=run)
        bundled = ", ".join(bundled_models()) or "none"
        sub.add_argument("model", help=f"a .ckpt or .safetensors file, or a bundled model ({bundled})")
        sub.add_argument("--config", help="a YAML file or the name of a published model, for what the file's tensors do not show")
        return sub

    make = command("generate", generate, "Make a video from a prompt, and from one or two images.")
    make.add_argument("prompt", help="what the video shows and how it moves")
    make.add_argument("--negative-prompt", default="", help="negative prompt")
    make.add_argument("--image", type=Path, help="first image, for image-to-video models")
    make.add_argument("--end-image", type=Path, help="last image, for interpolation models")
    make.add_argument("--loop", action="store_true", help="end with the first image, for interpolation models")
    make.add_argument("--video", type=Path, help="input video to start from; needs --denoise below 1")
    make.add_argument("--adapter", type=Path, action="append", default=[], help="adapter file; can be given more than once")
    make.add_argument("--output", type=Path, default=Path("video.mp4"), help="output file; its name ends in " + ", ".join(SUFFIXES))
    for option in sampling_options():
        flag, kind = "--" + option.name.replace("_", "-"), str(option.type).removesuffix(" | None")
        own = option.name == "fps" or hasattr(SamplingConfig, option.name)
        default = "the model's own" if own else option.default
        text = f"{option.metadata['help']} (default: {default})"
        flags = (flag, "--deep-cache") if option.name == "deep_cache_interval" else (flag,)
        make.add_argument(*flags, type={"int": int, "float": float, "str": str}[kind], help=text, default=argparse.SUPPRESS)
    make.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    make.add_argument("--dtype", choices=DTYPE_NAMES, default="float32", help="data type of the weights, and of computation if supported")

    show = command("info", info, "Show which model a file contains, its parts and its configuration.")
    show.add_argument("--adapter", type=Path, action="append", default=[], help="adapter file to list with the model")

    change = command("convert", convert_file, "Write the model of a file as .safetensors, with its configuration inside.")
    change.add_argument("target", type=Path, help="the .safetensors file to write")
    change.add_argument("--dtype", choices=DTYPE_NAMES, default="float16", help="data type of the weights in the new file")

    compare = command("measure", measure_file, "Measure how similar each frame of a video is to its source image (SSIM and CLIP).")
    compare.add_argument("video", type=Path, help="the video file")
    compare.add_argument("image", type=Path, help="the source image")
    compare.add_argument("--plot", type=Path, help="image file for a plot")
    compare.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")

    text = "Download a published model and check it. Needs huggingface_hub."
    get = commands.add_parser("fetch", help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    get.set_defaults(run=fetch_file)
    get.add_argument("name", choices=list(published_files()), metavar="name", help=", ".join(published_files()))
    get.add_argument("--folder", type=Path, default=checkpoints_folder(), help="target folder")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; ``sys.argv[1:]`` by default.

    Returns:
        0 for success, 1 for a user error, which is printed in one line. Any other exception is a bug and is not caught.
    """
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except VideoCrafterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
