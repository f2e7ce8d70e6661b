"""The tiers of tests, the order in which files run, and what is said at the end of a run.

A test marked ``full`` takes long and runs with ``--full`` only (``make test-all``); how many were left out is said at the end.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from harness import golden_contents, goldens


@pytest.fixture
def agrees(record_property: Callable[[str, object], None]) -> Callable[[str, str, Tensor, Tensor, float], None]:
    """Asserts that a tensor is the recorded one up to a tolerance: ``agrees(model, kind, ours, recorded, tolerance)``.

    The error is kept for the table of ``dev/parity.py``, which has a column for each kind.
    """

    def check(model: str, kind: str, ours: Tensor, recorded: Tensor, tolerance: float) -> None:
        measure = goldens.pixel_error if kind.startswith("pixels") else goldens.error
        error = measure(ours, recorded)
        record_property("parity", [model, kind, error])
        assert error <= tolerance, f"{model}, {kind}: off by {error:.2e}, allowed are {tolerance:.2e}"

    return check

#: Seconds that each file took, the longest of which start first, so that no worker waits for another at the end.
SECONDS = Path(__file__).parent / "seconds.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("videocrafter")
    group.addoption("--full", action="store_true", help="also run the tests marked full, which take an hour")
    group.addoption("--write-seconds", metavar="FILE", help=f"write the seconds that each file of tests took, e.g. {SECONDS.name}, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.closing_lines = []
    config.golden_used = []
    config.left_out = 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked full unless asked for, and puts the longest files first."""
    if not config.getoption("--full"):
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if not item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        config.left_out = len(left_out)
    seconds = json.loads(SECONDS.read_text())
    items.sort(key=lambda item: -seconds.get(file_of(item.nodeid), 0.0))  # stable: a file's tests keep their order


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was left out, where the logs are and, of recordings that were asked for, what was not compared."""
    config = terminalreporter.config
    reports = [report for listed in terminalreporter.stats.values() for report in listed if isinstance(report, pytest.TestReport)]
    if target := config.getoption("--write-seconds"):
        Path(target).write_text(json.dumps(seconds_by_file(reports), indent=1, sort_keys=True) + "\n")
    for line in config.closing_lines:
        terminalreporter.write_line(line)
    if "GOLDEN" in os.environ:
        for line in golden_contents.report([*config.golden_used, *golden_contents.used()]):
            terminalreporter.write_line(line)
    if config.left_out:
        terminalreporter.write_line(f"{config.left_out} long tests were left out; `make test-all`, or pytest's --full, runs them.")


def seconds_by_file(reports: Iterable[pytest.TestReport]) -> dict[str, float]:
    """The seconds of all tests of a file, with their fixtures."""
    seconds: Counter[str] = Counter()
    for report in reports:
        seconds[file_of(report.nodeid)] += report.duration
    return {file: round(total, 1) for file, total in seconds.items()}


def file_of(nodeid: str) -> str:
    """``tests/test_x.py`` of ``tests/test_x.py::test_y[z]``."""
    return nodeid.split("::")[0]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several workers hands over what it would say to the process that the user sees."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["closing_lines"] = session.config.closing_lines
        session.config.workeroutput["left_out"] = session.config.left_out
        session.config.workeroutput["golden_used"] = golden_contents.used()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist is done, or died."""
    output = getattr(node, "workeroutput", {})
    node.config.closing_lines += output.get("closing_lines", [])
    node.config.golden_used += output.get("golden_used", [])
    node.config.left_out = max(node.config.left_out, output.get("left_out", 0))  # each worker collects all tests
