"""Writes the table of ``docs/models.md`` from ``vc_core/published.yaml``: `python -m dev.models_table`."""

from __future__ import annotations

from harness.comfyui import REPOSITORY
from vc_core.fetch import HUB, published_files

PAGE = REPOSITORY / "docs" / "models.md"
HEAD = "| name | model | source | size | licence | goes to `models/` as |"


def table() -> str:
    """A line a file, as Markdown."""
    lines = [
        f"| `{file.name}` | {file.title} | [{file.repository}]({HUB}/{file.repository}) `{file.file}` | {file.size} "
        f"| {file.licence} | `{file.folder}/{file.save_as}` |"
        for file in published_files().values()
    ]
    return "\n".join([HEAD, "|---|---|---|---|---|---|", *lines])


def main() -> None:
    """Put the table in the place of the one that stands there."""
    before, _, after = PAGE.read_text(encoding="utf-8").partition(HEAD)
    rest = after.partition("\n\n")[2]
    PAGE.write_text(before + table() + "\n\n" + rest, encoding="utf-8")


if __name__ == "__main__":
    main()
