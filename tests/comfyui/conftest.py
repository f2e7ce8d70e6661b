"""A real ComfyUI for the tests of this folder: one server for all of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import goldens
from harness.server import TEST_NODES, Server, running

PACK_NAME = "My Nodes-VideoCrafter 1.0"  # users name the folder as they like
ELSEWHERE = "elsewhere"  # in the base directory: a folder of models that extra_model_paths.yaml names

signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers are stopped then, too


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Server]:
    """A running ComfyUI with this pack. Tests put model files into `comfyui.checkpoints`, or into ELSEWHERE's."""
    base = tmp_path_factory.mktemp("comfyui")
    (base / ELSEWHERE / "checkpoints").mkdir(parents=True)
    paths = base / "extra_model_paths.yaml"
    paths.write_text(f"test:\n  base_path: {base / ELSEWHERE}\n  checkpoints: checkpoints\n")
    flags = ("--extra-model-paths-config", str(paths))
    with running(base, pack_name=PACK_NAME, custom_nodes=TEST_NODES, flags=flags) as server:
        pytestconfig.closing_lines += [f"ComfyUI's log: {server.log}", f"What the tests' graphs saved: {server.base / 'output'}"]
        yield server


@pytest.fixture(scope="session")
def checkpoints(comfyui: Server) -> Path:
    """The server's folder of checkpoints, with the recorded models in it."""
    for name in goldens.MODELS:
        goldens.write_checkpoint(name, comfyui.checkpoints / f"{name}.safetensors")
    return comfyui.checkpoints


@pytest.fixture(scope="session")
def object_info(comfyui: Server) -> dict[str, dict[str, Any]]:
    """The node classes that the running ComfyUI has."""
    return comfyui.object_info()
