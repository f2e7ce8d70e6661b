"""Writes ``docs/works_with.md``, the list of what works with what, from the tests' table: `python -m dev.works_with`."""

from __future__ import annotations

from itertools import groupby

from tests.comfyui.works_with.bench import TITLES
from tests.comfyui.works_with.limits import LIMITS
from tests.comfyui.works_with.options import FLAGS
from tests.comfyui.works_with.table import GROUPS, ROWS, Row

from .comfyui import REPOSITORY

PAGE = REPOSITORY / "docs" / "works_with.md"
INTRODUCTION = """# What works with our models

Each line is a test in a real ComfyUI that looks at the latents or pixels which come out (`tests/comfyui/works_with`).
The models are the published ones' forms at tiny widths, with the weights that the authors' code was recorded with, and the bundled one.

This page is written by `python -m dev.works_with`.
"""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION]
    for group in GROUPS:
        rows = [row for row in ROWS if row.group == group]
        lines = [
            f"| {what} | {holds} | {', '.join(titles(list(same)))} |"
            for (what, holds), same in groupby(rows, lambda row: (row.what, row.holds))
        ]
        parts.append("\n".join([f"## {group}\n", "| node or feature | what holds | tried on |", "|---|---|---|", *lines]) + "\n")
    flags = [f"| `{flag.option}` | {flag.bound:.1g} | {'only where there is a GPU' if flag.needs_gpu else ''} |" for flag in FLAGS]
    heading = (
        "## Options of ComfyUI's command line\n\n"
        "How far a latent may be from float32's, in its deviations (`tests/comfyui/test_memory.py`).\n"
    )
    parts.append("\n".join([heading, "| option | at most | tried |", "|---|---|---|", *flags]) + "\n")
    limits = [f"- **{what}.** {why}" for what, why in LIMITS]
    parts.append("\n".join(["## What does not work, and why\n", *limits]) + "\n")
    return "\n".join(parts)


def titles(rows: list[Row]) -> list[str]:
    """What the rows were tried on."""
    return [TITLES[model] for row in rows for model in row.models]


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(PAGE.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
