"""Writes the workflows of ``workflows/``: `python -m dev.workflows`.

They are described here rather than drawn, so that a changed node changes them all in the same way.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.comfyui import REPOSITORY
from harness.graph import ObjectInfo
from harness.server import running

from . import dynamicrafter_workflows as dynamicrafter
from .camera_workflow import camera
from .compose_workflow import compose
from .depth_workflow import depth_to_video
from .edit_workflow import edit_video
from .evaluation_workflow import evaluate
from .training_workflow import train_lora
from .workflow_builder import Node, Output, WorkflowBuilder
from .workflow_parts import (
    COLUMNS,
    FIRST_ROW,
    GREEN,
    OLIVE,
    PURPLE,
    SECOND_ROW,
    TEAL,
    WIDTH,
    decoded,
    example,
    model,
    negative_prompt,
    sampler_node,
    saved,
    size_node,
    speed_node,
    texts,
)

FOLDER = REPOSITORY / "workflows"
BUNDLED_TEXT_TO_VIDEO = "videocrafter_tiny_t2v (bundled)"
BUNDLED_FEW_STEPS = "videocrafter_tiny_turbo (bundled)"
BUNDLED_IMAGE_TO_VIDEO = "videocrafter_tiny_i2v (bundled)"
TOP = 60
#: The path of the workflow that draws one, in pixels of a video of 64x64.
DRAWN = [{"x": 14, "y": 46}, {"x": 32, "y": 16}, {"x": 50, "y": 46}]


def text_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Text to video with the bundled model, so that it runs as soon as it is opened."""
    flow = WorkflowBuilder(info)
    loader = model(
        flow, BUNDLED_TEXT_TO_VIDEO, TOP,
        "The bundled model is tiny. It makes 64x64 videos of *a red|green|blue|yellow|white|purple circle|square|triangle moving "
        "left|right|up|down*.\n\nFor real videos: put VideoCrafter2's `model.ckpt` into `models/checkpoints` and choose it here. Set "
        "512x320, 16 frames, fps 28, 50 steps and cfg 12. Then write any prompt.",
    )
    positive, negative = texts(flow, loader["CLIP"], "a red circle moving right", TOP)
    flow.group("Prompt: what the video shows", [positive, negative], color=GREEN)
    _from_text(flow, loader, positive, negative, size_node(flow, TOP + 250), prefix="VideoCrafter")
    return flow


def text_to_video_turbo(info: ObjectInfo) -> WorkflowBuilder:
    """Text to video in four steps with the bundled distilled model."""
    flow = WorkflowBuilder(info)
    loader = model(
        flow, BUNDLED_FEW_STEPS, TOP,
        "The bundled distilled model makes the videos of the bundled model in 4 steps in place of 25, and without CFG, which makes each "
        "step half the work.\n\nFor real videos choose T2V-Turbo here, and VideoCrafter2's file as **base**. Set 512x320 and fps 16 (v1) "
        "or 8 (v2). Then write any prompt.",
    )
    positive, negative = texts(flow, loader["CLIP"], "a red circle moving right", TOP)
    flow.group("Prompt: what the video shows", [positive, negative], color=GREEN)
    _from_text(
        flow, loader, positive, negative, size_node(flow, TOP + 250), prefix="VideoCrafter_turbo", settings="the model's", steps=4, cfg=1.0
    )
    return flow


