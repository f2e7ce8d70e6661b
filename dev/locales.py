"""The interface's texts in other languages: `python -m dev.locales`.

Writes ``locales/en/nodeDefs.json`` from what the nodes say of themselves, and tells what the hand-written languages lack
or have too much of. The files' form is that of ComfyUI's own (``app/custom_node_manager.py``).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from harness.comfyui import REPOSITORY
from harness.graph import ObjectInfo, input_specs, options_of
from harness.server import running

FOLDER = REPOSITORY / "locales"
ENGLISH = "en"
Texts = dict[str, Any]


def node_texts(info: dict[str, Any]) -> Texts:
    """What a node's title, description, inputs and outputs say, in the form of a ``nodeDefs.json``."""
    texts: Texts = {"display_name": info["display_name"], "description": info["description"]}
    inputs = {name: {"name": name, "tooltip": options_of(spec).get("tooltip", "")} for name, spec in input_specs(info)}
    outputs = {
        str(slot): {"name": name, "tooltip": tooltip}
        for slot, (name, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"], strict=True))
    }
    return texts | ({"inputs": inputs} if inputs else {}) | ({"outputs": outputs} if outputs else {})


def our_nodes(object_info: ObjectInfo, pack: str) -> ObjectInfo:
    """The nodes of the pack that lies in the custom node folder of this name."""
    return {name: info for name, info in object_info.items() if info["python_module"] == f"custom_nodes.{pack}"}


def read(language: str) -> Texts:
    """A language's node texts."""
    return json.loads((FOLDER / language / "nodeDefs.json").read_text(encoding="utf-8"))


def languages() -> list[str]:
    """Every language there is, English among them."""
    return sorted(path.parent.name for path in FOLDER.glob("*/nodeDefs.json"))


def keys(texts: Texts, above: str = "") -> set[str]:
    """The places of all texts, as ``node.inputs.name.tooltip``."""
    found: set[str] = set()
    for key, value in texts.items():
        found |= keys(value, f"{above}{key}.") if isinstance(value, dict) else {above + key}
    return found


def main() -> None:
    """Write the English texts and compare the others' keys with theirs."""
    pack = "ComfyUI-VideoCrafter"
    with tempfile.TemporaryDirectory() as base, running(Path(base), pack_name=pack) as server:
        english = {name: node_texts(info) for name, info in our_nodes(server.object_info(), pack).items()}
    target = FOLDER / ENGLISH / "nodeDefs.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(english, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(target.relative_to(REPOSITORY))
    for language in languages():
        there = keys(read(language))
        for word, names in (("lacks", keys(english) - there), ("has the stale", there - keys(english))):
            for name in sorted(names):
                print(f"locales/{language} {word} {name}")


if __name__ == "__main__":
    main()
