"""The oldest ComfyUI supported: the pack starts in it, samples, and works with context windows. `make test-all` runs the table there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from harness.bench import DYNAMICRAFTER, T2V, Bench, core_latent, same
from harness.comfyui import OLDEST_RELEASE, REPOSITORY
from harness.server import DEFAULT_PACK_NAME, TEST_NODES, Server, running
from harness.works_with import ROWS

CHOSEN = os.environ.get("COMFYUI_RELEASE") or os.environ.get("COMFYUI_DIR")
pytestmark = pytest.mark.skipif(bool(CHOSEN), reason=f"the environment chooses a ComfyUI for all tests: {CHOSEN}")


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("oldest"), custom_nodes=TEST_NODES, release=OLDEST_RELEASE) as server:
        yield server


def test_it_is_the_oldest(oldest: Server) -> None:
    assert oldest.get("/system_stats")["system"]["comfyui_version"] == OLDEST_RELEASE


def test_a_run_is_the_core_s(oldest: Server) -> None:
    bench = Bench(oldest, T2V)
    bench.save("latent", latent=bench.authors())
    same(bench.results()["latent"], core_latent(bench.path))


@pytest.mark.parametrize("name, model", [("windows", T2V), ("lora_hooks", T2V), ("a_run_split_in_two", DYNAMICRAFTER)])
def test_works_with(oldest: Server, name: str, model: str) -> None:
    next(row for row in ROWS if row.name == name and model in row.models).run(oldest, model)


def test_every_workflow_is_served_as_a_template(oldest: Server) -> None:
    """ComfyUI serves the first of several folder names that a pack has, so that a new folder of ours could hide the workflows."""
    paths = {path.stem: path for path in (REPOSITORY / "workflows").glob("*.json")}
    assert set(oldest.get("/workflow_templates")[DEFAULT_PACK_NAME]) == set(paths)
    for name, path in paths.items():
        served = oldest.get(f"/api/workflow_templates/{DEFAULT_PACK_NAME}/{name}.json")
        assert served == json.loads(path.read_text(encoding="utf-8"))
