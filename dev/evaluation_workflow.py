"""The workflow that measures a video, and compares it with another one of the same prompt."""

from __future__ import annotations

from harness.graph import ObjectInfo

from .workflow_builder import Node, WorkflowBuilder
from .workflow_parts import COLUMNS, FIRST_ROW, GREEN, OLIVE, TEAL, WIDTH, decoded, example, model, sampler_node, size_node, texts

SECOND_ROW = 620


def evaluate(info: ObjectInfo) -> WorkflowBuilder:
    """Two videos of one image, with many steps and with few: both are measured, and shown side by side."""
    flow = WorkflowBuilder(info)
    loader = model(
        flow, "videocrafter_tiny_i2v (bundled)", FIRST_ROW,
        "Two videos of one prompt are measured: A with 25 steps, B with 4. Change what you want to compare: seeds, cfg, LoRAs, models."
        "\n\nThe CLIP of an image-to-video model measures text alignment and consistency. Values of different models' CLIP can't be "
        "compared. For many videos use `vc-core evaluate`.",
    )
    positive, negative = texts(flow, loader["CLIP"], "a red square moving right", FIRST_ROW)
    image = example(flow, 18, 32, (COLUMNS[1], FIRST_ROW + 330), "Source image")
    flow.group("Prompt and image: what the video shows", [positive, negative, image], color=GREEN)
    conditioning = flow.node(
        "VideoCrafterImageToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "image": image["IMAGE"], "fps": 8.0,
        },
        at=(COLUMNS[2], FIRST_ROW), size=(WIDTH, 210),
    )
    latent = size_node(flow, FIRST_ROW + 300)
    flow.group("Speed, size and length", [conditioning, latent], color=GREEN)
    frames = []
    for top, steps in ((FIRST_ROW, 25), (SECOND_ROW, 4)):
        sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], top, steps=steps)
        frames.append(decoded(flow, loader, sampler, top=top))
    flow.group("Frames of A: nothing to set", [frames[0]], color=OLIVE)
    flow.group("Frames of B: nothing to set", [frames[1]], color=OLIVE)
    _measured(flow, loader, image, frames)
    return flow


def _measured(flow: WorkflowBuilder, loader: Node, image: Node, frames: list[Node]) -> None:
    """The measures of A, and both side by side."""
    shared = {"prompt": "a red square", "fps": 8.0, "clip": loader["CLIP"], "clip_vision": loader["CLIP_VISION"], "image": image["IMAGE"]}
    evaluated = flow.node(
        "VideoCrafterEvaluate", {"images": frames[0]["IMAGE"], **shared}, at=(COLUMNS[5], FIRST_ROW), size=(WIDTH, 330),
    )
    compared = flow.node(
        "VideoCrafterCompare", {"images_a": frames[0]["IMAGE"], "images_b": frames[1]["IMAGE"], **shared},
        at=(COLUMNS[5], SECOND_ROW), size=(WIDTH, 350),
    )
    flow.group("Measures of A: the same prompt", [evaluated], color=GREEN)
    flow.group("A and B: the same prompt", [compared], color=GREEN)
    table = flow.node("PreviewAny", {"source": evaluated["table"]}, at=(COLUMNS[6], FIRST_ROW), size=(WIDTH, 400), title="Values of A")
    plot = flow.node("PreviewImage", {"images": evaluated["plot"]}, at=(COLUMNS[6] + 390, FIRST_ROW), size=(400, 400), title="Curves of A")
    flow.group("Results of A: values and curves", [table, plot], color=TEAL)
    both = flow.node(
        "PreviewAny", {"source": compared["table"]}, at=(COLUMNS[6], SECOND_ROW), size=(WIDTH, 400), title="Values of A and B"
    )
    webp = flow.node(
        "SaveAnimatedWEBP", {"images": compared["video"], "filename_prefix": "VideoCrafter_evaluate", "fps": 8.0, "lossless": True},
        at=(COLUMNS[6] + 390, SECOND_ROW), size=(400, 400), title="A, B and their curves",
    )
    flow.group("Results of both: values and a video", [both, webp], color=TEAL)
