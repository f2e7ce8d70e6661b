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
    "tests/test_hostile_files.py": "hostile pickles, in torch's zip and in its older form: nothing run, refused by name",
    "tests/test_damaged_files.py": "damaged files, and such as lie about themselves: an error that says so, no hang, no flood of memory",
    "tests/test_damaged_models.py": "misshapen, missing, NaN and infinite tensors, and hostile descriptions: an error that names them",
    "tests/test_checkpoint_convert.py": "converting, interrupted and killed too: the old file or the new one",
}
INTRODUCTION = """# What it was tried with

Checkpoints come from strangers, graphs from forums, and a server runs for weeks. What was tried, and how it ended, as
`python -m dev.robustness` last counted it; `make test` tries a smaller part of it every time.
"""
RULES = """## What holds

- **Files.** Reading a checkpoint never runs code that it holds: its pickle is interpreted on mere names, with bounds on its size and
  steps. Loading compares every tensor with the file's checksum, where it has one, and refuses NaN and infinite numbers by the tensor's
  name. Converting writes beside the target and puts the new file in its place when it is complete.
- **Graphs.** A graph ends in a result, in ComfyUI's refusal before it runs (*refused*), or in an error of ours that names
  the value, what is possible and what to do. What Python or torch raise inside our nodes counts as a fault. A latent or a pass that this
  machine's memory can't hold is refused before anything is taken.
- **Long runs.** After warming up, a server's memory grows by less than 1 MB a run, cancelled and failed runs among them.
- **Seeds.** The same seed gives the same video, to the bit, on the same device from run to run and after a restart, whatever ran in
  between; a video's place in a batch only chooses its seed (the seed plus the place), and its numbers then differ by no more than the
  rounding of a larger batch. All noise is drawn on the CPU, so that it does not depend on the device.
- **Outward.** Neither importing nor running the nodes opens a connection, starts a program or writes outside of ComfyUI's folders (but
  for matplotlib, which once asks the system's `fc-list` for fonts). Only `python -m vc_core fetch`, which is asked to, reaches the network.
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
    lines = [INTRODUCTION, "| tried | count | ended |", "|---|---|---|"]
    for name, what in FILES.items():
        ended = ", ".join(f"{count} {how}" for how, count in files[name].most_common())
        lines.append(f"| {what} (`{name}`) | {files[name].total()} tests | {ended} |")
    ended = ", ".join(f"{count} {how}" for how, count in graphs.endings.most_common())
    lines.append(f"| graphs changed at random (`python -m dev.fuzz`) | {graphs.endings.total()} graphs | {ended} |")
    lines.append(f"| the known graph in between | {graphs.known} times | the same bits each time |")
    kinds = ", ".join(f"{count} {how}" for how, count in runs.endings.most_common())
    lines.append(f"| runs on one server, alternating (`python -m dev.endurance`) | {runs.endings.total()} runs | {kinds} |")
    memory = f"{runs.resident[0]} to {runs.resident[-1]} MB"
    lines.append(f"| memory over these runs | {memory} | {runs.slope():+.2f} MB a run after warming up |")
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
