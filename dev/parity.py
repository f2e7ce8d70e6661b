"""How far the core is from the recordings, as the tests measure it: `python -m dev.parity` prints the table of docs/parity.md.

The environment variables GOLDEN and SEED name other recordings, see :mod:`harness.goldens`.
"""

from __future__ import annotations

import sys

import pytest

from harness.comfyui import REPOSITORY
from harness.goldens import MODELS, TURBO

KINDS = ("UNet", "text", "VAE", "image tokens", "predictions", "latent", "pixels / 255")


class Errors:
    """A pytest plugin that collects the largest error of each model and kind of tensor from the comparisons."""

    def __init__(self) -> None:
        self.worst: dict[tuple[str, str], float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == "parity":
                model, kind, error = value  # type: ignore[misc]
                self.worst[model, kind] = max(self.worst.get((model, kind), 0.0), error)

    def table(self) -> list[str]:
        """The table's lines in Markdown; a cell is empty where nothing is recorded."""
        lines = ["| model | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
        for model in (*MODELS, *TURBO):
            cells = [self.cell(model, kind) for kind in KINDS]
            if any(cells):
                lines.append(f"| `{model}` | " + " | ".join(cells) + " |")
        return lines

    def cell(self, model: str, kind: str) -> str:
        if (model, kind) not in self.worst:
            return ""
        error = self.worst[model, kind]
        return f"{error * 127.5:.3f}" if kind.startswith("pixels") else f"{error:.1e}"


def main() -> None:
    """Run the comparisons and print the table."""
    errors = Errors()
    files = sorted(str(path) for path in (REPOSITORY / "tests").glob("test_golden_*.py"))
    status = pytest.main(["-q", "-m", "golden", *files], plugins=[errors])
    print("\n".join(errors.table()))
    sys.exit(status)


if __name__ == "__main__":
    main()
