"""The workflows of DynamiCrafter: image to video, with more motion, interpolation, loop and keyframes; and that of ViewCrafter."""

from __future__ import annotations

from typing import Any

from harness.graph import ObjectInfo

from .workflow_builder import Node, Output, WorkflowBuilder
from .workflow_parts import COLUMNS, FIRST_ROW, GREEN, PURPLE, SECOND_ROW, WIDTH, decoded, example, model, sampler_node, saved, texts

BUNDLED = "videocrafter_tiny_dynamicrafter (bundled)"
STATISTICS = "videocrafter_tiny_dynamicrafter_noise (bundled)"
OWN_IMAGES = "To use your own images, connect **Load Image** to the input *image* of the drawn ones."


def image_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Image to video, where the first frame is the image."""
    flow = WorkflowBuilder(info)
    image = _one_image(flow, "The image: drawn, or your own", 18, 32)
    loader, positive, negative, latent = _start(flow, "moving right", "dynamicrafter_512_v1 or dynamicrafter_1024_v1", image)
    _finish(flow, loader, _from_image(flow, loader, positive, negative, latent, image), latent, "DynamiCrafter")
    return flow


def more_motion(info: ObjectInfo) -> WorkflowBuilder:
    """Image to video from an earlier timestep, with analytic initial noise."""
    flow = WorkflowBuilder(info)
    image = _one_image(flow, "The image: drawn, or your own", 8, 22)
    loader, positive, negative, latent = _start(flow, "moving right", "dynamicrafter_512_v1 or dynamicrafter_1024_v1", image)
    conditioning = _from_image(flow, loader, positive, negative, latent, image)
    flow.note(
        "DynamiCrafter moves more if it starts at a timestep below 1000. **start_timestep** is the same in both nodes.\n\nFor real videos "
        "put the authors' initial_noise_512.pt or initial_noise_1024.pt into `models/videocrafter_initial_noise`, and make 16 frames of "
        "512x320 or 1024x576; or choose *none*. DynamiCrafter-CIL needs neither: leave start_timestep at 1000.",
        at=(COLUMNS[1], SECOND_ROW + 490), size=(WIDTH, 260), title="More motion",
    )
    start = {"start_timestep": 940}
    noise = flow.node(
        "VideoCrafterInitialNoise", {"model": loader["MODEL"], "statistics": STATISTICS, "noise_seed": 0, **start},
        at=(COLUMNS[2], SECOND_ROW + 590), size=(WIDTH, 170),
    )
    flow.group("Noise: new seed, new video", [noise], color=PURPLE)
    _finish(flow, loader, conditioning, latent, "DynamiCrafter_more_motion", noise=noise["NOISE"], **start)
    return flow


def viewcrafter(info: ObjectInfo) -> WorkflowBuilder:
    """ViewCrafter's wiring, on a drawn shape that moves; the bundled model was not trained for it."""
    flow = WorkflowBuilder(info)
    flow.note(
        "An image for every frame. Here a drawn shape moves from the first image to the last. Connect the rough views of a scene in place "
        "of *Images of all frames*: a point cloud or a depth map, rendered along a path of the camera.",
        at=(0, FIRST_ROW), size=(WIDTH, 200), title="The views",
    )
    views = flow.node(
        "VideoCrafterExampleImage",
        {"shape": "square", "color": "red", "x": 16, "y": 32, "length": 25, "end_x": 48, "end_y": 32},
        at=(COLUMNS[1], FIRST_ROW), size=(WIDTH, 240), title="Images of all frames",
    )
    flow.group("Images: one for each frame", [views], color=GREEN)
    top = SECOND_ROW
    loader = model(
        flow, BUNDLED, top,
        "The bundled model only shows how the nodes are connected; it was trained for other videos.\n\nFor real views choose ViewCrafter's "
        "file, and set **model** to its name or auto. Set its size, 25 frames, 50 steps, cfg 7.5, guidance_rescale 0.7 and fps 10, and the "
        "prompt *Rotating view of a scene*.",
        title="Video model", model="viewcrafter_25_512_v1",
    )
    flow.note(
        "Download `model.ckpt` of Drexubery/ViewCrafter_25 (1024x576) or ViewCrafter_25_512 (512x320), and save it in `models/checkpoints` "
        "as viewcrafter_25_v1.ckpt or viewcrafter_25_512_v1.ckpt. `python -m vc_core fetch viewcrafter_25_v1` does both.",
        at=(COLUMNS[1], top + 330), size=(WIDTH, 220), title="Files that ViewCrafter needs",
    )
    positive, negative = texts(flow, loader["CLIP"], "moving right", top)
    flow.group("Prompt: what the video shows", [positive, negative], color=GREEN)
    latent = flow.node(
        "EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 25}, at=(COLUMNS[2], top + 360), size=(WIDTH, 130)
    )
    conditioning = flow.node(
        "VideoCrafterFramesToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "vae": loader["VAE"], "latent": latent["LATENT"], "images": views["IMAGE"], "fps": 10.0,
        },
        at=(COLUMNS[2], top), size=(WIDTH, 280),
    )
    _finish(flow, loader, conditioning, latent, "ViewCrafter", top)
    return flow


