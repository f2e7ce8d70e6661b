"""Queue a list of prompts at a running ComfyUI, with a graph saved by its "Export (API)". It needs Python only.

    python serving/queue_prompts.py graph.json prompts.txt --address http://127.0.0.1:8188

The graph's prompt is the text of the node that its conditioning's ``positive`` comes from; ``--prompt 6.text --seed 3.seed`` name the
inputs (node and input) where there are several. Each prompt has the next seed. The files are where the graph's saving node puts them.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

Graph = dict[str, dict[str, Any]]


def ask(address: str, path: str, content: dict[str, Any] | None = None) -> Any:
    """The JSON that ComfyUI answers; its own words where it refuses."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"ComfyUI refused: {error.read().decode(errors='replace')[:2000]}") from error
    except urllib.error.URLError as error:
        raise SystemExit(f"No ComfyUI answers at {address}: {error.reason}") from error


def input_of(graph: Graph, place: str) -> tuple[dict[str, Any], str]:
    """The inputs of a node and the name of one of them, from ``NODE.INPUT``."""
    node, _, name = place.rpartition(".")
    if node not in graph or name not in graph[node]["inputs"]:
        raise SystemExit(f"The graph has no input {place}; there is {', '.join(f'{n}.{i}' for n in graph for i in graph[n]['inputs'])}.")
    return graph[node]["inputs"], name


def positive_text(graph: Graph) -> str:
    """The input for the prompt: followed from the first ``positive`` to a node with a text."""
    start = next((node for node in graph.values() if isinstance(node["inputs"].get("positive"), list)), None)
    link = start["inputs"]["positive"] if start else None
    while isinstance(link, list):
        inputs = graph[str(link[0])]["inputs"]
        if isinstance(inputs.get("text"), str):
            return f"{link[0]}.text"
        link = inputs.get("positive") or inputs.get("conditioning")
    raise SystemExit("The graph's prompt was not found: name it, such as --prompt 6.text.")


def seed_input(graph: Graph) -> str:
    """The input for the seed."""
    for number, node in graph.items():
        for name in ("seed", "noise_seed"):
            if isinstance(node["inputs"].get(name), int):
                return f"{number}.{name}"
    raise SystemExit("The graph's seed was not found: name it, such as --seed 3.seed.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("graph", type=Path, help="a graph in the API format")
    parser.add_argument("prompts", type=Path, help="a text file with a prompt a line")
    parser.add_argument("--address", default="http://127.0.0.1:8188")
    parser.add_argument("--prompt", metavar="NODE.INPUT", help="the input for the prompt")
    parser.add_argument("--seed", metavar="NODE.INPUT", help="the input for the seed")
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    graph: Graph = json.loads(arguments.graph.read_text(encoding="utf-8"))
    prompts = [line.strip() for line in arguments.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    prompt, seed = arguments.prompt or positive_text(graph), arguments.seed or seed_input(graph)
    queued = {}
    for number, text in enumerate(prompts):
        own = copy.deepcopy(graph)
        for place, value in ((prompt, text), (seed, arguments.first_seed + number)):
            inputs, name = input_of(own, place)
            inputs[name] = value
        queued[ask(arguments.address, "/prompt", {"prompt": own})["prompt_id"]] = text
    failed = 0
    while queued:
        time.sleep(1)
        for name in list(queued):
            entry = ask(arguments.address, f"/history/{name}").get(name)
            if entry is None:
                continue
            text = queued.pop(name)
            outputs = entry["outputs"].values()
            files = [each["filename"] for output in outputs for listed in output.values() for each in listed if isinstance(each, dict)]
            ended = entry["status"]["status_str"]
            failed += ended != "success"
            print(f"{text}: {', '.join(files) or ended}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
