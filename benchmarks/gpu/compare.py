"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from .results import KEYS, Figures, shown

#: Figures that say nothing about which run is better.
LEFT_OUT = ("bound", "operations", "kernels")


def numbers(row: Figures) -> dict[str, float]:
    """The figures of a result that are numbers."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in (*KEYS, *LEFT_OUT) and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def comparison(first: Sequence[Figures], second: Sequence[Figures]) -> str:
    """Each figure of both, and the second as a share of the first, in Markdown. What only one of them has is listed below."""
    # Of a case that ran twice, the later result counts.
    before, after = ({tuple(row.get(key, "") for key in KEYS): row for row in rows} for rows in (first, second))
    lines = ["| case | figure | first | second | second / first |", "|---|---|---|---|---|"]
    for case in (case for case in before if case in after):
        name, both = " ".join(filter(None, case)), (before[case], after[case])
        for figure in (each for each in numbers(both[0]) if each in numbers(both[1])):
            one, other = (numbers(row)[figure] for row in both)
            ratio = f"{other / one:.3f}" if one else ""
            lines.append(f"| {name} | {figure} | {shown(one)} | {shown(other)} | {ratio} |")
        for which, row in zip(("first", "second"), both, strict=True):
            lines += [f"| {name} | {word} in the {which}: {row[word]} | | | |" for word in ("error", "skipped") if word in row]
    for which, own, others in (("first", before, after), ("second", after, before)):
        missing = [" ".join(filter(None, case)) for case in own if case not in others]
        if missing:
            lines += ["", f"Only in the {which}: {'; '.join(missing)}."]
    return "\n".join(lines)
