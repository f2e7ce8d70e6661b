"""The example graph that joins a text, an image, structure and style; text and structure run at once."""

from __future__ import annotations

from harness.graph import BYPASSED, ObjectInfo

from .depth_workflow import BUNDLED
from .workflow_builder import Node, WorkflowBuilder
from .workflow_parts import COLUMNS, FIRST_ROW, GREEN, PURPLE, TEAL, WIDTH, decoded, model, sampler_node, saved, size_node, texts

SECOND_ROW = 890
LOWER = FIRST_ROW + 60  # of what stands on the right, below the interface's own buttons
NARROW = 260  # the fifth column


def compose(info: ObjectInfo) -> WorkflowBuilder:
    """Every condition is a group of its own. Those that need files are bypassed, and a note says which files."""
    flow = WorkflowBuilder(info)
    _notes(flow)
    loader = model(
        flow, BUNDLED, SECOND_ROW,
        "The bundled depth model is tiny. It makes 64x64 videos of *a red|green|blue|yellow|white|purple circle|square|triangle* where the "
        "silhouette is.\n\nFor an image choose VideoCrafter1's Image2Video-512 here, for a style alone its Text2Video-512. Set 512x320, 16 "
        "frames, 50 steps and cfg 12. Then write any prompt.",
    )
    positive, negative = texts(flow, loader["CLIP"], "a blue circle", SECOND_ROW)
    flow.group("Text: what the video shows", [positive, negative], color=GREEN)
    latent = size_node(flow, SECOND_ROW)
    flow.group("Size and length: set here", [latent], color=GREEN)
    image = _image(flow, loader, positive, negative)
    maps, depth = _structure(flow, image, latent)
    control = _controlnet(flow, maps, depth)
    style = _style(flow, loader)
    sampler = sampler_node(flow, style, control, latent["LATENT"], SECOND_ROW)
    decode = decoded(flow, loader, sampler, SECOND_ROW)
    saved(flow, decode["IMAGE"], [decode], SECOND_ROW, "VideoCrafter_compose", save_top=LOWER, conditioned=False)
    return flow


def _notes(flow: WorkflowBuilder) -> None:
    """What runs at once, and the files of the other conditions, in the first column."""
    flow.note(
        "**Text** and **structure** run at once. The groups whose names start with *Bypassed* wait for their files. To use one, choose its "
        "files, select its nodes and press Ctrl+B.\n\nA depth model takes no image, and other models take no depth maps: with them, bypass "
        "*Depth to Video*, and use *ControlNet* for structure. It gets the same maps.",
        at=(COLUMNS[0], FIRST_ROW), size=(WIDTH, 240), title="Four conditions in one graph",
    )
    flow.note(
        "**Image**: VideoCrafter1's Image2Video-512, in `models/checkpoints`; choose it in *Model*. And an image of your own.\n\n"
        "**Style**: StyleCrafter's `adapter_v1.pth`, in `models/videocrafter_adapters`; OpenCLIP ViT-H/14, in `models/clip_vision`; and an "
        "image whose style you want. The adapter was trained with VideoCrafter1's Text2Video-512, and fits Image2Video-512, too.\n\n"
        "**ControlNet**: one for depth and Stable Diffusion 2.1, in `models/controlnet`.\n\nThen press R, so that ComfyUI sees the files.",
        at=(COLUMNS[0], FIRST_ROW + 300), size=(WIDTH, 360), title="Which files, and where they go",
    )


def _image(flow: WorkflowBuilder, loader: Node, positive: Node, negative: Node) -> Node:
    """The first image, bypassed."""
    # No file is chosen: the interface complains about a missing file even where the node is not used.
    own = flow.node("LoadImage", {"image": ""}, at=(COLUMNS[1], FIRST_ROW), size=(WIDTH, 260), title="Your image")
    both = flow.node(
        "VideoCrafterImageToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "image": own["IMAGE"], "fps": 8.0,
        },
        at=(COLUMNS[1], FIRST_ROW + 320), size=(WIDTH, 220),
    )
    _bypassed(flow, "Bypassed: image, choose a file", [own, both])
    return both


def _structure(flow: WorkflowBuilder, before: Node, latent: Node) -> tuple[Node, Node]:
    """Maps for every frame, and the node that gives them to a depth model."""
    maps = flow.node(
        "VideoCrafterExampleImage",
        {"shape": "circle", "color": "white", "x": 18, "y": 46, "length": 16, "end_x": 46, "end_y": 18},
        at=(COLUMNS[2], FIRST_ROW), size=(WIDTH, 240), title="Maps: drawn, or your own",
    )
    depth = flow.node(
        "VideoCrafterDepthToVideo",
        {
            "positive": before["positive"], "negative": before["negative"], "depth": maps["IMAGE"], "range": "clip", "strength": 1.0,
            "strength_over_time": "", "latent": latent["LATENT"],
        },
        at=(COLUMNS[2], FIRST_ROW + 310), size=(WIDTH, 340),
    )
    flow.group("Structure: where things are", [maps, depth], color=GREEN)
    return maps, depth


def _controlnet(flow: WorkflowBuilder, maps: Node, before: Node) -> Node:
    """Structure by a ControlNet, bypassed, and the maps as a picture."""
    loaded = flow.node("ControlNetLoader", {"control_net_name": ""}, at=(COLUMNS[3], FIRST_ROW), size=(WIDTH, 60))
    both = flow.node(
        "ControlNetApplyAdvanced",
        {"positive": before["positive"], "negative": before["negative"], "control_net": loaded["CONTROL_NET"], "image": maps["IMAGE"]},
        at=(COLUMNS[3], FIRST_ROW + 120), size=(WIDTH, 190),
    )
    _bypassed(flow, "Bypassed: ControlNet, choose a file", [loaded, both])
    preview = flow.node("PreviewImage", {"images": maps["IMAGE"]}, at=(COLUMNS[3], FIRST_ROW + 440), size=(WIDTH, 240))
    flow.group("Maps: what is given", [preview], color=TEAL)
    return both


def _style(flow: WorkflowBuilder, loader: Node) -> Node:
    """The style of an image, bypassed."""
    own = flow.node("LoadImage", {"image": ""}, at=(COLUMNS[4], LOWER), size=(NARROW, 240), title="Your style image")
    tower = flow.node("CLIPVisionLoader", {"clip_name": ""}, at=(COLUMNS[4], LOWER + 300), size=(NARROW, 60))
    style = flow.node(
        "VideoCrafterStyle",
        {"model": loader["MODEL"], "adapter_name": "", "clip_vision": tower["CLIP_VISION"], "images": own["IMAGE"], "strength": 1.0},
        at=(COLUMNS[4], LOWER + 420), size=(NARROW, 200),
    )
    _bypassed(flow, "Bypassed: style, choose files", [own, tower, style])
    return style


def _bypassed(flow: WorkflowBuilder, title: str, nodes: list[Node]) -> None:
    """A group of nodes that are bypassed."""
    for node in nodes:
        node.data["mode"] = BYPASSED
    flow.group(title, nodes, color=PURPLE)
