"""Every row of the table of what works with our MODEL, in a real ComfyUI; and the page that lists them is up to date.

Rows that need options of ComfyUI's command line are run by ``test_options.py``.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dev.works_with import PAGE, page
from harness.bench import TITLES
from harness.server import Server
from harness.works_with import CLAIMS, ROWS
from harness.works_with.table import Row

CASES = [
    pytest.param(
        row, model, id=f"{row.name}-{TITLES[model].replace(' ', '')}",
        marks=[pytest.mark.full] if row.long or model != row.models[0] else [],
    )
    for row in ROWS
    if not row.flags
    for model in row.models
]


@pytest.mark.parametrize("row, model", CASES)
def test_works_with(comfyui: Server, row: Row, model: str) -> None:
    row.run(comfyui, model)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "Write it anew: python -m dev.works_with"


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_line_that_is_no_row_names_the_test_that_shows_it(claim: str) -> None:
    module, test = claim.split(".")
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
