"""Runs one after the other, some cancelled or out of memory: the same videos, flat memory. `python -m dev.endurance` makes more."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
import torch

from dev.endurance import ENDINGS, SLOPE, Kind, endure, graph, run
from harness.bench import BUNDLED, T2V, Bench, same
from harness.client import ComfyError
from harness.server import TEST_NODES, running
from tests.comfyui.conftest import PACK_NAME

#: Enough for every kind of run and every ending, and for the memory's slope to be more than noise.
RUNS, SEED = 100, 2


@pytest.mark.full
def test_runs_repeat_themselves_whatever_came_between(comfyui) -> None:
    report = endure(comfyui, RUNS, SEED)
    print("\n".join(report.lines()))
    assert not report.findings, "\n".join(report.findings)
    assert set(report.endings) == set(ENDINGS)
    assert report.slope() <= SLOPE, "MB a run"


@pytest.mark.full
def test_a_killed_server_starts_clean_and_gives_the_same_video(comfyui, tmp_path: Path) -> None:
    kind = Kind(BUNDLED, 2, 64)
    before = run(comfyui, kind, "result", 0)
    with running(tmp_path, pack_name=PACK_NAME, custom_nodes=TEST_NODES) as server:
        bench = graph(server, kind)
        bench.patch("TestFailAt", step=1, way="kill")
        bench.save("latent", latent=bench.authors(steps=4))
        with pytest.raises((ComfyError, requests.ConnectionError)):
            bench.results()
        assert server.process.wait(60) < 0
    with running(tmp_path, pack_name=PACK_NAME, custom_nodes=TEST_NODES) as server:
        assert run(server, kind, "result", 0) == before


@pytest.mark.full
def test_a_run_that_ends_otherwise_leaves_the_next_as_it_was(comfyui) -> None:
    """One of each ending; the long test mixes them over a hundred runs."""
    kind, other = Kind(T2V, 2, 64), Kind(BUNDLED, 2, 64)
    before = run(comfyui, kind, "result", 0)
    for ending in sorted(set(ENDINGS) - {"result"}):
        assert run(comfyui, other, ending, 1) == ""
        assert run(comfyui, kind, "result", 0) == before, ending


def test_a_video_s_position_in_the_batch_does_not_change_it(comfyui) -> None:
    def latent(seed: int, videos: int) -> torch.Tensor:
        bench = Bench(comfyui, T2V, frames=2, videos=videos)
        bench.save("latent", latent=bench.authors(seed=seed, steps=1))
        return bench.results()["latent"]

    both = latent(5, 2)
    same(both[:2], latent(5, 1))
    same(both[2:], latent(6, 1))
