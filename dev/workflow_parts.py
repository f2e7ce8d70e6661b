"""What several workflows have: models, texts, sampling, and saving, each in its place.

A row of nodes has six columns, where needed seven, with room for links between them.
"""

from __future__ import annotations

from typing import Any

from .workflow_builder import Node, Output, WorkflowBuilder

FIRST_ROW, SECOND_ROW = 60, 620  # images, and the video that is made of them
COLUMNS = (0, 390, 780, 1170, 1560, 1900, 2300)
WIDTH = 300  # of most nodes
BLUE, GREEN, PURPLE, OLIVE, TEAL = "#7fb2e5", "#8fce8f", "#d79fd7", "#d6d68a", "#8fcfcf"  # light: a group's title has its color


def model(flow: WorkflowBuilder, name: str, top: float, note: str, title: str = "Model", **inputs: str) -> Node:
    """The loader in the first column, and a note below it on what to change for other models."""
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": name, **inputs}, at=(COLUMNS[0], top), size=(WIDTH, 220), title=title)
    flow.group(f"{title}: choose a file", [loader], color=BLUE)
    flow.note(note, at=(COLUMNS[0], top + 290), size=(WIDTH, 240), title="Use another model")
    return loader


def texts(flow: WorkflowBuilder, clip: Output, prompt: str, top: float, title: str = "Prompt") -> tuple[Node, Node]:
    """The prompt and the negative prompt, in the second column."""
    positive = flow.node("CLIPTextEncode", {"clip": clip, "text": prompt}, at=(COLUMNS[1], top), size=(WIDTH, 110), title=title)
    return positive, negative_prompt(flow, clip, top + 170)


def negative_prompt(flow: WorkflowBuilder, clip: Output, top: float) -> Node:
    """What the video must not show, in the second column; the authors leave it empty."""
    return flow.node("CLIPTextEncode", {"clip": clip, "text": ""}, at=(COLUMNS[1], top), size=(WIDTH, 90), title="Negative prompt")


def size_node(flow: WorkflowBuilder, top: float) -> Node:
    """The size of the video, in the third column."""
    return flow.node("EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16}, at=(COLUMNS[2], top), size=(WIDTH, 130))


def speed_node(flow: WorkflowBuilder, positive: Node, negative: Node, latent: Node, top: float) -> Node:
    """The speed of the motion, in the third column with the size."""
    conditioning = flow.node(
        "VideoCrafterConditioning",
        {"positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "fps": 8.0},
        at=(COLUMNS[2], top), size=(WIDTH, 180),
    )
    flow.group("Speed, size and length", [conditioning, latent], color=GREEN)
    return conditioning


def sampler_node(
    flow: WorkflowBuilder, loader: Node, conditioning: Node, latent: Output, top: float, rescale: float = 0.0, seed: int = 0,
    **inputs: Any,
) -> Node:
    """The authors' sampler with the bundled models' settings, in the fourth column."""
    sampler = flow.node(
        "VideoCrafterSampler",
        {
            "model": loader[0], "positive": conditioning["positive"], "negative": conditioning["negative"],
            "latent_image": latent, "seed": seed, "steps": 25, "cfg": 4.0, "guidance_rescale": rescale, **inputs,
        },
        at=(COLUMNS[3], top), size=(WIDTH, 350),
    )
    flow.group("Sampling: new seed, new video", [sampler], color=PURPLE)
    return sampler


def decoded(flow: WorkflowBuilder, loader: Node, sampler: Node, top: float) -> Node:
    """The frames, in the fifth column."""
    return flow.node("VideoCrafterDecode", {"samples": sampler["LATENT"], "vae": loader["VAE"]}, at=(COLUMNS[4], top), size=(260, 80))


def saved(
    flow: WorkflowBuilder, frames: Output, shown: list[Node], top: float, prefix: str, webp_top: float | None = None,
    save_top: float = FIRST_ROW, conditioned: bool = True,
) -> None:
    """A video file in the sixth column and an animated image.

    top:      of the row
    save_top: of the video file, which is at the top of the graph where it can be: the interface's minimap hides nothing there
    webp_top: of the animated image in the fifth column; below what is `shown` there already, if not given
    conditioned: whether the conditioning has fps, too, which a note tells from that of the file
    """
    below = max(node.data["pos"][1] + node.data["size"][1] for node in shown)
    save = flow.node(
        "VideoCrafterSaveVideo", {"images": frames, "filename_prefix": f"video/{prefix}", "fps": 8.0},
        at=(COLUMNS[5], save_top), size=(320, 540),
    )
    webp = flow.node(
        "SaveAnimatedWEBP",
        {"images": frames, "filename_prefix": prefix, "fps": 8.0, "lossless": True},
        at=(COLUMNS[4], below + 130 if webp_top is None else webp_top), size=(260, 320),
    )
    if conditioned:
        flow.note(
            "fps in the conditioning sets the speed of the motion: higher means less motion from frame to frame. fps in the saving nodes "
            "sets the playback speed.",
            at=(COLUMNS[3], top + 410), size=(WIDTH, 110), title="Two kinds of fps",
        )
    flow.group("Frames: nothing to set", shown, color=OLIVE)
    flow.group("Saved: an animated image", [webp], color=TEAL)
    flow.group("Saved: a video file", [save], color=TEAL)


def example(flow: WorkflowBuilder, x: int, y: int, at: tuple[float, float], title: str) -> Node:
    """A drawn red square with its middle at (x, y); a link to it replaces it by the user's own image."""
    return flow.node(
        "VideoCrafterExampleImage", {"shape": "square", "color": "red", "x": x, "y": y}, at=at, size=(WIDTH, 230), title=title
    )
