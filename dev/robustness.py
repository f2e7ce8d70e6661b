"""Counts what the pack was tried with, and writes ``docs/robustness.md``: `python -m dev.robustness --graphs 1000 --runs 200`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

from harness.comfyui import REPOSITORY

from . import endurance, fuzz

PAGE = REPOSITORY / "docs" / "robustness.md"
#: Tests of files, and what they show.
FILES = {
    "tests/test_hostile_files.py": "hostile pickles: no code is run; the error names what is refused",
    "tests/test_audit.py": "files, metadata and configurations ask the system for nothing but the file",
    "tests/test_proportion.py": "files that would cost much more than they hold",
    "tests/test_damaged_files.py": "damaged files, files with false headers: a clear error, no hang, no excessive memory",
    "tests/test_damaged_models.py": "missing, misshapen, NaN and infinite tensors, hostile configurations: the error names them",
    "tests/test_odd_values.py": "odd values in files and configurations",
    "tests/test_layouts.py": "layouts in which models are found: they are read",
    "tests/test_images.py": "images of all kinds, damaged, too large, of other formats",
    "tests/test_videos.py": "videos of all kinds, damaged, too large; playlists, protocols and full disks",
    "tests/test_checkpoint_convert.py": "converting files, also when interrupted or killed: either the old or the new file remains",
    "tests/test_command_line_errors.py": "wrong options, outputs and surroundings of the command line",
    "tests/test_training_errors.py": "odd settings, outputs and states of training",
    "tests/test_fetch.py": "downloads that break, are damaged or are no model",
}
TEMPLATE = Path(__file__).with_suffix(".md")


def counted(tests: str) -> Counter[str]:
    """How many tests of a file passed, failed and were skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", tests], cwd=REPOSITORY, check=False)
        cases = ET.parse(report).getroot().iter("testcase")
        return Counter(next((child.tag for child in case if child.tag != "properties"), "passed") for case in cases)


def page(graphs: fuzz.Report, runs: endurance.Report, files: dict[str, Counter[str]]) -> str:
    """The whole page, as Markdown."""
    lines = ["| test | count | result |", "|---|---|---|"]
    for name, what in FILES.items():
        ended = ", ".join(f"{count} {how}" for how, count in files[name].most_common())
        lines.append(f"| {what} (`{name}`) | {files[name].total()} tests | {ended} |")
    ended = ", ".join(f"{count} {how}" for how, count in graphs.endings.most_common())
    lines.append(f"| graphs changed at random (`python -m dev.fuzz`) | {graphs.endings.total()} graphs | {ended} |")
    lines.append(f"| a known graph in between | {graphs.known} times | the same result each time, bit by bit |")
    kinds = ", ".join(f"{count} {how}" for how, count in runs.endings.most_common())
    lines.append(f"| different runs on one server (`python -m dev.endurance`) | {runs.endings.total()} runs | {kinds} |")
    memory = f"{runs.resident[0]} to {runs.resident[-1]} MB"
    lines.append(f"| memory over these runs | {memory} | {runs.slope():+.2f} MB per run after warming up |")
    faults = [*graphs.findings, *runs.findings]
    lines.append(f"| faults | {len(faults)} | {'; '.join(faults) or 'none'} |")
    return TEMPLATE.read_text(encoding="utf-8").replace("{counts}", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    files = {name: counted(name) for name in FILES}
    with fuzz.fuzzing_server() as server:
        graphs = fuzz.fuzz(server, arguments.graphs, arguments.seed, lambda done: print(f"{done} graphs", flush=True))
    with fuzz.fuzzing_server() as server:
        runs = endurance.endure(server, arguments.runs, arguments.seed, lambda line: print(line, flush=True))
    PAGE.write_text(page(graphs, runs, files))
    print(PAGE.relative_to(REPOSITORY))
    sys.exit(bool(graphs.findings or runs.findings or runs.slope() > endurance.SLOPE))


if __name__ == "__main__":
    main()
