"""The commands ``evaluate``, ``compare`` and ``total``."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..console import say
from ..devices import default_device, device
from ..errors import InputError, VideoCrafterError
from ..files import check_output
from ..media.images import read_image
from . import comparing
from .clip import Clip
from .evaluator import evaluate, title
from .measures import MEASURES, chosen
from .page import write_page
from .prompts import Video, find_videos, read_prompts
from .results import LINES, PAGE, TABLE, Row, means, read_rows, write_lines, write_table
from .score import Measure
from .tools import WEIGHTS, Tools, check_weights, make_tools
from .totals import EVALCRAFTER_VERSION, VBENCH_VERSION, evalcrafter_total, vbench_total

#: Changes when a measure does, so that older results are made anew.
VERSION = 1
SUITES = {"vbench": (VBENCH_VERSION, vbench_total), "evalcrafter": (EVALCRAFTER_VERSION, evalcrafter_total)}


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, nargs="+", help="video files, or folders of them")
    text = "the videos' prompts: a .txt with a line for each video, a .csv (video, prompt), .jsonl or .json; see docs/evaluation.md"
    parser.add_argument("--prompts", type=Path, help=text)
    parser.add_argument("--images", type=Path, help="folder with the videos' source images, named as the videos")
    parser.add_argument("--model", help="an image-to-video model's file, or a bundled one, whose CLIP is used")
    parser.add_argument("--config", help="configuration of that model, as in the other commands")
    parser.add_argument(
        "--weights", action="append", default=[], metavar="NAME=FILE",
        help="files of other models; " + "; ".join(f"{name}: {text}" for name, text in WEIGHTS.items()),
    )
    parser.add_argument("--metrics", action="append", default=[], help="measures to make, of " + ", ".join(MEASURES) + " (default: all)")
    parser.add_argument("--output", type=Path, default=Path("evaluation"), help=f"folder for {LINES}, {TABLE} and {PAGE}")
    parser.add_argument("--most-frames", type=int, default=512, help="frames of a video that are measured at most, from the first on")
    parser.add_argument("--device", default=default_device(), help="torch device")


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="A", help="folder of an evaluation")
    parser.add_argument("second", type=Path, metavar="B", help="folder of another one")
    parser.add_argument("--output", type=Path, help="page to write, such as comparison.html")


def add_total_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", choices=list(SUITES), help="whose formula")
    parser.add_argument("results", type=Path, help="JSON file of all values of the suite's own tool, by their names there")


@dataclass(frozen=True)
class Job:
    """A video with what goes with it."""

    video: Video
    prompt: str | None
    image: Path | None
    identity: str


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Measure videos, those that the folder has no results of yet, and write the table and the page."""
    measures, weights = chosen(arguments.metrics), _weights(arguments.weights)
    if arguments.most_frames < 1:
        raise InputError(f"--most-frames is {arguments.most_frames}; it must be at least 1.")
    where = device(arguments.device)
    jobs = find_jobs(arguments, measures, weights)
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    known = {row.identity: row for row in _older(folder / LINES) if not row.error}
    open_jobs = [job for job in jobs if job.identity not in known]
    if len(open_jobs) < len(jobs):
        say(f"{len(jobs) - len(open_jobs)} of {len(jobs)} videos are measured already.")
    tools = make_tools(measures, arguments.model, weights, where, arguments.config) if open_jobs else Tools()
    write_lines(list(known.values()), folder / LINES)
    with (folder / LINES).open("a", encoding="utf-8") as lines:
        for job in tqdm(open_jobs, desc="evaluating", unit="video"):
            row = known[job.identity] = measured(job, measures, tools, arguments.most_frames)
            lines.write(row.line() + "\n")
            lines.flush()
    finish(folder, [known[job.identity] for job in jobs])


def finish(folder: Path, rows: list[Row]) -> None:
    """Write all of an evaluation's files, and print its summary.

    Raises:
        InputError: some videos could not be read, after all others are done.
    """
    write_lines(rows, folder / LINES)
    write_table(rows, folder / TABLE)
    write_page(rows, folder / PAGE)
    for name, value in means(rows).items():
        count = sum(name in row.values for row in rows)
        say(f"{title(name)}: {value:.4g}" + (f" ({count} of {len(rows)} videos)" if count < len(rows) else ""))
    for name, reason in _skipped(rows).items():
        say(f"{title(name)}: not measured; {reason}")
    for row in rows:
        for name in row.outside:
            say(f"{row.video}: {title(name)} is {row.values[name]:.4g}, outside its range.")
    say(str(folder / PAGE))
    failed = [row for row in rows if row.error]
    if failed:
        reasons = [f"{row.video}: {row.error}" for row in failed[:20]]
        raise InputError(f"{len(failed)} of {len(rows)} videos could not be measured.", reasons)


