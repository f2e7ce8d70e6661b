"""Lists of jobs: a text file with a prompt a line, CSV with a head, or JSON lines."""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..console import option
from ..errors import InputError, VideoCrafterError, printable
from .names import check_names, name_of

#: Most characters of a list, so that a wrong file is not read into memory.
LARGEST = 1 << 28
#: Fields of a job that are no options of the command line.
NAME, PROMPT = "name", "prompt"


class JobError(VideoCrafterError):
    """A list of jobs that can't be read, or a job that can't be."""


@dataclass(frozen=True)
class Job:
    """One clip to make.

    Attributes:
        name: of its file, without the ending; unique in a list.
        fields: what the list says of it.
        options: those of the command ``generate`` that decide a clip, with what the whole run gives; paths are absolute.
    """

    name: str
    fields: Mapping[str, Any]
    options: argparse.Namespace


class JobParser(argparse.ArgumentParser):
    """The options that a job can have. It raises where argparse's own ends the program."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise JobError(message)

    @property
    def fields(self) -> dict[str, argparse.Action]:
        """The options, by the names that fields of a list have: ``end_image`` for ``--end-image``."""
        return {each.dest: each for each in self._actions}


def read_list(path: Path) -> list[dict[str, Any]]:
    """The fields of each job of a list, as they are written there. The ending of the file's name says what it is.

    Raises:
        JobError: no such file, another ending, no UTF-8, a line that is no job, or no job at all.
    """
    readers = {".txt": _read_text, ".csv": _read_csv, ".jsonl": _read_json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise JobError(f"{path} should be a list of jobs that ends in {', '.join(readers)}.")
    try:
        if path.stat().st_size > LARGEST:
            raise JobError(f"{path} has {path.stat().st_size / 1e6:.0f} MB; a list of jobs has at most {LARGEST / 1e6:.0f}.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: line {error.object[: error.start].count(10) + 1} is not UTF-8; save the list as UTF-8.") from error
    except OSError as error:
        raise JobError(f"{path}: can't be read ({error.strerror or error}).") from error
    jobs = reader(path, text)
    if not jobs:
        raise JobError(f"{path} has no jobs: give one a line.")
    return jobs


def _read_text(path: Path, text: str) -> list[dict[str, Any]]:
    return [{PROMPT: line.strip()} for line in text.split("\n") if line.strip()]


def _read_csv(path: Path, text: str) -> list[dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        names = [(each or "").strip() for each in rows.fieldnames or ()]
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        if repeated:
            raise JobError(f"{path}: the column {repeated[0]!r:.60} is there twice.")
        jobs = []
        for row in rows:
            if "" in row:
                raise JobError(f"{path}: line {rows.line_num} has more cells than the head; put text with commas in quotes.")
            jobs.append({(name or "").strip(): value for name, value in row.items() if value})
    except csv.Error as error:
        raise JobError(f"{path}: line {rows.line_num} is not CSV ({error}).") from error
    return [job for job in jobs if job]


def _read_json(path: Path, text: str) -> list[dict[str, Any]]:
    jobs = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            job = json.loads(line)
            json.dumps(job, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise JobError(f"{path}: line {number} has {error.object[error.start]!r}, which is half of a character.") from error
        except (ValueError, RecursionError) as error:
            raise JobError(f"{path}: line {number} is not JSON ({error}).") from error
        if not isinstance(job, dict):
            raise JobError(f'{path}: line {number} is no object; each line is one, such as {{"prompt": "a red circle"}}.')
        jobs.append({key: value for key, value in job.items() if value is not None})
    return jobs


def resolve(listed: Iterable[Mapping[str, Any]], run: argparse.Namespace, parser: JobParser, folder: Path) -> list[Job]:
    """The jobs of a list, with the options of the whole run where a job has none of its own.

    Equal jobs without a seed of their own get the run's seed, the next one, and so on; all other jobs get the run's. So a job's clip
    doesn't depend on where it stands in the list.

    Args:
        run: the command's options.
        folder: paths in the list are relative to it.

    Raises:
        JobError: a field that is unknown or can't be, or two jobs of one name; all that is wrong, a line each.
    """
    jobs, wrong, copies = [], list[str](), Counter[str]()
    for number, fields in enumerate(listed, 1):
        key = json.dumps(fields, sort_keys=True, default=str)
        copy_number, copies[key] = copies[key], copies[key] + 1
        try:
            options = _options(fields, run, parser, folder)
        except VideoCrafterError as error:
            wrong.append(f"job {number}: {error.message}")
            continue
        if copy_number and "seed" not in fields:
            options.seed = getattr(options, "seed", 0) + copy_number
        name = fields.get(NAME)
        jobs.append(Job(name_of(fields, copy_number) if name is None else str(name), fields, options))
    wrong += check_names([job.name for job in jobs])
    if wrong:
        raise JobError(f"{len(wrong)} of the list's entries can't be used; nothing was made:", wrong[:50])
    return jobs


def _options(fields: Mapping[str, Any], run: argparse.Namespace, parser: JobParser, folder: Path) -> argparse.Namespace:
    known = parser.fields
    for field in fields:
        if field not in (NAME, PROMPT, *known):
            near = difflib.get_close_matches(str(field), [NAME, PROMPT, *known], n=1)
            raise InputError(f"there is no field {field!r:.60}; {f'did you mean {near[0]}?' if near else 'see --help for the options.'}")
    options = argparse.Namespace(**{name: value for name, value in vars(run).items() if name in (*known, "loop_count")})
    prompt = fields.get(PROMPT, getattr(run, PROMPT, ""))
    if not isinstance(prompt, str):
        raise InputError(f"prompt is {prompt!r:.60}; it must be text.")
    options.prompt = prompt
    arguments = []
    for field, value in fields.items():
        if field in known:
            action = known[field]
            if action.nargs == 0:
                setattr(options, field, _truth(field, value))
            elif isinstance(value, (bool, list, dict)):
                raise InputError(f"{field} is {value!r:.60}; it must be a number or text.")
            else:
                arguments.append(f"{option(field)}={folder / value if action.type is Path and isinstance(value, str) else value}")
    options = parser.parse_args(arguments, options)
    for name, value in vars(options).items():
        if isinstance(value, Path):
            setattr(options, name, value.absolute())
    return options


def _truth(field: str, value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    found = words.get(str(value).strip().lower())
    if found is None:
        raise InputError(f"{field} is {printable(str(value), 60)!r}; it must be true or false.")
    return found