def interpolation(info: ObjectInfo) -> WorkflowBuilder:
    """A video between two images."""
    flow = WorkflowBuilder(info)
    flow.note(
        f"The video starts with the first image and ends with the last image. {OWN_IMAGES}", at=(0, FIRST_ROW), size=(WIDTH, 160),
        title="Two images",
    )
    first = example(flow, 16, 20, (COLUMNS[1], FIRST_ROW), "First image")
    last = example(flow, 49, 46, (COLUMNS[2], FIRST_ROW), "Last image")
    flow.group("Images: drawn, or your own", [first, last], color=GREEN)
    loader, positive, negative, latent = _start(flow, "moving right", "dynamicrafter_512_interp_v1", first["IMAGE"])
    images = {"image": first["IMAGE"], "end_image": last["IMAGE"]}
    _finish(flow, loader, _between(flow, loader, positive, negative, latent, images), latent, "DynamiCrafter_interpolation")
    return flow


def loop(info: ObjectInfo) -> WorkflowBuilder:
    """A loop. The last frame repeats the first, so it is left out."""
    flow = WorkflowBuilder(info)
    image = _one_image(flow, "First and last image: drawn, or your own", 20, 32)
    loader, positive, negative, latent = _start(flow, "moving right", "dynamicrafter_512_interp_v1", image)
    conditioning = _between(flow, loader, positive, negative, latent, {"image": image})
    flow.group("Image, speed and length", [conditioning, latent], color=GREEN)
    sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], SECOND_ROW, rescale=0.7)
    decode = decoded(flow, loader, sampler, SECOND_ROW)
    once = flow.node(
        "ImageFromBatch", {"image": decode["IMAGE"], "batch_index": 0, "length": 15}, at=(COLUMNS[4], SECOND_ROW + 180), size=(260, 90),
        title="Without the last frame",
    )
    saved(flow, once["IMAGE"], [decode, once], SECOND_ROW, "DynamiCrafter_loop", webp_top=FIRST_ROW)
    return flow


def keyframes(info: ObjectInfo) -> WorkflowBuilder:
    """A chain of clips through three images, joined."""
    flow = WorkflowBuilder(info)
    flow.note(
        "Each clip starts with one image and ends with the next. To use your own images, connect **Load Image** to the input *image* of "
        "the drawn ones. **VideoCrafter Keyframes** takes up to four; **Batch Images** combines more.",
        at=(0, FIRST_ROW), size=(WIDTH, 160), title="Three images",
    )
    places = ((16, 20), (49, 32), (22, 48))
    images = [example(flow, x, y, (COLUMNS[1 + index], FIRST_ROW), f"Image {index + 1}") for index, (x, y) in enumerate(places)]
    flow.group("Images: drawn, or your own", images, color=GREEN)
    loader, positive, negative = _texts(flow, "", "dynamicrafter_512_interp_v1")
    flow.group("Motion: may stay empty", [positive, negative], color=GREEN)
    conditioning = flow.node(
        "VideoCrafterKeyframes",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "vae": loader["VAE"], "keyframes": images[0]["IMAGE"], "keyframes_2": images[1]["IMAGE"],
            "keyframes_3": images[2]["IMAGE"], "width": 64, "height": 64, "length": 16, "fps": 8.0,
        },
        at=(COLUMNS[2], SECOND_ROW), size=(WIDTH, 330),
    )
    flow.group("Clips: size, length and speed", [conditioning], color=GREEN)
    sampler = sampler_node(flow, loader, conditioning, conditioning["latent"], SECOND_ROW, rescale=0.7)
    decode = decoded(flow, loader, sampler, SECOND_ROW)
    join = flow.node("VideoCrafterJoinClips", {"images": decode["IMAGE"], "length": 16}, at=(COLUMNS[4], SECOND_ROW + 180), size=(260, 200))
    saved(flow, join["images"], [decode, join], SECOND_ROW, "DynamiCrafter_keyframes", webp_top=FIRST_ROW)
    return flow


