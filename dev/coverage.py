"""Which branches of `vc_core` its own tests leave untested: `python -m dev.coverage` writes ``docs/coverage.md``.

The tests in a real ComfyUI are not counted: what they reach is in another process. Those that judge the bundled models' videos are
left out: they take longest, and reach what the recorded runs do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.comfyui import REPOSITORY

PAGE = REPOSITORY / "docs" / "coverage.md"
INTRODUCTION = """# Code of `vc_core` that no test reaches

Lines and branches that no test reaches. Not counted: the tests in ComfyUI, and the tests that judge the bundled models' videos. A branch
is written as the line it starts from and the line it leads to ("end" is the end of the function). `make coverage` runs the tests and
writes this page.
"""


def measured(tests: list[str]) -> dict[str, Any]:
    """Coverage's report of the tests, as its JSON has it. Raises CalledProcessError if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        options = ["--cov=vc_core", "--cov-branch", f"--cov-report=json:{report}", "-q"]
        subprocess.run([sys.executable, "-m", "pytest", *options, *tests], cwd=REPOSITORY, check=True)
        return json.loads(report.read_text())


def page(report: dict[str, Any]) -> str:
    """The whole page, as Markdown."""
    totals = report["totals"]
    lines = [
        INTRODUCTION,
        f"{totals['covered_branches']} of {totals['num_branches']} branches and {totals['covered_lines']} of {totals['num_statements']} "
        "lines are tested.\n",
        "| file | branches tested | untested lines | untested branches |",
        "|---|---|---|---|",
    ]
    for name, file in sorted(report["files"].items()):
        summary, branches = file["summary"], file["missing_branches"]
        if not file["missing_lines"] and not branches:
            continue
        missed = set(file["missing_lines"])
        # What leads from or to a line that is listed anyway says nothing new.
        shown = [f"{start} to {end if end > 0 else 'end'}" for start, end in branches if start not in missed and end not in missed]
        share = f"{summary['covered_branches']} of {summary['num_branches']}"
        lines.append(f"| `{name}` | {share} | {', '.join(spans(sorted(missed)))} | {', '.join(shown)} |")
    return "\n".join(lines) + "\n"


def spans(numbers: list[int]) -> list[str]:
    """Rising numbers, those that follow each other as one: 3, 4, 5, 9 -> 3-5, 9."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return [f"{each[0]}-{each[-1]}" if len(each) > 1 else str(each[0]) for each in found]


def main() -> None:
    """Run the tests and write the page."""
    report = measured(sys.argv[1:] or ["tests", "--ignore=tests/comfyui", "--ignore-glob=tests/test_bundled_*"])
    PAGE.write_text(page(report))
    print(PAGE.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