def prompt_schedule(info: ObjectInfo) -> WorkflowBuilder:
    """Text to video with a prompt that changes along the clip."""
    flow = WorkflowBuilder(info)
    loader = model(
        flow, BUNDLED_TEXT_TO_VIDEO, TOP,
        'A line of the schedule for each key: *"frame": "prompt"*. "-1" is the last frame, "0.5" the middle. "0:6" keeps a prompt from '
        "frame 0 to 5. Between two keys the prompts are mixed.\n\nFor real videos choose VideoCrafter2 here. Set 512x320, fps 28, 50 steps "
        "and cfg 12.",
    )
    latent = size_node(flow, TOP + 250)
    schedule = flow.node(
        "VideoCrafterPromptSchedule",
        {
            "clip": loader["CLIP"], "latent": latent["LATENT"],
            "schedule": '"0:6": "a red circle moving right",\n"10": "a blue circle moving right"',
        },
        at=(COLUMNS[1], TOP), size=(WIDTH, 280), title="Prompts over time",
    )
    negative = negative_prompt(flow, loader["CLIP"], TOP + 350)
    flow.group("Prompts: what each frame shows", [schedule, negative], color=GREEN)
    plot = flow.node("PreviewImage", {"images": schedule["plot"]}, at=(COLUMNS[2], TOP + 530), size=(WIDTH, 220), title="The schedule")
    flow.group("Plot: when which prompt is read", [plot], color=OLIVE)
    _from_text(flow, loader, schedule, negative, latent, prefix="VideoCrafter_prompt_schedule")
    return flow


def _from_text(flow: WorkflowBuilder, loader: Node, positive: Node, negative: Node, latent: Node, prefix: str, **sampling: Any) -> None:
    """The third column and what follows, for a video from text alone."""
    conditioning = speed_node(flow, positive, negative, latent, TOP)
    sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], TOP, **sampling)
    decode = decoded(flow, loader, sampler, TOP)
    saved(flow, decode["IMAGE"], [decode], TOP, prefix)


def freeinit(info: ObjectInfo) -> WorkflowBuilder:
    """Text to video, sampled three times."""
    flow = WorkflowBuilder(info)
    loader = model(
        flow, BUNDLED_TEXT_TO_VIDEO, TOP,
        "**FreeInit** samples the video several times, each time from noise that keeps the low frequencies of the video before: steadier, "
        "and as many times as slow. Set iterations to 1 to compare.\n\nFor real videos choose VideoCrafter2 here. Set 512x320, fps 28, 50 "
        "steps and cfg 12.",
    )
    positive, negative = texts(flow, loader["CLIP"], "a green triangle moving up", TOP)
    flow.group("Prompt: what the video shows", [positive, negative], color=GREEN)
    latent = size_node(flow, TOP + 250)
    conditioning = speed_node(flow, positive, negative, latent, TOP)
    ddim = flow.node("VideoCrafterDDIM", {"eta": 1.0}, at=(COLUMNS[1], TOP + 530), size=(WIDTH, 80))
    repeated = flow.node(
        "VideoCrafterFreeInit", {"sampler": ddim["SAMPLER"], "iterations": 3}, at=(COLUMNS[2], TOP + 530), size=(WIDTH, 220)
    )
    flow.group("FreeInit: how often the video is sampled", [ddim, repeated], color=PURPLE)
    noise = flow.node(
        "VideoCrafterInitialNoise", {"model": loader["MODEL"], "statistics": "none", "noise_seed": 0, "start_timestep": 1000},
        at=(COLUMNS[3], TOP), size=(WIDTH, 170),
    )
    sigmas = flow.node("VideoCrafterScheduler", {"model": loader["MODEL"], "steps": 25}, at=(COLUMNS[3], TOP + 240), size=(WIDTH, 180))
    guider = flow.node(
        "CFGGuider", {"model": loader["MODEL"], "positive": conditioning["positive"], "negative": conditioning["negative"], "cfg": 4.0},
        at=(COLUMNS[3], TOP + 490), size=(WIDTH, 120),
    )
    sampler = flow.node(
        "SamplerCustomAdvanced",
        {
            "noise": noise["NOISE"], "guider": guider["GUIDER"], "sampler": repeated["SAMPLER"], "sigmas": sigmas["SIGMAS"],
            "latent_image": latent["LATENT"],
        },
        at=(COLUMNS[4], TOP), size=(260, 130),
    )
    flow.group("Sampling: new seed, new video", [noise, sigmas, guider], color=PURPLE)
    frames = {"samples": sampler["output"], "vae": loader["VAE"]}
    decode = flow.node("VideoCrafterDecode", frames, at=(COLUMNS[4], TOP + 200), size=(260, 80))
    saved(flow, decode["IMAGE"], [sampler, decode], TOP + 320, prefix="VideoCrafter_freeinit")
    return flow


