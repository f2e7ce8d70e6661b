"""The videos to evaluate, and the prompts that go with them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..training.sources import VIDEO_SUFFIXES

#: Endings of the names of files that a folder is searched for.
SUFFIXES = (*VIDEO_SUFFIXES, ".webp", ".apng")
#: Names of what a row of a prompt file has.
VIDEO_KEYS, PROMPT_KEYS = ("video", "path", "file", "file_name", "output"), ("prompt", "text", "caption")


@dataclass(frozen=True)
class Video:
    """A file to evaluate.

    Attributes:
        name: in the results, unique among them: its path from the folder that was given, or the file's name.
    """

    path: Path
    name: str


def find_videos(paths: Sequence[Path]) -> list[Video]:
    """The videos of files and folders, those of a folder with all below it in the order of their names.

    Raises:
        InputError: a path that there isn't, or no videos.
    """
    found: dict[Path, Video] = {}
    for path in paths:
        if path.is_dir():
            files = [each for each in sorted(path.rglob("*")) if each.suffix.lower() in SUFFIXES and each.is_file()]
            named = [Video(each, each.relative_to(path).as_posix()) for each in files if not each.name.startswith(".")]
        elif path.is_file():
            named = [Video(path, path.name)]
        else:
            raise InputError(f"There is no video or folder {path}.")
        for video in named:
            found.setdefault(video.path.resolve(), video)
    if not found:
        raise InputError(f"There are no videos in {', '.join(map(str, paths)) or 'no folder'}. Videos end in {', '.join(SUFFIXES)}.")
    return _unique(list(found.values()))


def _unique(videos: list[Video]) -> list[Video]:
    names = [video.name for video in videos]
    return [Video(video.path, str(video.path) if names.count(video.name) > 1 else video.name) for video in videos]


def read_prompts(path: Path, videos: Sequence[Video]) -> dict[str, str]:
    """The prompts of videos by their names, from one of these files in UTF-8; videos that it doesn't name have none.

    * ``.txt``: a line for each video, in the order of their names, as EvalCrafter's list.
    * ``.json``: an object with a prompt for each file's name, or a list of rows.
    * ``.jsonl``: a row in each line, such as ``{"video": "0001.mp4", "prompt": "a cat"}``.
    * ``.csv``: with the columns ``video`` and ``prompt``.

    Raises:
        InputError: there is no such file, it is of another kind or form, or has another number of lines than there are videos.
    """
    text = _text(path)
    if path.suffix.lower() == ".txt":
        return _by_lines(path, text.split("\n"), videos)
    try:
        pairs = _pairs(path.suffix.lower(), text)
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path} can't be read as prompts: it must have rows with a video and a prompt.") from error
    except (ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{path} can't be read as prompts: {error}.") from error
    if not pairs:
        raise InputError(f"{path} has no prompts: give a row with video and prompt for each.")
    found = {video.name: prompt for video in videos if (prompt := _named(pairs, video)) is not None}
    if not found:
        raise InputError(f"{path} names none of the videos; it names {', '.join(list(pairs)[:3])}, and there is {videos[0].name}.")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"There is no file of prompts {path}.") from error
    except UnicodeError as error:
        raise InputError(f"{path} is no text in UTF-8: save it anew in this encoding.") from error


def _by_lines(path: Path, lines: list[str], videos: Sequence[Video]) -> dict[str, str]:
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) != len(videos):
        raise InputError(
            f"{path} has {len(lines)} lines for {len(videos)} videos; there must be a line for each, in the order of their names. "
            "With other numbers use a .csv with the columns video and prompt."
        )
    return {video.name: line.strip("\r") for video, line in zip(videos, lines, strict=True)}


def _pairs(suffix: str, text: str) -> dict[str, str]:
    """Prompts by the names that a file has for the videos."""
    if suffix == ".json":
        content = json.loads(text)
        rows = content if isinstance(content, list) else [{"video": name, "prompt": prompt} for name, prompt in content.items()]
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    elif suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines(keepends=True)))
    else:
        raise InputError(f"its name ends in {suffix or 'nothing'}; .txt, .json, .jsonl and .csv are read")
    pairs = {}
    for number, row in enumerate(rows, 1):
        name, prompt = _value(row, VIDEO_KEYS), _value(row, PROMPT_KEYS)
        if name is None or prompt is None:
            raise InputError(f"row {number} lacks {'video' if name is None else 'prompt'}")
        pairs[name] = prompt
    return pairs


def _value(row: Mapping[str, object], keys: Sequence[str]) -> str | None:
    value = next((row[key] for key in keys if row.get(key) is not None), None)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{value!r:.60} is no text")
    return value


def _named(pairs: Mapping[str, str], video: Video) -> str | None:
    """By the whole name, else the file's, else that without its ending."""
    names = (video.name, str(video.path), video.path.name, video.path.stem)
    return next((pairs[name] for name in names if name in pairs), None)