def _one_image(flow: WorkflowBuilder, title: str, x: int, y: int) -> Output:
    flow.note(OWN_IMAGES, at=(0, FIRST_ROW), size=(WIDTH, 110), title="The image")
    image = example(flow, x, y, (COLUMNS[1], FIRST_ROW), "The image")
    preview = flow.node("PreviewImage", {"images": image["IMAGE"]}, at=(COLUMNS[2], FIRST_ROW), size=(WIDTH, 240))
    flow.group(title, [image, preview], color=GREEN)
    return image["IMAGE"]


def _texts(flow: WorkflowBuilder, motion: str, published: str) -> tuple[Node, Node, Node]:
    """Loader and texts, in the first two columns."""
    loader = model(
        flow, BUNDLED, SECOND_ROW,
        "The bundled model is tiny. It makes 64x64 videos of a colored shape on a dark background.\n\nFor real videos: put the authors' "
        f"file ({published}) into `models/checkpoints` and choose it here. Set 50 steps, cfg 7.5, guidance_rescale 0.7 and the fps given "
        "in its tooltip, and say what happens. If the file has no CLIP, VAE or CLIP vision, use ComfyUI's loaders for them.",
        title="Video model",
    )
    return loader, *texts(flow, loader["CLIP"], motion, SECOND_ROW, title="Motion")


def _start(flow: WorkflowBuilder, motion: str, published: str, image: Output) -> tuple[Node, Node, Node, Node]:
    """Loader, texts and a latent of the image's shape, in the second row."""
    loader, positive, negative = _texts(flow, motion, published)
    given = {"model": loader["MODEL"], "image": image}
    size = flow.node("VideoCrafterImageSize", given, at=(COLUMNS[1], SECOND_ROW + 340), size=(WIDTH, 60))
    latent = flow.node(
        "EmptyVideoCrafterLatent", {"width": size["width"], "height": size["height"], "length": 16},
        at=(COLUMNS[2], SECOND_ROW + 320), size=(WIDTH, 130),
    )
    flow.group("Motion: how the image moves", [positive, negative, size], color=GREEN)
    return loader, positive, negative, latent


def _from_image(flow: WorkflowBuilder, loader: Node, positive: Node, negative: Node, latent: Node, image: Output) -> Node:
    return flow.node(
        "VideoCrafterImageToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "image": image, "fps": 8.0, "latent": latent["LATENT"], "vae": loader["VAE"],
        },
        at=(COLUMNS[2], SECOND_ROW), size=(WIDTH, 220),
    )


def _between(flow: WorkflowBuilder, loader: Node, positive: Node, negative: Node, latent: Node, images: dict[str, Output]) -> Node:
    return flow.node(
        "VideoCrafterInterpolation",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "vae": loader["VAE"], "latent": latent["LATENT"], "fps": 8.0, **images,
        },
        at=(COLUMNS[2], SECOND_ROW), size=(WIDTH, 220),
    )


def _finish(
    flow: WorkflowBuilder, loader: Node, conditioning: Node, latent: Node, prefix: str, top: float = SECOND_ROW, **inputs: Any
) -> None:
    """From the conditioning to saved videos; the inputs are the sampler's."""
    flow.group("Image, speed and length", [conditioning, latent], color=GREEN)
    sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], top, rescale=0.7, **inputs)
    decode = decoded(flow, loader, sampler, top)
    saved(flow, decode["IMAGE"], [decode], top, prefix, webp_top=FIRST_ROW)
