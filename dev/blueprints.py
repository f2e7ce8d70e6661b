"""Writes the blueprints of ``subgraphs/``: `python -m dev.blueprints`. A blueprint is a graph in one node, which ComfyUI lists by itself.

What a user sets is outside (:class:`Shown`); all else follows from the model, by VideoCrafter Model Settings, in the server: nothing
depends on what the interface does when a widget changes.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.comfyui import REPOSITORY
from harness.graph import ObjectInfo
from harness.server import running

from .workflow_builder import Node, Output, WorkflowBuilder
from .workflow_parts import COLUMNS, WIDTH, texts
from .workflow_routes import box_of

FOLDER = REPOSITORY / "subgraphs"
INPUT_NODE, OUTPUT_NODE = -10, -20  # the numbers that a subgraph's own ends have in its links
PREVIEW = "$$canvas-image-preview"  # the interface's name for what a node shows
SLOT = 20


@dataclass(frozen=True)
class Shown:
    """An input of a node inside that is an input of the blueprint."""

    name: str
    node: Node
    input: str
    label: str = ""

    @property
    def slot(self) -> int:
        """The input's place in its node."""
        return [socket["name"] for socket in self.node.data["inputs"]].index(self.input)

    @property
    def socket(self) -> dict[str, Any]:
        """The input as its node has it."""
        return self.node.data["inputs"][self.slot]


@dataclass(frozen=True)
class Blueprint:
    """A graph, what of it is outside, and what it says of itself."""

    flow: WorkflowBuilder
    name: str
    description: str
    category: str
    inputs: Sequence[Shown]
    outputs: Sequence[tuple[str, Node, str]]
    preview: Node

    def workflow(self) -> dict[str, Any]:
        """The file: a graph with one node, and what is in it."""
        inner = self._subgraph()
        sockets = [
            {"name": each.name, "type": each.socket["type"], "link": None, **_label(each)}
            | ({"widget": {"name": each.name}} if "widget" in each.socket else {"shape": 7})
            for each in self.inputs
        ]
        promoted = [[str(each.node.data["id"]), each.input] for each in self.inputs if "widget" in each.socket]
        promoted.append([str(self.preview.data["id"]), PREVIEW])
        node = {
            "id": inner["state"]["lastNodeId"] + 1, "type": inner["id"], "pos": [0, 0], "size": [400, 440], "flags": {}, "order": 0,
            "mode": 0, "inputs": sockets,
            "outputs": [{"name": each["name"], "type": each["type"], "links": None} for each in inner["outputs"]],
            "properties": {"proxyWidgets": promoted},
            "widgets_values": [], "title": self.name,
        }
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, self.name + " (graph)")), "revision": 0, "last_node_id": node["id"],
            "last_link_id": inner["state"]["lastLinkId"], "nodes": [node], "links": [], "groups": [],
            "definitions": {"subgraphs": [inner]}, "config": {}, "extra": {}, "version": 0.4,
        }

    def _subgraph(self) -> dict[str, Any]:
        graph = self.flow.workflow()
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links = [dict(zip(names, link, strict=True)) for link in graph["links"]]
        parents = {each["id"]: each["parentId"] for each in graph["extra"].get("linkExtensions", [])}
        links = [link | ({"parentId": parents[link["id"]]} if link["id"] in parents else {}) for link in links]
        boxes = [box_of(node) for node in graph["nodes"]]
        left, right, top = min(box[0] for box in boxes) - 260, max(box[2] for box in boxes) + 140, min(box[1] for box in boxes)
        inputs = [
            self._end(each.name, each.socket["type"], (left + 100, top + SLOT * (slot + 1))) | _label(each)
            for slot, each in enumerate(self.inputs)
        ]
        outputs = []
        for slot, each in enumerate(self.inputs):
            number = len(links) + 1
            links.append(dict(zip(names, (number, INPUT_NODE, slot, each.node.data["id"], each.slot, each.socket["type"]), strict=True)))
            each.socket["link"] = number
            inputs[slot]["linkIds"].append(number)
        for slot, (name, node, output) in enumerate(self.outputs):
            number, source = len(links) + 1, node[output]
            links.append(dict(zip(names, (number, source.node_id, source.slot, OUTPUT_NODE, slot, source.kind), strict=True)))
            node.data["outputs"][source.slot]["links"].append(number)
            outputs.append(self._end(name, source.kind, (right + 20, top + SLOT * (slot + 1)), [number]))
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, self.name)), "version": 1, "revision": 0, "config": {}, "name": self.name,
            "state": {
                "lastGroupId": len(graph["groups"]), "lastNodeId": graph["last_node_id"], "lastLinkId": len(links),
                "lastRerouteId": len(graph["extra"].get("reroutes", [])),
            },
            "inputNode": {"id": INPUT_NODE, "bounding": [left, top, 120, SLOT * (len(inputs) + 2)]},
            "outputNode": {"id": OUTPUT_NODE, "bounding": [right, top, 120, SLOT * (len(outputs) + 2)]},
            "inputs": inputs, "outputs": outputs, "widgets": [], "nodes": graph["nodes"], "groups": graph["groups"], "links": links,
            "reroutes": graph["extra"].get("reroutes", []), "extra": {}, "category": self.category, "description": self.description,
        }

    def _end(self, name: str, kind: str, place: tuple[float, float], links: Sequence[int] = ()) -> dict[str, Any]:
        number = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name} {name}"))
        return {"id": number, "name": name, "type": kind, "linkIds": list(links), "pos": list(place)}


