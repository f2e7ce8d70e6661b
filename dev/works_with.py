"""Writes ``docs/works_with.md``, the list of what works with what, from the tests that show it: `python -m dev.works_with`."""

from __future__ import annotations

from itertools import groupby

from harness.bench import TITLES
from harness.comfyui import DEFAULT_RELEASE, OLDEST_RELEASE, REPOSITORY
from harness.works_with import CLAIMS, ROWS
from harness.works_with.limits import LIMITS
from harness.works_with.options import FLAGS
from harness.works_with.table import GROUPS, Line

PAGE = REPOSITORY / "docs" / "works_with.md"
INTRODUCTION = f"""# What works with these models

Each line is a test in a real ComfyUI that checks the resulting latents or pixels (`tests/comfyui`).
`make test-all` runs all of them on ComfyUI {DEFAULT_RELEASE} and on {OLDEST_RELEASE}.
The tested models are the bundled one, and models with the structure of the published ones but fewer channels.

This page is written by `python -m dev.works_with`.
"""


def page() -> str:
    """The whole page, as Markdown."""
    parts, shown = [INTRODUCTION], [*ROWS, *(line for lines in CLAIMS.values() for line in lines)]
    for group in GROUPS:
        rows = [line for line in shown if line.group == group]
        lines = [
            f"| {what} | {holds} | {', '.join(titles(list(same)))} |"
            for (what, holds), same in groupby(rows, lambda line: (line.what, line.holds))
        ]
        parts.append("\n".join([f"## {group}\n", "| node or feature | result | tested with |", "|---|---|---|", *lines]) + "\n")
    flags = [f"| `{flag.option}` | {flag.bound:.1g} | {'only on a GPU' if flag.needs_gpu else ''} |" for flag in FLAGS]
    heading = (
        "## Options of ComfyUI's command line\n\n"
        "Largest allowed difference of a latent from the float32 one, in standard deviations (`tests/comfyui/test_options.py`).\n"
    )
    parts.append("\n".join([heading, "| option | at most | tested |", "|---|---|---|", *flags]) + "\n")
    limits = [f"- **{what}.** {why}" for what, why in LIMITS]
    parts.append("\n".join(["## What does not work, and why\n", *limits]) + "\n")
    return "\n".join(parts)


def titles(lines: list[Line]) -> list[str]:
    """What the lines were tried on."""
    return [TITLES[model] for line in lines for model in line.models]


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(PAGE.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
