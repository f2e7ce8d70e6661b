"""Suites of prompts, EvalCrafter's and VBench's: their prompt files as lists of jobs, and clips named as their tools expect.

EvalCrafter (arXiv:2310.11440) takes one clip a prompt, ``0000.mp4`` and so on in the order of its prompt file. VBench
(arXiv:2311.17982) takes five, ``PROMPT-0.mp4`` to ``PROMPT-4.mp4``, and 25 of the prompts for temporal flickering.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..console import say
from ..errors import InputError
from ..files import check_output, replacing
from .job_list import Job, JobError, read_list
from .names import problem, slug

#: The map from a clip's file to its prompt, as VBench's ``--mode custom_input --prompt_file`` reads it.
MAP = "prompts.json"
#: Clips of a prompt: in general, and of the prompts for VBench's temporal flickering, of which static ones are left out later.
FLICKERING, CLIPS_OF_FLICKERING = "temporal_flickering", 25


@dataclass(frozen=True)
class Suite:
    """A suite.

    Attributes:
        clips: of a prompt.
        numbered: whether clips are named by their number in the list, else by prompt and number.
    """

    title: str
    clips: int
    numbered: bool


#: What a file of prompts in JSON must be, in a message.
_FORM = "is no list of prompts as VBench_full_info.json is: objects with prompt_en and dimension."
LAYOUTS = {"evalcrafter": Suite("EvalCrafter", 1, numbered=True), "vbench": Suite("VBench", 5, numbered=False)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``prompts``."""
    parser.add_argument("suite", choices=LAYOUTS, help="whose prompts they are")
    text = "the suite's prompt file: .txt with a prompt a line, or VBench_full_info.json"
    parser.add_argument("--file", type=Path, required=True, help=text)
    parser.add_argument("--output", type=Path, required=True, help="the list of jobs to write, such as jobs.jsonl")
    parser.add_argument("--clips", type=int, help="clips of each prompt (default: the suite's own: 1 for EvalCrafter, 5 for VBench)")
    parser.add_argument("--seed", type=int, default=0, help="seed of a prompt's first clip; the next has the next seed")


def prompts(arguments: argparse.Namespace) -> None:
    """Write a suite's prompts as a list of jobs."""
    suite = LAYOUTS[arguments.suite]
    if arguments.output.suffix != ".jsonl":
        raise InputError(f"--output is {arguments.output}; the list of jobs should end in .jsonl.")
    if arguments.clips is not None and not 1 <= arguments.clips <= 1000:
        raise InputError(f"--clips is {arguments.clips}; it must be 1 to 1000.")
    if not -(2**63) <= arguments.seed <= 2**64 - 1000:
        raise InputError(f"--seed is {arguments.seed}; it must be -2^63 to 2^64 - 1000, since each clip of a prompt has the next one.")
    check_output(arguments.output)
    jobs = [
        {"prompt": prompt, "seed": arguments.seed + index}
        for prompt, clips in _prompts(arguments.file, suite) for index in range(arguments.clips or clips)
    ]
    names = file_names([str(job["prompt"]) for job in jobs], arguments.suite)
    with replacing(arguments.output) as temporary:
        lines = [json.dumps({"name": name, **job}, ensure_ascii=False) for name, job in zip(names, jobs, strict=True)]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    say(f"{arguments.output}: {len(jobs)} jobs")


def _prompts(path: Path, suite: Suite) -> Iterator[tuple[str, int]]:
    """Prompts and how many clips each has."""
    if path.suffix != ".json":
        for job in read_list(path):
            yield str(job.get("prompt", "")), suite.clips
        return
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        rows: list[tuple[str, Any]] = [(entry["prompt_en"], entry.get("dimension", ())) for entry in entries]
    except OSError as error:
        raise JobError(f"{path}: can't be read ({error.strerror or error}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JobError(f"{path} {_FORM}") from error
    if not rows or not all(isinstance(prompt, str) for prompt, _ in rows):
        raise JobError(f"{path} {_FORM}")
    for prompt, dimensions in rows:
        yield prompt, CLIPS_OF_FLICKERING if FLICKERING in dimensions else suite.clips


def file_names(texts: Sequence[str], layout: str) -> list[str]:
    """The clips' names, without the ending, as a suite's tools expect them; unique also where upper and lower case are the same.

    A prompt that no file can be named by has a short name: some words, a digest, and the number of the clip.
    """
    if LAYOUTS[layout].numbered:
        return [f"{number:04}" for number in range(len(texts))]
    counts, names = Counter[str](), []
    owners: dict[str, str] = {}
    for text in texts:
        folded = unicodedata.normalize("NFC", text).casefold()
        owner = owners.setdefault(folded, text)
        plain = owner == text and problem(f"{text}-000") is None
        base = text if plain else f"{slug(text)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        names.append(f"{base}-{counts[text]}")
        counts[text] += 1
    return names


def arranged(jobs: Sequence[Job], layout: str) -> list[Job]:
    """Jobs with the names that a suite's tools expect, by their order and their prompts."""
    names = file_names([job.options.prompt for job in jobs], layout)
    return [replace(job, name=name, options=copy.copy(job.options)) for job, name in zip(jobs, names, strict=True)]


def write_map(output: Path, jobs: Sequence[Job], suffix: str) -> None:
    """Write which prompt each clip is of, for tools that don't read it off the name."""
    with replacing(output / MAP) as temporary:
        listed = {str(output / (job.name + suffix)): job.options.prompt for job in jobs}
        temporary.write_text(json.dumps(listed, indent=1, ensure_ascii=False), encoding="utf-8")
