"""What a pass takes of memory and says that it will take, and unloading."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from harness.bench import DYNAMICRAFTER, I2V, T2V, T2V_V1, Bench
from harness.graphs import out
from harness.works_with.length import windowed

#: More than 64 positions of a latent: for fewer, ComfyUI's choice of attention does not count.
SIZE = 96


@pytest.mark.parametrize("model", [T2V, T2V_V1, I2V, DYNAMICRAFTER])
@pytest.mark.parametrize("frames, size, cfg", [(1, 192, 1.0), (8, 96, 2.0)])
def test_a_pass_takes_what_the_model_says(comfyui, model: str, frames: int, size: int, cfg: float) -> None:
    """Within a quarter, for one conditioning and for two at once. tests/test_benchmarks.py has the published sizes.

    The estimate counts the activations that are alive at the widest place and not what the allocator and the libraries' own
    buffers add, so a quarter is what it promises; ComfyUI leaves a larger reserve than that. At these sizes no linear layer goes to
    oneDNN, whose scratch memory only a processor needs.
    """
    memory = footprint(Bench(comfyui, model, frames=frames, size=size), cfg)
    assert memory["shape"] == [frames * (2 if cfg > 1 else 1), 4, size // 8, size // 8]
    assert memory["required"] == pytest.approx(memory["taken"], rel=0.25), memory


@pytest.mark.parametrize("model", [T2V, DYNAMICRAFTER])
def test_64_frames_take_the_memory_of_16(comfyui, model: str) -> None:
    plain = footprint(Bench(comfyui, model, frames=16, size=SIZE), cfg=1.0)
    bench = Bench(comfyui, model, frames=64, size=SIZE)
    bench.model = windowed(bench, 16, 4)
    windows = footprint(bench, cfg=1.0)
    assert windows["shape"] == plain["shape"]
    assert windows["taken"] == pytest.approx(plain["taken"], rel=0.02)


def footprint(bench: Bench, cfg: float) -> dict[str, Any]:
    """The bytes that the last pass of a run of one step took (``taken``) and had announced (``required``), and its latent's shape."""
    bench.model = out(bench.add("TestFootprint", model=bench.model, file="footprint.json"))
    bench.save("latent", latent=bench.authors(steps=1, cfg=cfg))
    bench.results()
    return json.loads((bench.comfyui.base / "output" / "footprint.json").read_text())


def test_unloading_leaves_nothing_of_ours(comfyui) -> None:
    bench = Bench(comfyui, DYNAMICRAFTER)
    # In the same graph: the oldest release lets go of a graph's models as soon as another one begins.
    bench.add("TestLoaded", after=bench.authors())

    def loaded(graph: dict[str, Any]) -> tuple[list[str], int]:
        shown = next(shown for shown in comfyui.run(graph).values() if "loaded" in shown)
        return shown["loaded"], shown["alive"][0]

    names, alive = loaded(bench.prompt)
    assert "VideoCrafterModel" in names and alive
    comfyui.free()
    deadline = time.monotonic() + 20  # the server takes the order between two runs
    look: dict[str, Any] = {"1": {"class_type": "TestLoaded", "inputs": {}}}
    while loaded(look) != ([], 0) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert loaded(look) == ([], 0)
