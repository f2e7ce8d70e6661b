"""The script that queues a list of prompts, against a running ComfyUI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dev.workflows import FOLDER
from harness.client import files_of
from harness.comfyui import REPOSITORY
from harness.graph import to_prompt
from harness.server import Server
from vc_core.media.video import read_video

Graph = dict[str, dict[str, Any]]


@pytest.fixture
def graph(object_info: dict[str, Any]) -> Graph:
    """The workflow text_to_video as *Export (API)* saves it, with two steps."""
    graph: Graph = to_prompt(json.loads((FOLDER / "text_to_video.json").read_text()), object_info)
    for node in graph.values():
        node["inputs"].update({"steps": 2} if "steps" in node["inputs"] else {})
    return graph


def queue(comfyui: Server, graph: Graph, prompts: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "graph.json").write_text(json.dumps(graph))
    (folder / "prompts.txt").write_text(prompts, encoding="utf-8")
    script, address = REPOSITORY / "serving" / "queue_prompts.py", ["--address", comfyui.address]
    command = [sys.executable, script, "graph.json", "prompts.txt", *address, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_each_prompt_has_a_clip_and_the_next_seed(comfyui: Server, graph: Graph, tmp_path: Path) -> None:
    done = queue(comfyui, graph, "a red circle moving left\n\na blue square moving up\n", tmp_path, "--first-seed", "7")
    assert done.returncode == 0, done.stderr
    said = [line.partition(": ") for line in done.stdout.splitlines()]
    assert [prompt for prompt, *_ in said] == ["a red circle moving left", "a blue square moving up"]
    names = [next(name for name in files.split(", ") if name.endswith(".mp4")) for *_, files in said]
    made = [next(comfyui.base.glob(f"output/**/{name}")) for name in names]
    text = next(number for number, node in graph.items() if node["inputs"].get("text", "").startswith("a "))
    seed = next(number for number, node in graph.items() if "seed" in node["inputs"])
    graph[text]["inputs"]["text"], graph[seed]["inputs"]["seed"] = "a blue square moving up", 8
    by_hand = [comfyui.path(file) for file in files_of(comfyui.run(graph))]
    assert read_video(made[1]).equal(read_video(next(path for path in by_hand if path.suffix == ".mp4")))
    assert not read_video(made[0]).equal(read_video(made[1]))


def test_a_refused_graph_is_told_in_comfyui_s_words(comfyui: Server, graph: Graph, tmp_path: Path) -> None:
    for node in graph.values():
        node["inputs"].update({"steps": 0} if "steps" in node["inputs"] else {})
    done = queue(comfyui, graph, "a cat", tmp_path)
    assert done.returncode == 1 and "ComfyUI refused" in done.stderr and "steps" in done.stderr
