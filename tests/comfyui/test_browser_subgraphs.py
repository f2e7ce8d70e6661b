"""Blueprints in users' own subgraphs, and the templates' links, in the real web interface.

What it needs, and where its screenshots are left, is as for ``test_browser.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.client import files_of
from harness.server import Server

from .test_browser import BLUEPRINTS, READY, WORKFLOWS, Interface, browser, interface, outputs_after, place, screenshots, server

__all__ = ["browser", "interface", "screenshots", "server"]  # fixtures
pytestmark = pytest.mark.full
MINE = "My own clip maker"


@pytest.mark.parametrize("path", BLUEPRINTS)
def test_a_blueprint_in_a_user_s_published_subgraph_runs_after_a_reload(interface: Interface, server: Server, path: Path):
    page, name = interface.page, f"{MINE} {path.stem[:5]}"
    place(interface, path.stem)
    page.evaluate("() => { window.app.canvas.selectItems(window.app.graph.nodes) }")
    interface.command("Comfy.Graph.ConvertToSubgraph")
    page.wait_for_function("title => window.app.graph.nodes.length == 1 && window.app.graph.nodes[0].title != title", arg=path.stem)
    page.evaluate("() => { window.app.canvas.selectItems(window.app.graph.nodes) }")
    page.evaluate("() => { window.app.extensionManager.command.execute('Comfy.PublishSubgraph') }")  # not awaited: it asks for a name
    asked = page.get_by_role("dialog").get_by_role("textbox")
    asked.fill(name)
    interface.screenshot(f"{path.stem}_published")
    asked.press("Enter")
    page.wait_for_timeout(2000)
    page.reload()
    page.wait_for_function(READY)
    interface.errors.clear()
    place(interface, name)
    page.wait_for_timeout(1000)
    steps = """(function set(graph) { for (const node of graph.nodes) {
      for (const widget of node.widgets ?? []) if (widget.name == 'steps') widget.value = 2
      if (node.subgraph) set(node.subgraph)
    } })(window.app.graph)"""
    page.evaluate(steps)
    interface.screenshot(f"{path.stem}_nested")
    before = set(server.get("/history"))
    interface.command("Comfy.QueuePrompt")
    assert [file["filename"][-4:] for file in files_of(outputs_after(before, interface, server))] == [".mp4"]
    assert interface.unusual() == []


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_a_template_has_all_its_links_after_it_is_opened(interface: Interface, renderer: str):
    """Each of a file's links is there, with its ends at the sockets of the same names."""
    interface.setting("Comfy.VueNodes.Enabled", renderer == "vue")
    ends = """Array.from(window.app.graph.links.values()).map(link => {
      const source = window.app.graph.getNodeById(link.origin_id), target = window.app.graph.getNodeById(link.target_id)
      return [String(source.id), source.outputs[link.origin_slot].name, String(target.id), target.inputs[link.target_slot].name]
    }).sort()"""
    for each in WORKFLOWS:
        (path,) = each.values
        workflow = json.loads(path.read_text(encoding="utf-8"))
        nodes = {node["id"]: node for node in workflow["nodes"]}
        interface.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        interface.page.wait_for_timeout(500)
        expected = [
            [str(source), nodes[source]["outputs"][slot]["name"], str(target), nodes[target]["inputs"][socket]["name"]]
            for _, source, slot, target, socket, _ in workflow["links"]
        ]
        assert sorted(interface.page.evaluate(ends)) == sorted(expected), path.stem
