"""Writes the workflows of ``workflows/``: `python -m dev.workflows`.

They are described here rather than drawn, so that a changed node changes them all in the same way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.comfyui import REPOSITORY
from harness.graph import ObjectInfo
from harness.server import running

from . import dynamicrafter_workflows as dynamicrafter
from .training_workflow import train_lora
from .workflow_builder import Node, Output, WorkflowBuilder
from .workflow_parts import FIRST_ROW, SECOND_ROW, decoded, drawn_square, sampler_node, saved

FOLDER = REPOSITORY / "workflows"
BUNDLED_TEXT_TO_VIDEO = "videocrafter_tiny_t2v (bundled)"
BUNDLED_IMAGE_TO_VIDEO = "videocrafter_tiny_i2v (bundled)"


def text_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Text to video with the bundled model, so that it runs as soon as it is opened."""
    flow = WorkflowBuilder(info)
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": BUNDLED_TEXT_TO_VIDEO}, at=(0, 60), size=(330, 220))
    flow.note(
        "**Model**\n\nThe bundled model is tiny. It makes 64x64 videos of *a red|green|blue|yellow|white|purple "
        "circle|square|triangle moving left|right|up|down*.\n\nFor real videos: put VideoCrafter2's `model.ckpt` into "
        "`models/checkpoints` and choose it here. Set 512x320, 16 frames, fps 28, 50 steps and cfg 12. Then write any prompt.",
        at=(0, 340), size=(330, 240), title="Change the model",
    )
    positive = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": "a red circle moving right"}, at=(380, 60), size=(330, 130), title="Prompt"
    )
    negative = flow.node("CLIPTextEncode", {"clip": loader["CLIP"], "text": ""}, at=(380, 240), size=(330, 110), title="Negative prompt")
    latent = flow.node("EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16}, at=(380, 400), size=(330, 130))
    conditioning, sampler = _sampled(flow, loader, positive, negative, latent)
    flow.group("Model", [loader], color="#3f789e")
    flow.group("Prompt and size", [positive, negative, latent], color="#3f5e3f")
    flow.group("Sampling", [conditioning, sampler], color="#5e3f5e")
    decode = decoded(flow, loader, sampler, top=60)
    saved(flow, decode["IMAGE"], [decode], top=60, prefix="VideoCrafter")
    return flow


def prompt_schedule(info: ObjectInfo) -> WorkflowBuilder:
    """Text to video with a prompt that changes along the clip."""
    flow = WorkflowBuilder(info)
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": BUNDLED_TEXT_TO_VIDEO}, at=(0, 60), size=(330, 220))
    flow.note(
        'A line for each key: *"frame": "prompt"*. "-1" is the last frame, "0.5" the middle. "0:6" keeps a prompt from frame 0 to 5. '
        "Between two keys the prompts are mixed.\n\nFor real videos choose VideoCrafter2 in **Load VideoCrafter Model**. Set 512x320, "
        "fps 28, 50 steps and cfg 12.",
        at=(0, 340), size=(330, 230), title="Change the prompts",
    )
    latent = flow.node("EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16}, at=(380, 60), size=(330, 130))
    schedule = flow.node(
        "VideoCrafterPromptSchedule",
        {
            "clip": loader["CLIP"], "latent": latent["LATENT"],
            "schedule": '"0:6": "a red circle moving right",\n"10": "a blue circle moving right"',
        },
        at=(380, 240), size=(330, 270), title="Prompts over time",
    )
    negative = flow.node("CLIPTextEncode", {"clip": loader["CLIP"], "text": ""}, at=(380, 570), size=(330, 110), title="Negative prompt")
    conditioning, sampler = _sampled(flow, loader, schedule, negative, latent)
    preview = flow.node("PreviewImage", {"images": schedule["plot"]}, at=(760, 640), size=(320, 260), title="The schedule")
    flow.group("Model", [loader], color="#3f789e")
    flow.group("Size and prompts", [latent, schedule, negative], color="#3f5e3f")
    flow.group("Sampling", [conditioning, sampler, preview], color="#5e3f5e")
    decode = decoded(flow, loader, sampler, top=60)
    saved(flow, decode["IMAGE"], [decode], top=60, prefix="VideoCrafter_prompt_schedule")
    return flow


def _sampled(flow: WorkflowBuilder, loader: Node, positive: Node, negative: Node, latent: Node) -> tuple[Node, Node]:
    """The third column of a graph from text: the conditioning, and the sampler below it."""
    conditioning = flow.node(
        "VideoCrafterConditioning",
        {"positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "fps": 8.0, "latent": latent["LATENT"]},
        at=(760, 60), size=(320, 120),
    )
    return conditioning, sampler_node(flow, loader, conditioning, latent["LATENT"], top=240)


def image_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Image to video. ComfyUI's nodes draw the image, so that it runs without a file; your own image is one link away."""
    flow = WorkflowBuilder(info)
    flow.note(
        "Choose a file in *Your image*. Connect its IMAGE output to *The image*, in place of *Red square*.\n\nThe bundled "
        "model only knows images of one coloured shape on a dark background. For other images choose a published model "
        "below.",
        at=(0, FIRST_ROW), size=(330, 190), title="Use your own image",
    )
    # No file is chosen: the interface complains about a missing file even where the node is not used.
    own = flow.node("LoadImage", {"image": ""}, at=(380, FIRST_ROW), size=(330, 340), title="Your image")
    square, drawing = drawn_square(flow, 8, 22, column=2, top=FIRST_ROW, title="Red square")
    image = flow.node("ImageFromBatch", {"image": square}, at=(1470, FIRST_ROW), size=(320, 100), title="The image")
    preview = flow.node("PreviewImage", {"images": image["IMAGE"]}, at=(1470, FIRST_ROW + 160), size=(320, 280))
    flow.group("Your own image", [own], color="#3f5e5e")
    flow.group("Example image", drawing, color="#3f5e3f")
    flow.group("Source image", [image, preview], color="#3f5e3f")
    _image_to_video(flow, image["IMAGE"], "moving right", prefix="VideoCrafter_image_to_video")
    return flow


def text_to_image_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Text to image, with ComfyUI's own nodes beside the loader, then image to video."""
    flow = WorkflowBuilder(info)
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": BUNDLED_TEXT_TO_VIDEO}, at=(0, FIRST_ROW), size=(330, 220), title="Image model")
    flow.note(
        "Here a text-to-video model makes a single frame, so that this runs without a download. For other images use **Load "
        "Checkpoint** instead, with Stable Diffusion or another image model: connect its MODEL, CLIP and VAE, and set its size, "
        "steps and cfg. Choose a published model for the video as well.",
        at=(0, FIRST_ROW + 280), size=(330, 220), title="Change the image model",
    )
    positive = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": "a yellow triangle"}, at=(380, FIRST_ROW), size=(330, 130), title="Prompt"
    )
    negative = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": ""}, at=(380, FIRST_ROW + 180), size=(330, 110), title="Negative prompt"
    )
    latent = flow.node("EmptyLatentImage", {"width": 64, "height": 64}, at=(380, FIRST_ROW + 340), size=(330, 110))
    sampler = flow.node(
        "KSampler",
        {
            "model": loader["MODEL"], "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"],
            "latent_image": latent["LATENT"], "seed": 0, "steps": 25, "cfg": 4.0, "sampler_name": "ddim", "scheduler": "normal",
        },
        at=(760, FIRST_ROW), size=(320, 290),
    )
    image = flow.node("VAEDecode", {"samples": sampler["LATENT"], "vae": loader["VAE"]}, at=(1130, FIRST_ROW), size=(300, 60))
    preview = flow.node("PreviewImage", {"images": image["IMAGE"]}, at=(1470, FIRST_ROW), size=(320, 340))
    flow.group("Image model", [loader], color="#3f789e")
    flow.group("Prompt and size", [positive, negative, latent], color="#3f5e3f")
    flow.group("Sampling the image", [sampler], color="#5e3f5e")
    flow.group("Source image", [image, preview], color="#5e5e3f")
    _image_to_video(flow, image["IMAGE"], "moving up", prefix="VideoCrafter_text_to_image_to_video")
    return flow