def _label(shown: Shown) -> dict[str, str]:
    return {"label": shown.label} if shown.label else {}


def text_to_video(info: ObjectInfo) -> Blueprint:
    """A video from a prompt, for every text-to-video model."""
    flow = WorkflowBuilder(info)
    loader, positive, negative, settings, latent = _start(flow, "videocrafter_tiny_t2v (bundled)", "a red circle moving right")
    conditioning = flow.node(
        "VideoCrafterConditioning",
        {"positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "fps": settings["fps"]},
        at=(COLUMNS[3], 60), size=(WIDTH, 110),
    )
    return _finish(
        flow, loader, positive, negative, settings, latent, conditioning, [], "Text to Video (VideoCrafter)",
        "Makes a video from a prompt, with VideoCrafter1, VideoCrafter2, T2V-Turbo or a bundled model; in few steps with T2V-Turbo and "
        "videocrafter_tiny_turbo. The settings are the model's where 0 is set.",
    )


def image_to_video(info: ObjectInfo) -> Blueprint:
    """A video from an image and a prompt, for every image-to-video model."""
    flow = WorkflowBuilder(info)
    image = flow.node("VideoCrafterExampleImage", at=(COLUMNS[0], 400), size=(WIDTH, 230), title="The image")
    loader, positive, negative, settings, latent = _start(
        flow, "videocrafter_tiny_dynamicrafter (bundled)", "moving right", image=image["IMAGE"]
    )
    conditioning = flow.node(
        "VideoCrafterImageToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "image": image["IMAGE"], "fps": settings["fps"], "latent": latent["LATENT"], "vae": loader["VAE"],
        },
        at=(COLUMNS[3], 60), size=(WIDTH, 210),
    )
    return _finish(
        flow, loader, positive, negative, settings, latent, conditioning, [Shown("image", image, "image")], "Image to Video (VideoCrafter)",
        "Makes a video from an image and a prompt, with DynamiCrafter, VideoCrafter1 or a bundled model. Without an image one is drawn. "
        "The settings are the model's where 0 is set.",
    )


def _start(flow: WorkflowBuilder, model: str, prompt: str, **sized: Output) -> tuple[Node, Node, Node, Node, Node]:
    """Model, texts, settings and latent, in the first three columns."""
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": model}, at=(COLUMNS[0], 60), size=(WIDTH, 220))
    positive, negative = texts(flow, loader["CLIP"], prompt, 60)
    settings = flow.node("VideoCrafterModelSettings", {"model": loader["MODEL"], **sized}, at=(COLUMNS[1], 400), size=(WIDTH, 300))
    latent = flow.node(
        "EmptyVideoCrafterLatent",
        {"width": settings["width"], "height": settings["height"], "length": settings["length"]},
        at=(COLUMNS[2], 400), size=(WIDTH, 130),
    )
    return loader, positive, negative, settings, latent


def _finish(
    flow: WorkflowBuilder, loader: Node, positive: Node, negative: Node, settings: Node, latent: Node, conditioning: Node,
    more: Sequence[Shown], name: str, description: str,
) -> Blueprint:
    """Sampling, decoding and saving, and what of the graph is outside."""
    sampler = flow.node(
        "VideoCrafterSampler",
        {
            "model": loader["MODEL"], "positive": conditioning["positive"], "negative": conditioning["negative"],
            "latent_image": latent["LATENT"], "seed": 0, "steps": settings["steps"], "cfg": settings["cfg"],
            "guidance_rescale": settings["guidance_rescale"], "settings": "the model's sampler",
        },
        at=(COLUMNS[4], 60), size=(WIDTH, 300),
    )
    decode = flow.node(
        "VideoCrafterDecode", {"samples": sampler["LATENT"], "vae": loader["VAE"]}, at=(COLUMNS[4] + 390, 60), size=(260, 80)
    )
    save = flow.node(
        "VideoCrafterSaveVideo", {"images": decode["IMAGE"], "filename_prefix": "video/VideoCrafter", "fps": settings["playback_fps"]},
        at=(COLUMNS[4] + 740, 60), size=(320, 460),
    )
    inputs = [
        *more, Shown("prompt", positive, "text"), Shown("negative_prompt", negative, "text"), Shown("model", loader, "ckpt_name"),
        *(Shown(each, settings, each, f"{each} (0: the model's)") for each in ("width", "height", "length", "steps")),
        Shown("seed", sampler, "seed"),
    ]
    # The interface shows images of a node inside, but no videos: the frames are seen on the blueprint.
    preview = flow.node("PreviewImage", {"images": decode["IMAGE"]}, at=(COLUMNS[4] + 390, 230), size=(260, 260))
    kind = name.partition(" (")[0]
    outputs = [("frames", decode, "IMAGE"), ("video", save, "video")]
    return Blueprint(flow, name, description, f"Video generation and editing/{kind}", inputs, outputs, preview)


BLUEPRINTS: tuple[Callable[[ObjectInfo], Blueprint], ...] = (text_to_video, image_to_video)


def main() -> None:
    """Write every blueprint, with the nodes as a running ComfyUI describes them."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as base, running(Path(base)) as server:
        info = server.object_info()
        for describe in BLUEPRINTS:
            blueprint = describe(info)
            text = json.dumps(blueprint.workflow(), indent=2, ensure_ascii=False)
            (FOLDER / f"{blueprint.name}.json").write_text(text + "\n", encoding="utf-8")
            print(f"subgraphs/{blueprint.name}.json")


if __name__ == "__main__":
    main()
