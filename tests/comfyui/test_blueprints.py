"""Blueprints, templates and the app mode: what ComfyUI's interface lists, and that it can store and show all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dev.blueprints import BLUEPRINTS
from harness.comfyui import REPOSITORY
from harness.server import Server

FILES = sorted((REPOSITORY / "subgraphs").glob("*.json"))
#: Types whose widgets every renderer and the app mode have.
STANDARD = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}


def subgraph(path: Path) -> dict[str, Any]:
    (inside,) = json.loads(path.read_text(encoding="utf-8"))["definitions"]["subgraphs"]
    return inside


def test_comfyui_lists_the_blueprints(comfyui: Server):
    listed = {entry["name"]: number for number, entry in comfyui.get("/global_subgraphs").items()}
    for path in FILES:
        served = comfyui.get(f"/global_subgraphs/{listed[path.stem]}")
        assert json.loads(served["data"]) == json.loads(path.read_text(encoding="utf-8"))
    assert len(FILES) == len(BLUEPRINTS)


def test_the_files_are_what_dev_writes(comfyui: Server):
    for describe in BLUEPRINTS:
        blueprint = describe(comfyui.object_info())
        written = json.loads((REPOSITORY / "subgraphs" / f"{blueprint.name}.json").read_text(encoding="utf-8"))
        assert written == json.loads(json.dumps(blueprint.workflow()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_blueprint_is_stored_in_the_form_that_every_interface_reads(path: Path):
    """Promoted widgets as pairs of texts, of nodes and inputs that are there; no subgraph in it; links whose ends agree."""
    inside = subgraph(path)
    (outside,) = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    nodes = {node["id"]: node for node in inside["nodes"]}
    for pair in outside["properties"]["proxyWidgets"]:
        number, name = pair
        assert isinstance(number, str) and isinstance(name, str) and int(number) in nodes
        assert name.startswith("$$") or name in [socket["name"] for socket in nodes[int(number)]["inputs"]]
    assert inside["id"] == outside["type"] and not {node["type"] for node in nodes.values()} & {inside["id"]}
    for link in inside["links"]:
        source, target = nodes.get(link["origin_id"]), nodes.get(link["target_id"])
        assert (source is None) == (link["origin_id"] == -10) and (target is None) == (link["target_id"] == -20)
        if source:
            assert link["id"] in source["outputs"][link["origin_slot"]]["links"]
        else:
            assert link["id"] in inside["inputs"][link["origin_slot"]]["linkIds"]
        if target:
            assert target["inputs"][link["target_slot"]]["link"] == link["id"]
        else:
            assert link["id"] in inside["outputs"][link["target_slot"]]["linkIds"]


def test_the_model_of_a_blueprint_is_offered_where_it_is_missing():
    for path in FILES:
        (loader,) = [node for node in subgraph(path)["nodes"] if node["type"] == "VideoCrafterLoader"]
        models = loader["properties"]["models"]
        assert models and all(set(model) == {"name", "url", "directory"} for model in models)


def test_every_input_of_ours_is_of_a_standard_type(comfyui: Server):
    """The app mode and both renderers show them without a script of ours; the drawing area is beside the text that it writes."""
    for name, info in comfyui.object_info().items():
        if info["category"] != "VideoCrafter" and not name.startswith("VideoCrafter"):
            continue
        for inputs in info["input"].values():
            for spec in inputs.values() if isinstance(inputs, dict) else []:
                kind = "COMBO" if isinstance(spec[0], list) else spec[0]
                has_widget = len(spec) > 1 and "default" in spec[1]
                assert kind in STANDARD or not has_widget, (name, spec)


def test_comfyui_warns_of_nothing_of_ours_when_it_starts(comfyui: Server):
    start = comfyui.log.read_text(encoding="utf-8").partition("To see the GUI go to")[0]
    ours = [line for line in start.splitlines() if "videocrafter" in line.lower()]
    assert not [line for line in ours if "warn" in line.lower() or "error" in line.lower() or "deprecat" in line.lower()]
    assert start.count("IMPORT FAILED") == 0
