"""What all tests share."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says at the end where things are."""
    for line in getattr(terminalreporter.config, "where_things_are", []):
        terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several workers hands over what it would say; the one that the user sees says it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["where_things_are"] = getattr(session.config, "where_things_are", [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist is done, or died."""
    told = getattr(node, "workeroutput", {}).get("where_things_are", [])
    node.config.where_things_are = [*getattr(node.config, "where_things_are", []), *told]
