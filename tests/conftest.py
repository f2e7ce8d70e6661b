"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says at the end where things are and, of recordings that were asked for, what was not compared."""
    for line in getattr(terminalreporter.config, "where_things_are", []):
        terminalreporter.write_line(line)
    if "GOLDEN" in os.environ:
        for line in golden_contents.report([*getattr(terminalreporter.config, "golden_used", []), *golden_contents.used()]):
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several workers hands over what it would say; the one that the user sees says it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["where_things_are"] = getattr(session.config, "where_things_are", [])
        session.config.workeroutput["golden_used"] = golden_contents.used()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist is done, or died."""
    output = getattr(node, "workeroutput", {})
    for name in ("where_things_are", "golden_used"):
        setattr(node.config, name, [*getattr(node.config, name, []), *output.get(name, [])])
