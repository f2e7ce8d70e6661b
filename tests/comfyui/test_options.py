"""Options of ComfyUI's command line, each in a server with that option."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.bench import DYNAMICRAFTER, SCALE, T2V, TITLES, Bench, apart, core_latent
from harness.goldens import TOLERANCE, prompts
from harness.server import TEST_NODES, Server, running
from harness.works_with import ROWS
from harness.works_with.options import EXACT_TOGETHER, FLAGS, FLOAT16, Flag
from harness.works_with.table import Row
from tests.comfyui.conftest import PACK_NAME
from vc_core import load

#: More than 64 positions of a latent: for fewer, ComfyUI's choice of attention does not count.
SIZE = 96
#: A row needs a server with options of its own.
CASES = [
    pytest.param(row, model, id=f"{row.name}-{TITLES[model].replace(' ', '')}", marks=[pytest.mark.full] if model != row.models[0] else [])
    for row in ROWS
    if row.flags
    for model in row.models
]


@pytest.fixture(scope="module")
def with_options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ComfyUI with all the options that rows need, and with those that must not change the numbers."""
    flags = list(dict.fromkeys([*(flag for row in ROWS for flag in row.flags), *EXACT_TOGETHER]))
    with running(tmp_path_factory.mktemp("with_options"), pack_name=PACK_NAME, custom_nodes=TEST_NODES, flags=flags) as server:
        yield server


@pytest.mark.parametrize("row, model", CASES)
def test_works_with(with_options: Server, row: Row, model: str) -> None:
    row.run(with_options, model)


@pytest.mark.parametrize("model", [T2V, DYNAMICRAFTER])
def test_a_video_is_float32_s(comfyui: Server, model: str) -> None:
    """The tests' own server, which runs with --cpu where there is no GPU."""
    assert distance(comfyui, model) <= TOLERANCE


@pytest.mark.parametrize("model", [T2V, DYNAMICRAFTER])
def test_options_that_do_not_change_the_numbers(with_options: Server, model: str) -> None:
    assert distance(with_options, model) <= TOLERANCE


@pytest.mark.parametrize(
    "flag", [pytest.param(flag, id=flag.option, marks=pytest.mark.full) for flag in FLAGS]
)
def test_a_video_under_an_option_is_close_to_float32_s(tmp_path: Path, flag: Flag) -> None:
    if flag.needs_gpu and not torch.cuda.is_available():
        pytest.skip(f"{flag.option} says how a GPU's memory is used; there is none, and ComfyUI refuses it beside --cpu")
    # Without a GPU --cpu is set anyway; twice is once.
    with running(tmp_path, pack_name=PACK_NAME, custom_nodes=TEST_NODES, flags=[flag.option]) as server:
        for model in (T2V, DYNAMICRAFTER):
            away = distance(server, model)
            print(f"{flag.option} {model}: {away:.1e} of {flag.bound:.1e}")
            assert away <= flag.bound
            # The recorded weights are float16 to begin with, and a CPU computes in float32: --fp16-unet changes nothing there.
            assert flag.bound <= FLOAT16 or away > TOLERANCE, "the option had no effect"


def distance(server: Server, model: str) -> float:
    """How far a model's latent on a server is from the core's in float32 on the CPU, in standard deviations of the latter."""
    bench = Bench(server, model, size=SIZE)
    bench.save("latent", latent=bench.authors(cfg=2.0))
    return apart(bench.results()["latent"], float32_latent(bench))


def float32_latent(bench: Bench) -> torch.Tensor:
    """The core's latent of what :meth:`Bench.authors` makes with guidance 2, on the CPU."""
    if bench.name == T2V:
        return core_latent(bench.path, guidance_scale=2.0, height=SIZE, width=SIZE)
    latents: list[torch.Tensor] = []
    settings = {"steps": 3, "guidance_scale": 2.0, "guidance_rescale": 0.0, "fps": 8, "seed": 0}
    load(bench.path).image_to_video(
        bench.image, *prompts(bench.name), frames=4, height=SIZE, width=SIZE, callback=lambda *step: latents.append(step[3]), **settings
    )
    return latents[-1].transpose(1, 2).flatten(0, 1) / SCALE