def draw_trajectory(info: ObjectInfo) -> WorkflowBuilder:
    """Text to video whose subject follows a drawn path."""
    flow = WorkflowBuilder(info)
    loader = model(
        flow, BUNDLED_TEXT_TO_VIDEO, TOP,
        "**FreeTraj** moves the subject of the prompt along a path, without training. Draw another path in *The path*. Keep *prompt* and "
        "*subject* of *Follow the path* as the prompt says. The bundled model's grid has places of 8 pixels."
        "\n\nFor real videos choose VideoCrafter2 here. Set 512x320 at the path and the latent, fps 16, 50 steps, eta 0 and cfg 12.",
    )
    prompt = "a red circle"
    positive, negative = texts(flow, loader["CLIP"], prompt, TOP)
    flow.group("Prompt: what the video shows", [positive, negative], color=GREEN)
    latent = size_node(flow, TOP + 250)
    conditioning = speed_node(flow, positive, negative, latent, TOP)
    drawn = flow.node(
        "VideoCrafterDrawTrajectory",
        {"width": 64, "height": 64, "length": 16, "paths": json.dumps([{"points": DRAWN, "curve": "smooth"}])},
        at=(COLUMNS[1], TOP + 530), size=(WIDTH, 560), title="The path",
    )
    flow.group("Path: draw where it goes", [drawn], color=TEAL)
    moving = flow.node(
        "VideoCrafterTrajectory",
        {
            "model": loader["MODEL"], "latent": latent["LATENT"], "clip": loader["CLIP"], "tracks": drawn["tracks"], "method": "FreeTraj",
            "prompt": prompt, "subject": "red circle", "box_size": 0.5, "edited_steps": 6, "noise_seed": 0,
        },
        at=(COLUMNS[2], TOP + 530), size=(WIDTH, 440), title="Follow the path",
    )
    flow.group("FreeTraj: what follows it", [moving], color=PURPLE)
    sampler = sampler_node(
        flow, loader, conditioning, latent["LATENT"], TOP, model=moving["moving_model"], noise=moving["noise"]
    )
    decode = decoded(flow, loader, sampler, TOP)
    saved(flow, decode["IMAGE"], [decode], TOP, prefix="VideoCrafter_draw_trajectory")
    return flow


def image_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Image to video. The image is drawn, so that it runs without a file; your own image is one link away."""
    flow = WorkflowBuilder(info)
    flow.note(
        "Choose a file in *Your image*. Connect its IMAGE output to *image* of *The image*.\n\nThe bundled model only knows images of one "
        "colored shape on a dark background. For other images choose a published model below.",
        at=(COLUMNS[0], FIRST_ROW), size=(WIDTH, 190), title="Use your own image",
    )
    # No file is chosen: the interface complains about a missing file even where the node is not used.
    own = flow.node("LoadImage", {"image": ""}, at=(COLUMNS[1], FIRST_ROW), size=(WIDTH, 340), title="Your image")
    image = example(flow, 18, 32, (COLUMNS[2], FIRST_ROW), "The image")
    preview = flow.node("PreviewImage", {"images": image["IMAGE"]}, at=(COLUMNS[3], FIRST_ROW), size=(WIDTH, 280))
    flow.group("Your image: choose, then connect", [own], color=TEAL)
    flow.group("Source image: drawn, or your own", [image, preview], color=GREEN)
    _image_to_video(flow, image["IMAGE"], "moving right", SECOND_ROW, "VideoCrafter_image_to_video", webp_top=FIRST_ROW)
    return flow


def text_to_image_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Text to image, with ComfyUI's own nodes beside the loader, then image to video."""
    flow = WorkflowBuilder(info)
    loader = model(
        flow, BUNDLED_TEXT_TO_VIDEO, FIRST_ROW,
        "Here a text-to-video model makes a single frame, so that this runs without a download. For other images use **Load "
        "Checkpoint**, with Stable Diffusion or another image model: connect its MODEL, CLIP and VAE, and set its size, steps and cfg. "
        "Choose a published model for the video as well.",
        title="Image model",
    )
    positive, negative = texts(flow, loader["CLIP"], "a yellow triangle", FIRST_ROW)
    latent = flow.node("EmptyLatentImage", {"width": 64, "height": 64}, at=(COLUMNS[2], FIRST_ROW), size=(WIDTH, 110))
    sampler = flow.node(
        "KSampler",
        {
            "model": loader["MODEL"], "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"],
            "latent_image": latent["LATENT"], "seed": 0, "steps": 25, "cfg": 4.0, "sampler_name": "ddim", "scheduler": "normal",
        },
        at=(COLUMNS[3], FIRST_ROW), size=(WIDTH, 290),
    )
    image = flow.node("VAEDecode", {"samples": sampler["LATENT"], "vae": loader["VAE"]}, at=(COLUMNS[4], FIRST_ROW), size=(260, 60))
    preview = flow.node("PreviewImage", {"images": image["IMAGE"]}, at=(COLUMNS[4], FIRST_ROW + 130), size=(260, 260))
    flow.group("Prompt: what the image shows", [positive, negative], color=GREEN)
    flow.group("Size of the image", [latent], color=GREEN)
    flow.group("Sampling: new seed, new image", [sampler], color=PURPLE)
    flow.group("Source image: what the video starts from", [image, preview], color=OLIVE)
    _image_to_video(flow, image["IMAGE"], "moving up", SECOND_ROW + 100, "VideoCrafter_text_to_image_to_video")
    return flow