def _image_to_video(flow: WorkflowBuilder, image: Output, motion: str, prefix: str) -> None:
    """The second row of a graph: from the image of the first row to saved video files."""
    top = SECOND_ROW
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": BUNDLED_IMAGE_TO_VIDEO}, at=(0, top), size=(330, 220), title="Video model")
    flow.note(
        "The bundled model is tiny. It makes 64x64 videos of a coloured shape on a dark background that is *moving "
        "left|right|up|down*.\n\nFor real videos: put VideoCrafter1's Image2Video `model.ckpt` into `models/checkpoints` and choose it "
        "here. Set 50 steps and cfg 12, and describe what happens in the video. Image Size then suggests about as many pixels as "
        "512x320, in the aspect ratio of the image.",
        at=(0, top + 280), size=(330, 260), title="Change the video model",
    )
    positive = flow.node("CLIPTextEncode", {"clip": loader["CLIP"], "text": motion}, at=(380, top), size=(330, 130), title="Motion")
    negative = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": ""}, at=(380, top + 180), size=(330, 110), title="Negative prompt"
    )
    size = flow.node("VideoCrafterImageSize", {"model": loader["MODEL"], "image": image}, at=(380, top + 340), size=(330, 80))
    latent = flow.node(
        "EmptyVideoCrafterLatent", {"width": size["width"], "height": size["height"], "length": 16}, at=(380, top + 470), size=(330, 130)
    )
    conditioning = flow.node(
        "VideoCrafterImageToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "image": image, "fps": 8.0, "latent": latent["LATENT"],
        },
        at=(760, top), size=(320, 190),
    )
    sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], top=top + 250)
    flow.group("Video model", [loader], color="#3f789e")
    flow.group("Motion and size", [positive, negative, size, latent], color="#3f5e3f")
    flow.group("Sampling the video", [conditioning, sampler], color="#5e3f5e")
    decode = decoded(flow, loader, sampler, top=top)
    saved(flow, decode["IMAGE"], [decode], top=top, prefix=prefix)


WORKFLOWS: dict[str, Callable[[ObjectInfo], WorkflowBuilder]] = {
    "text_to_video": text_to_video,
    "prompt_schedule": prompt_schedule,
    "image_to_video": image_to_video,
    "text_to_image_to_video": text_to_image_to_video,
    "train_lora": train_lora,
    "dynamicrafter_image_to_video": dynamicrafter.image_to_video,
    "dynamicrafter_interpolation": dynamicrafter.interpolation,
    "dynamicrafter_keyframes": dynamicrafter.keyframes,
    "dynamicrafter_loop": dynamicrafter.loop,
}


def main() -> None:
    """Write every workflow, with the nodes as a running ComfyUI describes them."""
    with tempfile.TemporaryDirectory() as base, running(Path(base)) as server:
        info = server.object_info()
        for name, describe in WORKFLOWS.items():
            describe(info).save(FOLDER / f"{name}.json")
            print(f"workflows/{name}.json")


if __name__ == "__main__":
    main()
