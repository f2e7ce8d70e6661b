"""The example graph that makes a video from depth maps: a drawn silhouette, so that it runs at once."""

from __future__ import annotations

from harness.graph import ObjectInfo

from .workflow_builder import WorkflowBuilder
from .workflow_parts import COLUMNS, FIRST_ROW, GREEN, SECOND_ROW, TEAL, WIDTH, decoded, model, sampler_node, saved, size_node, texts

BUNDLED = "videocrafter_tiny_depth (bundled)"


def depth_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Depth to video with the bundled model. The maps are a drawn clip; the user's own are one link away."""
    flow = WorkflowBuilder(info)
    flow.note(
        "Connect depth maps of your own to *image* of *The silhouette*: load a clip, fit it with **VideoCrafter Fit Video**, and estimate "
        "its depth with a node such as Depth Anything. Near is white.\n\nThe bundled model only knows silhouettes of a circle, a square or "
        "a triangle. For other maps choose Make-Your-Video below.",
        at=(COLUMNS[0], FIRST_ROW), size=(WIDTH, 250), title="Use your own depth maps",
    )
    maps = flow.node(
        "VideoCrafterExampleImage",
        {"shape": "square", "color": "white", "x": 16, "y": 20, "length": 16, "end_x": 48, "end_y": 44},
        at=(COLUMNS[2], FIRST_ROW), size=(WIDTH, 310), title="The silhouette",
    )
    preview = flow.node("PreviewImage", {"images": maps["IMAGE"]}, at=(COLUMNS[3], FIRST_ROW), size=(WIDTH, 310))
    flow.group("Depth maps: drawn, or your own", [maps, preview], color=TEAL)
    loader = model(
        flow, BUNDLED, SECOND_ROW,
        "The bundled model is tiny. It makes 64x64 videos of *a red|green|blue|yellow|white|purple circle|square|triangle* where the "
        "silhouette is.\n\nFor real videos: put Make-Your-Video's `model.ckpt` into `models/checkpoints` and choose it here. Set 256x256, "
        "16 to 64 frames, 50 steps and cfg 7.5. Then write any prompt.",
    )
    positive, negative = texts(flow, loader["CLIP"], "a green square", SECOND_ROW)
    flow.group("Prompt: what the video shows", [positive, negative], color=GREEN)
    latent = size_node(flow, SECOND_ROW + 410)
    conditioning = flow.node(
        "VideoCrafterDepthToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "depth": maps["IMAGE"], "range": "clip",
            "strength": 1.0, "strength_over_time": "", "latent": latent["LATENT"],
        },
        at=(COLUMNS[2], SECOND_ROW), size=(WIDTH, 340),
    )
    flow.group("Depth, size and length", [conditioning, latent], color=GREEN)
    sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], SECOND_ROW)
    decode = decoded(flow, loader, sampler, SECOND_ROW)
    saved(flow, decode["IMAGE"], [decode], SECOND_ROW, "VideoCrafter_depth_to_video", webp_top=FIRST_ROW, conditioned=False)
    return flow
