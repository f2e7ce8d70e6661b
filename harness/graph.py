"""Turns a workflow as ComfyUI's web interface saves it into the prompt that its HTTP interface queues.

The saved format (litegraph, `version: 0.4`) lists nodes with their widgets' values in a row, and links
between numbered slots. `/object_info` says which value belongs to which input. The steps are those of
the interface itself: muted nodes and notes fall away, bypassed nodes and reroutes are looked through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Workflow = dict[str, Any]
Prompt = dict[str, dict[str, Any]]
ObjectInfo = dict[str, dict[str, Any]]
InputSpec = list[Any]  # [type or list of choices, options]

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", "COMFY_DYNAMICCOMBO_V3")
CONTROLS = ("fixed", "increment", "decrement", "randomize")  # the widget that the interface puts behind a seed
SEEDS = ("seed", "noise_seed")  # have that widget whatever their options say
MUTED, BYPASSED = 2, 4  # values of a node's `mode`
NOTES = ("Note", "MarkdownNote")


class GraphError(ValueError):
    """A workflow that cannot be turned into a prompt, or has no such node or input."""


def to_prompt(workflow: Workflow, object_info: ObjectInfo) -> Prompt:
    """The prompt of a workflow. Node ids become strings; each node's title stands under `_meta`."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    subgraphs = {subgraph["id"] for subgraph in (workflow.get("definitions") or {}).get("subgraphs") or []}
    prompt: Prompt = {}
    for node in sorted(nodes.values(), key=lambda node: node.get("order", 0)):
        if node["type"] in (*NOTES, "Reroute", "PrimitiveNode") or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        if node["type"] in subgraphs:
            raise GraphError(f"Node {node['id']} is a subgraph, which this can't read. Unpack it in the interface and save again.")
        if node["type"] not in object_info:
            raise GraphError(f"Node {node['id']} is a {node['type']!r}, which this ComfyUI doesn't have. Is its node pack installed?")
        info = object_info[node["type"]]
        inputs = widget_values(node, info)
        for socket in node.get("inputs") or []:
            value = _linked_value(socket.get("link"), nodes, links)
            if value is not None:
                inputs[socket["name"]] = value
        title = node.get("title") or info.get("display_name") or node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return prompt


def find_node(prompt: Prompt, name: str, *, title: str | None = None, class_type: str | None = None) -> str:
    """The id of the one node that has this title and class, where given, and an input `name`."""
    found = [
        node_id
        for node_id, node in prompt.items()
        if title in (None, node["_meta"]["title"]) and class_type in (None, node["class_type"]) and name in node["inputs"]
    ]
    if len(found) != 1:
        there = ", ".join(f"{node['_meta']['title']} ({node['class_type']}): {'/'.join(node['inputs'])}" for node in prompt.values())
        raise GraphError(
            f"{len(found)} nodes have the input {name!r} with title={title!r}, class_type={class_type!r}; exactly one must. "
            f"There are {there}."
        )
    return found[0]


def set_input(prompt: Prompt, name: str, value: Any, *, title: str | None = None, class_type: str | None = None) -> None:
    """Sets the input `name` of the one node that has this title and class, where given."""
    prompt[find_node(prompt, name, title=title, class_type=class_type)]["inputs"][name] = value


def widget_values(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """The values of a saved node's widgets by input name. What was saved before an input existed gets its default."""
    saved = node.get("widgets_values") or []
    as_widgets = {socket["name"] for socket in node.get("inputs") or [] if socket.get("widget")}
    if isinstance(saved, dict):
        return {name: saved[name] for name, _ in input_specs(info) if name in saved}
    values: dict[str, Any] = {}
    _take(list(input_specs(info)), as_widgets, list(saved), values)
    return values


def input_specs(info: dict[str, Any]) -> Iterator[tuple[str, InputSpec]]:
    """The inputs of a node class in the order of its sockets and widgets."""
    for group in ("required", "optional"):
        yield from info["input"].get(group, {}).items()


def is_widget(spec: InputSpec) -> bool:
    """Whether an input has a widget, from its type and options."""
    options = options_of(spec)
    return not options.get("forceInput") and (isinstance(spec[0], list) or spec[0] in WIDGET_TYPES or "widgetType" in options)


def has_control(name: str, spec: InputSpec) -> bool:
    """Whether the interface puts a control-after-generate widget behind this one."""
    return bool(options_of(spec).get("control_after_generate")) or (spec[0] == "INT" and name in SEEDS)


def options_of(spec: InputSpec) -> dict[str, Any]:
    """The options of an input: default, min, max, ..."""
    return spec[1] if len(spec) > 1 else {}


def default_of(spec: InputSpec) -> Any:
    """The value a widget starts with."""
    kind, options = spec[0], options_of(spec)
    if "default" in options:
        return options["default"]
    if isinstance(kind, list) or kind == "COMBO":
        choices = kind if isinstance(kind, list) else options.get("options", [])
        return choices[0] if choices else None
    if kind == "COMFY_DYNAMICCOMBO_V3":
        return options["options"][0]["key"]
    return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}.get(kind)


def chosen_inputs(name: str, spec: InputSpec, choice: Any) -> list[tuple[str, InputSpec]]:
    """The further inputs that a choice in a dynamic combo brings, named `combo.input`; none for other types."""
    if spec[0] != "COMFY_DYNAMICCOMBO_V3":
        return []
    option = next((option for option in spec[1]["options"] if option["key"] == choice), None)
    return [(f"{name}.{inner}", inner_spec) for inner, inner_spec in input_specs({"input": option["inputs"]})] if option else []


def _take(specs: list[tuple[str, InputSpec]], as_widgets: set[str], saved: list[Any], values: dict[str, Any]) -> None:
    """Takes the values of these inputs from the front of `saved` into `values`."""
    for name, spec in specs:
        if not is_widget(spec) and name not in as_widgets:
            continue
        value = saved.pop(0) if saved else default_of(spec)
        if saved and saved[0] in CONTROLS and has_control(name, spec):
            saved.pop(0)
        values[name] = {"__value__": value} if isinstance(value, list) else value  # a bare list would read as a link
        _take(chosen_inputs(name, spec, value), as_widgets, saved, values)


def _linked_value(link_id: int | None, nodes: dict[int, dict[str, Any]], links: dict[int, list[Any]]) -> Any:
    """What a link brings: [node id, slot], a primitive's value, or None if nothing arrives."""
    while link_id is not None:
        if link_id not in links:
            raise GraphError(f"Link {link_id} is used by a node, but not listed among the workflow's links.")
        _, origin_id, slot, _, _, kind = links[link_id][:6]
        if origin_id not in nodes:
            raise GraphError(f"Link {link_id} comes from node {origin_id}, which the workflow doesn't have.")
        origin = nodes[origin_id]
        mode = origin.get("mode", 0)
        if mode == MUTED:
            return None
        if origin["type"] == "PrimitiveNode":
            return origin["widgets_values"][0]
        if origin["type"] == "Reroute":
            link_id = origin["inputs"][0].get("link")
        elif mode == BYPASSED:
            link_id = _through(origin, slot, kind)
        else:
            return [str(origin_id), slot]
    return None


def _through(node: dict[str, Any], slot: int, kind: str) -> int | None:
    """The link into a bypassed node that stands for its output: of the same type, the same slot before others."""
    inputs = node.get("inputs") or []
    candidates = [*inputs[slot : slot + 1], *inputs]
    return next((socket.get("link") for socket in candidates if kind in (socket["type"], "*")), None)
