"""The command line: ``python -m vc_core generate | info | convert | measure | fetch``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from .checkpoint import convert
from .checkpoint.convert import DTYPES
from .config import suggested_size, to_yaml
from .errors import InputError, VideoCrafterError
from .evaluation.image_fidelity import measure
from .family.bundled import bundled_models
from .family.model_file import ModelFile
from .fetch import checkpoints_folder, fetch, published_files
from .media.images import read_picture
from .media.video import SUFFIXES, VideoFileError, read_video, save_video
from .pipeline import load

#: What `generate` takes from the model's configuration where it isn't given.
SETTINGS = ("steps", "eta", "guidance_scale", "guidance_rescale", "frames")
DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


def generate(arguments: argparse.Namespace) -> None:
    """A prompt, and a picture where one is given, to a file."""
    if arguments.output.suffix.lower() not in SUFFIXES:  # said now rather than after the sampling
        raise VideoFileError(f"{arguments.output} should end in one of {', '.join(SUFFIXES)}.")
    picture = None if arguments.image is None else read_picture(arguments.image)
    end_picture = None if arguments.end_image is None else read_picture(arguments.end_image)
    if picture is None and (end_picture is not None or arguments.loop):
        raise InputError("--end-image and --loop need an image to start from: give --image.")
    model = load(arguments.model, arguments.config, arguments.device, DTYPE_NAMES[arguments.dtype])
    own = asdict(model.config.sampling)
    given = {name: getattr(arguments, name) for name in SETTINGS}
    settings = {name: own[name] if value is None else value for name, value in given.items()}
    height, width = arguments.height, arguments.width
    if picture is not None and height is None and width is None:
        width, height = suggested_size(model.config.sampling, picture.shape[2], picture.shape[1])
    with tqdm(desc="sampling", unit="step") as bar:

        def advance(step: int, total: int, *_: object) -> None:
            bar.total = total
            bar.update()

        make = model.text_to_video
        if picture is not None:
            make = partial(
                model.image_to_video, picture, end_image=end_picture, loop=arguments.loop,
                image_guidance_scale=arguments.image_guidance_scale
            )
        video = make(
            arguments.prompt, arguments.negative_prompt, height=height, width=width, fps=arguments.fps,
            seed=arguments.seed, callback=advance, deep_cache_interval=arguments.deep_cache, **settings,
        )  # fmt: skip
    rate = arguments.playback_fps or model.config.sampling.playback_fps
    save_video(video[0], arguments.output, rate)
    print(arguments.output)


def info(arguments: argparse.Namespace) -> None:
    """What a file holds."""
    file = ModelFile.open(arguments.model, arguments.config)
    print(f"{file.checkpoint.path}: {file.config.title} ({file.config.name})")
    for part, prefix in file.parts.items():
        shapes = [file.checkpoint.shape(name) for name in file.checkpoint.names() if name.startswith(prefix)]
        numbers = sum(torch.Size(shape).numel() for shape in shapes)
        print(f"  {part}: {len(shapes)} tensors, {numbers / 1e6:.1f} million weights")
    print(to_yaml(file.config), end="")


def convert_file(arguments: argparse.Namespace) -> None:
    """A published file to a smaller ``.safetensors`` that says what it is."""
    file = ModelFile.open(arguments.model, arguments.config)
    kept = {name for part in file.parts for name in file.names(part)}
    with tqdm(desc="converting", unit="B", unit_scale=True) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = convert(
            file.checkpoint, arguments.target, DTYPE_NAMES[arguments.dtype], config_text=to_yaml(file.config),
            names=[name for name in file.checkpoint.names() if name in kept], progress=advance,
        )  # fmt: skip
    print(f"{report.target}: {report.size / 1e6:.1f} MB, {len(report.names)} tensors, {len(report.dropped)} left out")


def measure_file(arguments: argparse.Namespace) -> None:
    """How well a video keeps its picture."""
    plot: Path | None = arguments.plot
    if plot is not None and (plot.suffix.lower() not in Image.registered_extensions() or not plot.parent.is_dir()):
        raise InputError(f"--plot is {plot}; give the path of an image file, such as plot.png, in a folder that exists.")
    frames, picture = read_video(arguments.video), read_picture(arguments.picture)
    model = load(arguments.model, arguments.config, arguments.device)
    kept = measure(frames, picture, model.embed_image)
    print(kept.table())
    if plot is not None:
        pixels = (kept.plot() * 255).round().byte().numpy()
        Image.fromarray(pixels).save(plot)


def fetch_file(arguments: argparse.Namespace) -> None:
    """A published model's file from its authors' repository."""
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
        sub.add_argument("--config", help="a YAML file, or a published name, for what the file's tensors don't tell")
        return sub

    make = command("generate", generate, "Make a clip from a prompt.")
    make.add_argument("prompt")
    make.add_argument("--image", type=Path, help="a picture to start from, for image-to-video models")
    make.add_argument("--end-image", type=Path, help="a picture to end with, for models that join two pictures")
    make.add_argument("--loop", action="store_true", help="end with the picture the clip starts from")
    make.add_argument("--image-guidance-scale", type=float, help="how strongly the picture is followed, where apart from the prompt")
    make.add_argument("--negative-prompt", default="", help="what is not to be seen")
    make.add_argument("--output", type=Path, default=Path("video.mp4"), help="a file that ends in " + ", ".join(SUFFIXES))
    make.add_argument("--frames", type=int, help="16 for the published models; the model's own unless given")
    make.add_argument("--height", type=int, help="in pixels, a multiple of 8; the model's own unless given")
    make.add_argument("--width", type=int, help="in pixels, a multiple of 8; the model's own unless given")
    make.add_argument("--steps", type=int, help="DDIM steps; the model's own unless given")
    make.add_argument("--eta", type=float, help="noise added at every step, 0 to 1; the model's own unless given")
    make.add_argument("--guidance-scale", type=float, help="how strongly the prompt is followed; the model's own unless given")
    make.add_argument("--guidance-rescale", type=float, help="0 to 1; the model's own unless given")
    make.add_argument("--fps", type=float, help="what the model is told of the motion; the model's own unless given")
    make.add_argument("--playback-fps", type=int, help="the saved file's frames a second; the model's own unless given")
    make.add_argument("--deep-cache", type=int, default=1, metavar="N", help="run the deep layers every N steps only; faster, less exact")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    make.add_argument("--dtype", choices=DTYPE_NAMES, default="float32", help="of the weights; computed in too where the device can")

    command("info", info, "Say which model a file holds, and its configuration.")

    change = command("convert", convert_file, "Write a file's model as .safetensors, with its configuration inside.")
    change.add_argument("target", type=Path, help="the .safetensors file to write")
    change.add_argument("--dtype", choices=DTYPE_NAMES, default="float16", help="of the weights in the new file")

    keep = command("measure", measure_file, "Say how well a video keeps the picture it was made from, frame by frame.")
    keep.add_argument("video", type=Path, help="the video")
    keep.add_argument("picture", type=Path, help="the picture it was made from")
    keep.add_argument("--plot", type=Path, help="a picture file to draw it into")
    keep.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")

    text = "Download a published model's file and check it; needs huggingface_hub."
    get = commands.add_parser("fetch", help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    get.set_defaults(run=fetch_file)
    get.add_argument("name", choices=list(published_files()), metavar="name", help=", ".join(published_files()))
    get.add_argument("--folder", type=Path, default=checkpoints_folder(), help="where to put it")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; those of the process unless given.

    Returns:
        0 for success, 1 for an error of the user, which is printed in one line. Any other exception is a bug and passes through.
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
