"""Every row of the table of what works with our MODEL, in a real ComfyUI; and the page that lists them is up to date."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.works_with import PAGE, page
from harness.bench import TITLES
from harness.server import Server, running
from tests.comfyui.conftest import PACK_NAME, TEST_NODES
from tests.comfyui.works_with.table import ROWS, Row

CASES = [pytest.param(row, model, id=f"{row.name}-{TITLES[model].replace(' ', '')}") for row in ROWS for model in row.models]


@pytest.fixture(scope="module")
def with_flags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ComfyUI with all the options that rows need."""
    flags = list(dict.fromkeys(flag for row in ROWS for flag in row.flags))
    with running(tmp_path_factory.mktemp("with_flags"), pack_name=PACK_NAME, custom_nodes=TEST_NODES, flags=flags) as server:
        yield server


@pytest.mark.parametrize("row, model", CASES)
def test_works_with(request: pytest.FixtureRequest, row: Row, model: str) -> None:
    row.run(request.getfixturevalue("with_flags" if row.flags else "comfyui"), model)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "Write it anew: python -m dev.works_with"
