"""The page of an evaluation or of a comparison: one HTML file with its clips inside, which needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import replacing
from .charts import distributions, radar
from .evaluator import key, measure_of, title
from .previews import preview
from .results import Row, keys_of, means

TEMPLATE = Path(__file__).with_name("page.html")
#: Clips that are shown of the best and of the worst by each measure.
SHOWN = 3


def write_page(rows: Sequence[Row], path: Path) -> None:
    """Write the page of an evaluation."""
    names = keys_of(rows)
    groups = [_extremes(name, rows) for name in names]
    heading = f"{len(rows)} video{'s' * (len(rows) != 1)}"
    notes = ["Means at the axes. The red line of a distribution is its mean. Values of different towers or flows can't be compared."]
    if cut := sum(row.cut for row in rows):
        notes.append(f"Only the first frames of {cut} of the videos were measured.")
    notes.append("No total is given: it would need every measure of a suite, by that suite's own models.")
    charts = [chart for chart in (radar({"mean": means(rows)}), distributions(rows)) if chart]
    _write(
        path, heading=heading, notes=notes, charts=charts, groups=groups, clips_title="Best and worst clips by",
        previews=_previews(groups, {row.video: row for row in rows}), table_title="All videos",
        columns=[_column("video", "name"), _column("prompt", ""), *(_column(title(name), _about(name)) for name in names)],
        cells=[_line(row, names) for row in rows], legend=[_explained(name) for name in names], skipped=_skipped(rows),
    )


def write_comparison_page(
    lines: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[Row, Row]], path: Path, first: str, second: str
) -> None:
    """Write the page of a comparison.

    Args:
        lines: for each measure its key, its :class:`.statistics.Difference`, whether that is clear, and which run is better.
        pairs: rows of the two runs that belong together.
        first, second: the runs' names.
    """
    groups = [_changes(line["key"], pairs) for line in lines]
    rows = {f"{side}{index}": row for index, pair in enumerate(pairs) for side, row in zip("AB", pair, strict=True)}
    first_rows, second_rows = zip(*pairs, strict=True)
    chart = radar({"A": means(first_rows), "B": means(second_rows)})
    names = ("measure", "better", "pairs", "A", "B", "B - A", "95 % interval")
    _write(
        path, heading=f"A: {first}, B: {second}", table_title=f"{len(pairs)} pairs",
        notes=[
            "Pairs have the same prompt. The interval is of the mean difference, by bootstrap; A or B is called better where it "
            "excludes 0. With many measures, one in twenty does so by chance."
        ],
        charts=[chart] if chart else [], groups=groups, clips_title="Greatest changes by",
        previews=_previews(groups, rows), columns=[_column(name, "") for name in names], cells=[_difference(line) for line in lines],
        legend=[_explained(line["key"]) for line in lines], skipped={},
    )


def _previews(groups: Sequence[Mapping[str, Any]], rows: Mapping[str, Row]) -> dict[str, str | None]:
    """The previews of the clips that are shown, by their names in the groups."""
    used = {clip for group in groups for part in group["parts"] for entry in part["entries"] for clip in entry["clips"]}
    return {name: preview(Path(rows[name].path)) for name in rows if name in used}


def _line(row: Row, names: Sequence[str]) -> list[dict[str, Any]]:
    """A video's line of the table."""
    values = [_cell(row.values.get(name), name in row.outside) for name in names]
    return [_cell(row.video), _cell(row.error or row.prompt or ""), *values]


def _difference(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A measure's line of a comparison."""
    each = line["difference"]
    interval = "" if each.low is None else f"{each.low:+.4g} to {each.high:+.4g}"
    numbers = [_cell(value) for value in (each.pairs, each.first, each.second, each.mean)]
    return [_cell(title(line["key"])), _cell(line["verdict"]), *numbers, _cell(interval)]


def _extremes(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """The best and the worst clips by a measure; the highest and lowest where it has no better."""
    measure = measure_of(name)
    having = sorted((row for row in rows if name in row.values), key=lambda row: row.values[name])
    low, high = having[:SHOWN], having[::-1][:SHOWN]
    better = "" if measure is None else measure.better
    worst, best = (low, high) if better != "lower" else (high, low)
    titles = ("Highest", "Lowest") if not better else ("Best", "Worst")
    parts = [
        {"title": part, "entries": [_entry([row.video], row, f"{row.values[name]:.4g}", row.video) for row in found]}
        for part, found in zip(titles, (best, worst), strict=True)
    ]
    return {"title": title(name), "parts": parts}


def _changes(name: str, pairs: Sequence[tuple[Row, Row]]) -> dict[str, Any]:
    """The pairs whose value rises and falls most."""
    having = [(index, one, other) for index, (one, other) in enumerate(pairs) if name in one.values and name in other.values]
    having.sort(key=lambda each: each[2].values[name] - each[1].values[name])
    parts = []
    for part, found in (("Higher in B", having[::-1][:SHOWN]), ("Lower in B", having[:SHOWN])):
        entries = [
            _entry([f"A{index}", f"B{index}"], one, f"{one.values[name]:.4g}, {other.values[name]:.4g}", f"{one.video}, {other.video}")
            for index, one, other in found
        ]
        parts.append({"title": part, "entries": entries})
    return {"title": title(name), "parts": parts}


def _entry(clips: list[str], row: Row, value: str, name: str) -> dict[str, Any]:
    return {"clips": clips, "prompt": row.prompt or "", "value": value, "name": name}


def _cell(value: str | float | None, outside: bool = False) -> dict[str, Any]:
    if value is None:
        return {"text": "", "sort": "", "out": False}
    return {"text": value, "sort": None, "out": False} if isinstance(value, str) else {
        "text": f"{value:.4g}", "sort": repr(value), "out": outside
    }


def _column(name: str, about: str) -> dict[str, str]:
    return {"title": name, "about": about}


def _about(name: str) -> str:
    measure = measure_of(name)
    if measure is None:
        return ""
    about = f"{measure.paper}; " + (f"{measure.better} is better" if measure.better else "neither high nor low is better")
    return about + ("; reads the prompt" if measure.reads_text else "")


def _explained(name: str) -> list[str]:
    """The line of a measure in the list of all."""
    measure = measure_of(name)
    if measure is None:
        return [name, "", "", "", ""]
    bounds = ["" if each is None else f"{each:g}" for each in (measure.low, measure.high)]
    span = f"{bounds[0]} to {bounds[1] or 'any'}" if any(bounds) else "any"
    return [title(name), measure.paper, span, measure.better or "neither", "yes" if measure.reads_text else "no"]


def _skipped(rows: Sequence[Row]) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows:
        for name, reason in row.skipped.items():
            found.setdefault(title(name), reason)
    measured = {title(key(measure)) for name in keys_of(rows) if (measure := measure_of(name))}
    return {
        name: f"{reason}" + (" (some videos)" if name in measured else "") for name, reason in found.items()
    }


def _write(path: Path, **content: Any) -> None:
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    with replacing(path) as temporary:
        temporary.write_text(template.render(**content), encoding="utf-8")