def find_jobs(arguments: argparse.Namespace, measures: Sequence[Measure], weights: dict[str, Path]) -> list[Job]:
    """The videos with their prompts and images."""
    videos = find_videos(arguments.videos)
    prompts = {} if arguments.prompts is None else read_prompts(arguments.prompts, videos)
    images = _images(arguments.images)
    model = None if arguments.model is None else _file_identity(Path(arguments.model))
    settings: list[object] = [VERSION, [each.name for each in measures], arguments.most_frames, model, arguments.config]
    settings += [[name, _file_identity(path)] for name, path in sorted(weights.items())]
    jobs = []
    for video in videos:
        image = images.get(video.path.stem)
        own = [video.name, prompts.get(video.name), _file_identity(video.path), None if image is None else _file_identity(image)]
        identity = hashlib.sha256(json.dumps([*settings, *own]).encode()).hexdigest()[:32]
        jobs.append(Job(video, prompts.get(video.name), image, identity))
    return jobs


def measured(job: Job, measures: Sequence[Measure], tools: Tools, most: int) -> Row:
    """The row of a video; one that can't be read has the error in place of values."""
    row = Row(job.video.name, str(job.video.path.resolve()), job.prompt, job.identity)
    try:
        image = None if job.image is None else read_image(job.image)
        clip = Clip.read(job.video.path, job.prompt, image, most)
        scores = evaluate(clip, measures, tools)
    except VideoCrafterError as error:
        row.error = str(error)
        return row
    row.frames, row.width, row.height, row.fps, row.cut = len(clip), clip.width, clip.height, clip.fps, clip.cut
    row.values, row.skipped, row.outside = scores.values, scores.skipped, scores.outside
    row.curves = {name: [round(value, 6) for value in score.curve] for name, score in scores.found.items()}
    row.firsts = {name: score.first for name, score in scores.found.items()}
    return row


def run_compare(arguments: argparse.Namespace) -> None:
    """Print how the second of two evaluations differs from the first."""
    if arguments.output is not None:
        check_output(arguments.output)
    pairs = comparing.paired(read_rows(arguments.first), read_rows(arguments.second))
    for line in comparing.table(pairs, arguments.first.name or "A", arguments.second.name or "B").splitlines():
        say(line)
    if arguments.output is not None:
        comparing.write_comparison(pairs, arguments.output, str(arguments.first), str(arguments.second))
        say(str(arguments.output))


def run_total(arguments: argparse.Namespace) -> None:
    """Print a suite's total from all of its values."""
    version, total = SUITES[arguments.suite]
    try:
        content = json.loads(arguments.results.read_text(encoding="utf-8"))
        values = {name: float(value) for name, value in content.items() if not isinstance(value, bool)}
    except FileNotFoundError as error:
        raise InputError(f"There is no file {arguments.results}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{arguments.results} is no JSON object of numbers by name: {error}.") from error
    for name, value in total(values).items():
        say(f"{name}: {value:.4f}")
    say(f"By the formula of {version}.")


def _weights(given: Sequence[str]) -> dict[str, Path]:
    found = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals or not path:
            raise InputError(f"--weights is {each!r:.80}; it must be NAME=FILE, such as dino=dino.safetensors.")
        found[name] = Path(path)
    check_weights(found)
    for file in found.values():
        if not file.is_file():
            raise InputError(f"There is no file {file}, which --weights names.")
    return found


def _images(folder: Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    if not folder.is_dir():
        raise InputError(f"--images is {folder}; give a folder with the videos' source images.")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.is_file()}


def _older(path: Path) -> list[Row]:
    return read_rows(path, strict=False) if path.is_file() else []


def _file_identity(path: Path) -> list[object]:
    if not path.exists():  # the name of a bundled model
        return [str(path)]
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _skipped(rows: Sequence[Row]) -> dict[str, str]:
    """The measures that no video has a value of, with the first reason."""
    found = {name: reason for row in reversed(rows) for name, reason in row.skipped.items()}
    return {name: reason for name, reason in found.items() if not any(name in row.values for row in rows)}
