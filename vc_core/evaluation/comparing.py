"""Two evaluations side by side, paired by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .evaluator import measure_of, title
from .page import write_comparison_page
from .results import Row, keys_of
from .statistics import Difference, paired_difference


@dataclass(frozen=True)
class Line:
    """What one measure says of two evaluations."""

    key: str
    difference: Difference

    @property
    def verdict(self) -> str:
        """Which of the two is better, "A" or "B"; "" where the interval includes 0 or the measure has no better."""
        measure = measure_of(self.key)
        if measure is None or not measure.better or not self.difference.clear:
            return ""
        return "B" if (self.difference.mean > 0) == (measure.better == "higher") else "A"


def paired(first: Sequence[Row], second: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of the same prompt, the n-th of each with the n-th of the other; those without prompts by the videos' names.

    Raises:
        InputError: nothing can be paired.
    """
    sides = []
    for rows in (first, second):
        groups: dict[str, list[Row]] = {}
        for row in rows:
            if not row.error:
                groups.setdefault(f"prompt {row.prompt}" if row.prompt else f"video {row.video}", []).append(row)
        sides.append(groups)
    pairs = [pair for name in sides[0] if name in sides[1] for pair in zip(sides[0][name], sides[1][name], strict=False)]
    if not pairs:
        raise InputError("The two evaluations have no prompt in common, nor a video's name where there are no prompts.")
    return pairs


def lines(pairs: Sequence[tuple[Row, Row]]) -> list[Line]:
    """A line for each value that both rows of some pair have."""
    found = []
    for key in keys_of(row for pair in pairs for row in pair):
        values = [(one.values[key], other.values[key]) for one, other in pairs if key in one.values and key in other.values]
        if values:
            first, second = zip(*values, strict=True)
            found.append(Line(key, paired_difference(first, second)))
    return found


def table(pairs: Sequence[tuple[Row, Row]], first: str, second: str) -> str:
    """A Markdown table of the means, their difference with its interval, and which is better."""
    names = {"A": f"A: {first}", "B": f"B: {second}"}
    rows = [f"| measure | pairs | {names['A']} | {names['B']} | B - A | 95 % interval | better |", "|---|---|---|---|---|---|---|"]
    for line in lines(pairs):
        each = line.difference
        interval = "" if each.low is None or each.high is None else f"{each.low:+.4g} to {each.high:+.4g}"
        cells = [title(line.key), str(each.pairs), f"{each.first:.4g}", f"{each.second:.4g}", f"{each.mean:+.4g}", interval, line.verdict]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def write_comparison(pairs: Sequence[tuple[Row, Row]], path: Path, first: str, second: str) -> None:
    """Write the page of a comparison."""
    rows = []
    for line in lines(pairs):
        each = line.difference
        rows.append({"key": line.key, "difference": each, "verdict": line.verdict, "clear": each.clear})
    write_comparison_page(rows, pairs, path, first, second)
