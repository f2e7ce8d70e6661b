"""What all tests share."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says at the end where things are."""
    for line in getattr(terminalreporter.config, "where_things_are", []):
        terminalreporter.write_line(line)
