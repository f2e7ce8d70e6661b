"""Writes workflows in the form that ComfyUI's web interface saves, from a short description in Python.

    flow = WorkflowBuilder(server.object_info())
    loader = flow.node("CheckpointLoaderSimple", {"ckpt_name": "model.safetensors"}, at=(0, 0))
    prompt = flow.node("CLIPTextEncode", {"clip": loader["CLIP"], "text": "a red circle"}, at=(400, 0), title="Prompt")
    flow.note("Write what you want to see.", at=(400, 250))
    flow.group("Text: what the video shows", [prompt])
    flow.save(Path("workflows/example.json"))
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.graph import GraphError, ObjectInfo, Workflow, chosen_inputs, default_of, has_control, input_specs, is_widget, options_of
from vc_core.fetch import published_files

from .workflow_routes import SLOT_HEIGHT, TEXT_HEIGHT, TITLE_HEIGHT, WIDGET_HEIGHT, add_routes

DEFAULT_WIDTH = 300
GROUP_MARGIN = 20
GROUP_TITLE = 80  # with room for links between it and the nodes
GROUP_FONT = 18  # pixels; small enough for a line of help as wide as a node
#: What a loader may be asked for, in the form of ComfyUI's own templates: the interface offers what a graph names and isn't there.
MODELS = {
    "VideoCrafterLoader": [
        {"name": file.save_as, "url": file.url, "directory": file.folder} for file in published_files().values()
    ]
}


@dataclass(frozen=True)
class Output:
    """An output of a node, to be given as another node's input."""

    node_id: int
    slot: int
    kind: str


