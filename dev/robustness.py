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
    "tests/test_damaged_files.py": "damaged files, files with false headers: a clear error, no hang, no excessive memory",
    "tests/test_damaged_models.py": "missing, misshapen, NaN and infinite tensors, hostile configurations: the error names them",
    "tests/test_checkpoint_convert.py": "converting files, also when interrupted or killed: either the old or the new file remains",
}
INTRODUCTION = """# Robustness

Checkpoints and graphs come from strangers, and a server runs for weeks. This page lists what was tested and how it ended, as last
counted by `python -m dev.robustness`. `make test` runs a smaller part of these tests.
"""
RULES = """## Guarantees

- **Files.** Reading a checkpoint never runs code from it. Its pickle is interpreted without importing anything, with limits on size and
  number of steps. Loading checks every tensor against the file's checksum, if there is one, and refuses NaN and infinite values; the
  error names the tensor. Converting writes to a temporary file, which replaces the target when it is complete.
- **Graphs.** A graph ends with a result, is refused by ComfyUI before it runs (*refused*), or ends with a message of ours
  (*error of ours*), which names the value, what is possible and what to do. An error that Python or torch raises
  inside our nodes counts as a fault. If a latent or a pass does not fit into the machine's memory, it is refused before memory is
  allocated.
- **Long runs.** After warming up, a server's memory grows by less than 1 MB per run, cancelled and failed runs included.
- **Seeds.** The same seed gives the same video, bit by bit, on the same device: from run to run, after a restart, and whatever ran in
  between. A video's position in a batch only changes its seed (the seed plus the position); apart from that, its values differ only by
  the rounding of a larger batch. All noise is drawn on the CPU, so it does not depend on the device.
- **Outside effects.** Importing and running the nodes opens no connection, starts no program and writes only to ComfyUI's folders. The
  one exception: matplotlib runs the system's `fc-list` once, to find fonts. Only `python -m vc_core fetch` uses the network.
"""


def counted(tests: str) -> Counter[str]:
    """How many tests of a file passed, failed and were skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", tests], cwd=REPOSITORY, check=False)
        cases = ET.parse(report).getroot().iter("testcase")
        return Counter(next((child.tag for child in case if child.tag != "properties"), "passed") for case in cases)


def page(graphs: fuzz.Report, runs: endurance.Report, files: dict[str, Counter[str]]) -> str:
    """The whole page, as Markdown."""
    lines = [INTRODUCTION, "| test | count | result |", "|---|---|---|"]
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
    lines.append(f"| faults | {len(faults)} | {'; '.join(faults) or 'none'} |\n")
    return "\n".join([*lines, RULES])


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
