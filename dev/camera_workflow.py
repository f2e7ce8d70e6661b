"""The example graph in which the camera moves, on the bundled model with MotionCtrl's camera module."""

from __future__ import annotations

from harness.graph import ObjectInfo

from .workflow_builder import WorkflowBuilder
from .workflow_parts import (
    COLUMNS,
    FIRST_ROW,
    GREEN,
    PURPLE,
    TEAL,
    WIDTH,
    decoded,
    model,
    sampler_node,
    saved,
    size_node,
    speed_node,
    texts,
)

BUNDLED = "videocrafter_tiny_camera (bundled)"


def camera(info: ObjectInfo) -> WorkflowBuilder:
    """Text to video with a camera path, which is shown over the frames."""
    flow = WorkflowBuilder(info)
    loader = model(
        flow, BUNDLED, FIRST_ROW,
        "The bundled model is tiny. It makes 64x64 videos of *a red|green|blue|yellow|white|purple circle|square|triangle*, and knows the "
        "moves *pan* and *zoom*: the whole picture moves.\n\nFor real videos put MotionCtrl's `motionctrl.pth` into `models/checkpoints` "
        "and choose it here. Set 256x256, 16 frames, 50 steps and cfg 7.5. Then write any prompt, and use every move.",
    )
    positive, negative = texts(flow, loader["CLIP"], "a yellow square", FIRST_ROW)
    flow.group("Prompt: what the video shows", [positive, negative], color=GREEN)
    latent = size_node(flow, FIRST_ROW + 250)
    conditioning = speed_node(flow, positive, negative, latent, FIRST_ROW)
    path = flow.node(
        "VideoCrafterCamera", {"move": "zoom in", "with_move": "pan left", "length": 16, "speed": 0.8},
        at=(COLUMNS[1], FIRST_ROW + 530), size=(WIDTH, 260), title="The camera's path",
    )
    flow.group("Camera: how it moves", [path], color=TEAL)
    moving = flow.node(
        "VideoCrafterApplyCamera", {"model": loader["MODEL"], "camera": path["camera"], "latent": latent["LATENT"]},
        at=(COLUMNS[2], FIRST_ROW + 530), size=(WIDTH, 190), title="Follow the camera",
    )
    flow.group("MotionCtrl: what follows it", [moving], color=PURPLE)
    sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], FIRST_ROW, model=moving["moving_model"])
    decode = decoded(flow, loader, sampler, FIRST_ROW)
    shown = flow.node(
        "VideoCrafterShowMotion", {"images": decode["IMAGE"], "camera": path["camera"]},
        at=(COLUMNS[2], FIRST_ROW + 880), size=(WIDTH, 170), title="The path over the frames",
    )
    preview = flow.node("PreviewImage", {"images": shown["pictures"]}, at=(COLUMNS[3], FIRST_ROW + 880), size=(WIDTH, 250))
    flow.group("Plot: the path over the frames", [shown, preview], color=TEAL)
    saved(flow, decode["IMAGE"], [decode], FIRST_ROW, prefix="VideoCrafter_camera")
    return flow
