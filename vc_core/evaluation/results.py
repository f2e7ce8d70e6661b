"""The results of an evaluation: a line of JSON for each video, and a table of all."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ..errors import InputError
from ..files import replacing

LINES, TABLE, PAGE = "results.jsonl", "results.csv", "report.html"


@dataclass
class Row:
    """The results of one video.

    Attributes:
        video: its name.
        path: where it lies, for the page.
        prompt: None where it has none.
        identity: of the file, the prompt and the settings; a row is used again where it is the same.
        cut: whether the file has more frames than were measured.
        values: by the keys of :func:`.evaluator.key`. What could not be measured is not in it.
        curves: the values of frames, likewise; firsts: the number of the first of these frames.
        skipped: reasons by measure.
        outside: keys of values outside their measure's range.
        error: why the file could not be read; then there are no values.
    """

    video: str
    path: str = ""
    prompt: str | None = None
    identity: str = ""
    frames: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    cut: bool = False
    values: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    firsts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    error: str = ""

    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)


def read_rows(path: Path, strict: bool = True) -> list[Row]:
    """The rows of a file of results, or of the folder that has it.

    Args:
        strict: refuse lines that are no rows; else leave them out, such as a last line that was not written to its end.

    Raises:
        InputError: there is no such file, or a line of it is no row.
    """
    file = path / LINES if path.is_dir() else path
    try:
        lines = file.read_bytes().decode("utf-8", "replace").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"There are no results at {file}: give the folder that vc-core evaluate wrote, or its {LINES}.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            if strict:
                reason = f": {error}" if isinstance(error, InputError) else ""
                raise InputError(f"{file}, line {number}, is no row of results as vc-core evaluate writes them{reason}.") from error
    return rows


def _row(content: dict[str, object]) -> Row:
    known = {each.name for each in fields(Row)}
    row = Row(**{name: value for name, value in content.items() if name in known})  # type: ignore[arg-type]
    for name, value in row.values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"the value of {name} is {value!r:.40}")
    return row


def keys_of(rows: Iterable[Row]) -> list[str]:
    """The keys of all values, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def write_lines(rows: Sequence[Row], path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("".join(row.line() + "\n" for row in rows), encoding="utf-8")


def write_table(rows: Sequence[Row], path: Path) -> None:
    """A CSV file with a row for each video; what was not measured is empty."""
    names = keys_of(rows)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["video", "prompt", "frames", "width", "height", "fps", *names, "out of range", "error"])
    for row in rows:
        values = [row.values.get(name, "") for name in names]
        size = [row.frames, row.width, row.height, row.fps]
        writer.writerow([row.video, row.prompt or "", *size, *values, "; ".join(row.outside), row.error])
    with replacing(path) as temporary:
        temporary.write_text(buffer.getvalue(), encoding="utf-8", newline="")


def means(rows: Iterable[Row]) -> dict[str, float]:
    """The mean of each value over the videos that have it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.values.items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
