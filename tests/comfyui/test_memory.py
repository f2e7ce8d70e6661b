"""Options of ComfyUI's command line, each in a server of its own, what a pass takes, and unloading. `-m "not memory"` leaves them out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.bench import DYNAMICRAFTER, I2V, SCALE, T2V, T2V_V1, Bench, apart, core_latent
from harness.goldens import TOLERANCE, prompts
from harness.graphs import out
from harness.server import running
from tests.comfyui.conftest import PACK_NAME, TEST_NODES
from tests.comfyui.works_with.length import windowed
from tests.comfyui.works_with.options import FLAGS, FLOAT16, Flag
from tests.comfyui.works_with.table import LENGTH, Line, proves
from vc_core import load

pytestmark = pytest.mark.memory
#: More than 64 places of a latent: for fewer, ComfyUI's choice of attention does not count.
SIZE = 96
WITH_CUDA = torch.cuda.is_available()


def float32_latent(bench: Bench) -> torch.Tensor:
    """The core's latent of what :meth:`Bench.authors` makes with guidance 2, on the CPU."""
    if bench.name == T2V:
        return core_latent(bench.path, guidance_scale=2.0, height=SIZE, width=SIZE)
    seen: list[torch.Tensor] = []
    settings = {"steps": 3, "guidance_scale": 2.0, "guidance_rescale": 0.0, "fps": 8, "seed": 0}
    load(bench.path).image_to_video(
        bench.picture, *prompts(bench.name), frames=4, height=SIZE, width=SIZE, callback=lambda *told: seen.append(told[3]), **settings
    )
    return seen[-1].transpose(1, 2).flatten(0, 1) / SCALE


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.option)
def test_a_video_under_an_option_is_close_to_float32_s(tmp_path: Path, flag: Flag) -> None:
    if flag.needs_gpu and not WITH_CUDA:
        pytest.skip(f"{flag.option} says how a GPU's memory is used; there is none, and ComfyUI takes it and --cpu for opposites")
    # Without a GPU --cpu is given anyway; twice is once.
    with running(tmp_path, pack_name=PACK_NAME, custom_nodes=TEST_NODES, flags=[flag.option]) as server:
        for model in (T2V, DYNAMICRAFTER):
            bench = Bench(server, model, size=SIZE)
            bench.keep("latent", latent=bench.authors(cfg=2.0))
            away = apart(bench.results()["latent"], float32_latent(bench))
            print(f"{flag.option} {model}: {away:.1e} of {flag.bound:.1e}")
            assert away <= flag.bound
            # The recorded weights are float16 to begin with, and a CPU computes in float32: there is nothing to see of that option.
            assert flag.bound <= FLOAT16 or away > TOLERANCE, "the option had no effect"


@pytest.mark.parametrize("model", [T2V, T2V_V1, I2V, DYNAMICRAFTER])
@pytest.mark.parametrize("frames, size, cfg", [(1, 192, 1.0), (8, 96, 2.0)])
def test_a_pass_takes_what_the_model_says(comfyui, model: str, frames: int, size: int, cfg: float) -> None:
    """Within a quarter, for one conditioning and for two at once. tests/test_benchmarks.py has the published sizes.

    Sizes at which no linear layer goes to oneDNN: its scratch memory, which only a processor needs, is not in what the model says.
    """
    told = footprint(Bench(comfyui, model, frames=frames, size=size), cfg)
    assert told["shape"] == [frames * (2 if cfg > 1 else 1), 4, size // 8, size // 8]
    assert told["required"] == pytest.approx(told["taken"], rel=0.25), told


@proves(Line(LENGTH, "ContextWindowsManual with windows of 16, 64 frames", "the memory of 16 frames for a pass", (T2V, DYNAMICRAFTER)))
@pytest.mark.parametrize("model", [T2V, DYNAMICRAFTER])
def test_64_frames_take_the_memory_of_16(comfyui, model: str) -> None:
    plain = footprint(Bench(comfyui, model, frames=16, size=SIZE), cfg=1.0)
    bench = Bench(comfyui, model, frames=64, size=SIZE)
    bench.model = windowed(bench, 16, 4)
    windows = footprint(bench, cfg=1.0)
    assert windows["shape"] == plain["shape"]
    assert windows["taken"] == pytest.approx(plain["taken"], rel=0.02)


def footprint(bench: Bench, cfg: float) -> dict[str, Any]:
    """What the last pass of a run of one step took and said that it would take, in bytes, and the shape of its latent."""
    bench.model = out(bench.add("TestFootprint", model=bench.model, file="footprint.json"))
    bench.keep("latent", latent=bench.authors(steps=1, cfg=cfg))
    bench.results()
    return json.loads((bench.comfyui.base / "output" / "footprint.json").read_text())


def test_unloading_leaves_nothing_of_ours(comfyui) -> None:
    bench = Bench(comfyui, DYNAMICRAFTER)
    # In the same graph: the oldest release lets go of a graph's models as soon as another one begins.
    bench.add("TestLoaded", after=bench.authors())

    def loaded(graph: dict[str, Any]) -> tuple[list[str], int]:
        told = next(told for told in comfyui.run(graph).values() if "loaded" in told)
        return told["loaded"], told["alive"][0]

    names, alive = loaded(bench.prompt)
    assert "VideoCrafterModel" in names and alive
    comfyui.free()
    deadline = time.monotonic() + 20  # the server takes the order between two runs
    look: dict[str, Any] = {"1": {"class_type": "TestLoaded", "inputs": {}}}
    while loaded(look) != ([], 0) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert loaded(look) == ([], 0)