class Node:
    """A node of the workflow; `node["MODEL"]` or `node[0]` is one of its outputs."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __getitem__(self, output: str | int) -> Output:
        outputs = self.data["outputs"]
        if isinstance(output, int) and output < len(outputs):
            return Output(self.data["id"], output, outputs[output]["type"])
        for slot, there in enumerate(outputs):
            if output == there["name"]:
                return Output(self.data["id"], slot, there["type"])
        raise GraphError(f"{self.data['type']} has no output {output!r}; it has {[there['name'] for there in outputs]}.")


class WorkflowBuilder:
    """Collects nodes, notes and groups; `workflow()` is the result."""

    def __init__(self, object_info: ObjectInfo) -> None:
        self._info = object_info
        self._nodes: list[dict[str, Any]] = []
        self._links: list[list[Any]] = []
        self._groups: list[dict[str, Any]] = []

    def node(
        self,
        class_type: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        at: tuple[float, float],
        size: tuple[float, float] | None = None,
        title: str | None = None,
        color: tuple[str, str] | None = None,
    ) -> Node:
        """Adds a node.

        inputs: outputs of other nodes, or widgets' values; the other widgets get their defaults. What a choice in a
                dynamic combo brings is named `combo.input`.
        color:  the colors of the title and of the body, as `("#323", "#535")`
        """
        if class_type not in self._info:
            raise GraphError(f"This ComfyUI has no node class {class_type!r}.")
        info, given = self._info[class_type], dict(inputs or {})
        sockets, values, height = _lay_out(info, given)
        unknown = set(given) - {socket["name"] for socket in sockets}
        if unknown:
            there = [socket["name"] for socket in sockets]
            raise GraphError(f"{class_type} has no input {', '.join(sorted(unknown))}; it has {', '.join(there)}.")
        outputs = [
            {"name": name, "type": "COMBO" if isinstance(kind, list) else kind, "links": []}
            for name, kind in zip(info["output_name"], info["output"], strict=True)
        ]
        plain = sum("widget" not in socket for socket in sockets)
        height += TITLE_HEIGHT + SLOT_HEIGHT * max(plain, len(outputs))
        data = self._add(class_type, at, size or (DEFAULT_WIDTH, height), title, color)
        data |= {"inputs": sockets, "outputs": outputs, "widgets_values": values}
        data["properties"] = {"Node name for S&R": class_type}
        if class_type in MODELS:
            data["properties"]["models"] = MODELS[class_type]
        for slot, socket in enumerate(sockets):
            source = given.get(socket["name"])
            if isinstance(source, Output):
                socket["link"] = self._link(source, data["id"], slot, f"{class_type}.{socket['name']}", socket["type"])
            elif source is not None and "widget" not in socket:
                raise GraphError(f"{class_type}.{socket['name']} takes a link, not {source!r}: give it another node's output.")
        return Node(data)

    def note(
        self, text: str, at: tuple[float, float], size: tuple[float, float] = (DEFAULT_WIDTH, 160), title: str | None = None
    ) -> Node:
        """Adds a note in Markdown."""
        data = self._add("MarkdownNote", at, size, title, ("#432", "#653"))
        data["widgets_values"] = [text]
        return Node(data)

    def group(self, title: str, nodes: Sequence[Node], color: str = "#3f789e") -> None:
        """Draws a frame around nodes. The title says what they are and, after a colon, what to do with them."""
        boxes = [(*node.data["pos"], *node.data["size"]) for node in nodes]
        left, top = min(box[0] for box in boxes) - GROUP_MARGIN, min(box[1] for box in boxes) - TITLE_HEIGHT - GROUP_TITLE
        right, bottom = max(box[0] + box[2] for box in boxes) + GROUP_MARGIN, max(box[1] + box[3] for box in boxes) + GROUP_MARGIN
        self._groups.append(
            {
                "id": len(self._groups) + 1,
                "title": title,
                "bounding": [left, top, right - left, bottom - top],
                "color": color,
                "font_size": GROUP_FONT,
                "flags": {},
            }
        )

    def workflow(self) -> Workflow:
        """The workflow as the interface saves it, its links led around its nodes."""
        workflow: Workflow = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(self._nodes))),  # the same for the same nodes
            "revision": 0,
            "last_node_id": len(self._nodes),
            "last_link_id": len(self._links),
            "nodes": self._nodes,
            "links": self._links,
            "groups": self._groups,
            "config": {},
            "extra": {},
            "version": 0.4,
        }
        add_routes(workflow)
        return workflow

    def save(self, path: Path) -> None:
        """Writes the workflow's file."""
        path.write_text(json.dumps(self.workflow(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _add(
        self,
        class_type: str,
        at: tuple[float, float],
        size: tuple[float, float],
        title: str | None,
        color: tuple[str, str] | None,
    ) -> dict[str, Any]:
        number = len(self._nodes) + 1
        data: dict[str, Any] = {"id": number, "type": class_type, "pos": list(at), "size": list(size)}
        data |= {"flags": {}, "order": number - 1, "mode": 0, "inputs": [], "outputs": [], "properties": {}}
        if title:
            data["title"] = title
        if color:
            data["color"], data["bgcolor"] = color
        self._nodes.append(data)
        return data

    def _link(self, source: Output, target_id: int, slot: int, target: str, kind: str) -> int:
        if "*" not in (kind, source.kind) and not set(source.kind.split(",")) & set(kind.split(",")):
            raise GraphError(f"{target} takes {kind}, not {source.kind}.")
        number = len(self._links) + 1
        self._links.append([number, source.node_id, source.slot, target_id, slot, source.kind])
        origin = next(node for node in self._nodes if node["id"] == source.node_id)
        origin["outputs"][source.slot]["links"].append(number)
        return number


def _lay_out(info: dict[str, Any], given: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Any], int]:
    """A node's inputs as saved (plain ones first, as the interface has them), its widgets' values and their height."""
    plain, widgets, values, height = [], [], [], 0
    pending = list(input_specs(info))
    while pending:
        name, spec = pending.pop(0)
        socket: dict[str, Any] = {"name": name, "type": "COMBO" if isinstance(spec[0], list) else spec[0], "link": None}
        if name in (info["input"].get("optional") or {}):
            socket["shape"] = 7  # drawn as a hollow circle
        if not is_widget(spec):
            plain.append(socket)
            continue
        value = given.get(name)
        if value is None or isinstance(value, Output):
            value = default_of(spec)
        values.append(value)
        height += TEXT_HEIGHT if options_of(spec).get("multiline") else WIDGET_HEIGHT
        if has_control(name, spec):
            values.append("fixed")
            height += WIDGET_HEIGHT
        widgets.append(socket | {"widget": {"name": name}})
        pending = chosen_inputs(name, spec, value) + pending
    return plain + widgets, values, height