def _image_to_video(
    flow: WorkflowBuilder, image: Output, motion: str, top: float, prefix: str, webp_top: float | None = None
) -> None:
    """The second row of a graph: from the image of the first row to saved video files."""
    loader = model(
        flow, BUNDLED_IMAGE_TO_VIDEO, top,
        "The bundled model is tiny. It makes 64x64 videos of a colored shape on a dark background that is *moving left|right|up|down*."
        "\n\nFor real videos: put VideoCrafter1's Image2Video `model.ckpt` into `models/checkpoints` and choose it here. Set 50 steps and "
        "cfg 12, and say what happens. Image Size then suggests a size of about 512x320 pixels in the image's aspect ratio.",
        title="Video model",
    )
    positive, negative = texts(flow, loader["CLIP"], motion, top, title="Motion")
    size = flow.node("VideoCrafterImageSize", {"model": loader["MODEL"], "image": image}, at=(COLUMNS[1], top + 330), size=(WIDTH, 60))
    flow.group("Motion: how the image moves", [positive, negative, size], color=GREEN)
    latent = flow.node(
        "EmptyVideoCrafterLatent", {"width": size["width"], "height": size["height"], "length": 16},
        at=(COLUMNS[2], top + 300), size=(WIDTH, 130),
    )
    conditioning = flow.node(
        "VideoCrafterImageToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "image": image, "fps": 8.0,
        },
        at=(COLUMNS[2], top), size=(WIDTH, 210),
    )
    flow.group("Image, speed and length", [conditioning, latent], color=GREEN)
    sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], top)
    decode = decoded(flow, loader, sampler, top)
    saved(flow, decode["IMAGE"], [decode], top, prefix, webp_top)


WORKFLOWS: dict[str, Callable[[ObjectInfo], WorkflowBuilder]] = {
    "text_to_video": text_to_video,
    "text_to_video_turbo": text_to_video_turbo,
    "prompt_schedule": prompt_schedule,
    "image_to_video": image_to_video,
    "text_to_image_to_video": text_to_image_to_video,
    "train_lora": train_lora,
    "evaluate": evaluate,
    "edit_video": edit_video,
    "depth_to_video": depth_to_video,
    "compose": compose,
    "dynamicrafter_image_to_video": dynamicrafter.image_to_video,
    "dynamicrafter_interpolation": dynamicrafter.interpolation,
    "dynamicrafter_keyframes": dynamicrafter.keyframes,
    "dynamicrafter_loop": dynamicrafter.loop,
    "dynamicrafter_more_motion": dynamicrafter.more_motion,
    "text_to_video_freeinit": freeinit,
    "draw_trajectory": draw_trajectory,
    "camera": camera,
    "viewcrafter": dynamicrafter.viewcrafter,
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
