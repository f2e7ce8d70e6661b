"""Runs one after the other, some cancelled or out of memory: the same videos, flat memory. `python -m dev.endurance` makes more."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
import torch

from dev.endurance import ENDINGS, KINDS, Kind, endure, graph, run
from harness.bench import BUNDLED, T2V, Bench, same
from harness.client import ComfyError
from harness.graphs import out
from harness.server import running
from tests.comfyui.conftest import PACK_NAME, TEST_NODES

#: Enough for every kind once and every ending.
RUNS, SEED = 20, 2
#: MB that a short series may grow by in all after its first round: its slope would tell noise.
GROWTH = 200


def test_runs_repeat_themselves_whatever_came_between(comfyui) -> None:
    report = endure(comfyui, RUNS, SEED)
    print("\n".join(report.lines()))
    assert not report.findings, "\n".join(report.findings)
    assert set(report.ended) == set(ENDINGS)
    assert not report.resident[0] or report.resident[-1] - report.resident[len(KINDS)] < GROWTH


def test_a_killed_server_starts_clean_and_gives_the_same_video(comfyui, tmp_path: Path) -> None:
    kind = Kind(BUNDLED, 2, 64)
    before = run(comfyui, kind, "result", 0)
    with running(tmp_path, pack_name=PACK_NAME, custom_nodes=TEST_NODES) as server:
        bench = graph(server, kind)
        bench.model = out(bench.add("TestFailAt", model=bench.model, step=1, way="kill"))
        bench.save("latent", latent=bench.authors(steps=4))
        with pytest.raises((ComfyError, requests.ConnectionError)):
            bench.results()
        assert server.process.wait(60) < 0
    with running(tmp_path, pack_name=PACK_NAME, custom_nodes=TEST_NODES) as server:
        assert run(server, kind, "result", 0) == before


def test_a_video_s_place_in_the_batch_does_not_change_it(comfyui) -> None:
    def latent(seed: int, videos: int) -> torch.Tensor:
        bench = Bench(comfyui, T2V, frames=2, videos=videos)
        bench.save("latent", latent=bench.authors(seed=seed, steps=1))
        return bench.results()["latent"]

    both = latent(5, 2)
    same(both[:2], latent(5, 1))
    same(both[2:], latent(6, 1))
