"""The workflows of DynamiCrafter: image to video, interpolation, loop and keyframes."""

from __future__ import annotations

from harness.graph import ObjectInfo

from .workflow_builder import Node, Output, WorkflowBuilder
from .workflow_parts import COLUMNS, FIRST_ROW, GREEN, SECOND_ROW, WIDTH, decoded, example, model, sampler_node, saved, texts

BUNDLED = "videocrafter_tiny_dynamicrafter (bundled)"
OWN_IMAGES = "To use your own images, connect **Load Image** to the input *image* of the drawn ones."


def image_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Image to video, where the first frame is the image."""
    flow = WorkflowBuilder(info)
    image = _one_image(flow, "The image: drawn, or your own", 18, 32)
    loader, positive, negative, latent = _start(flow, "moving right", "dynamicrafter_512_v1 or dynamicrafter_1024_v1", image)
    conditioning = flow.node(
        "VideoCrafterImageToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "image": image, "fps": 8.0, "latent": latent["LATENT"], "vae": loader["VAE"],
        },
        at=(COLUMNS[2], SECOND_ROW), size=(WIDTH, 220),
    )
    _finish(flow, loader, conditioning, latent, "DynamiCrafter")
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
    image = _one_image(flow, "First and last image", 20, 32)
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


def _between(flow: WorkflowBuilder, loader: Node, positive: Node, negative: Node, latent: Node, images: dict[str, Output]) -> Node:
    return flow.node(
        "VideoCrafterInterpolation",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "vae": loader["VAE"], "latent": latent["LATENT"], "fps": 8.0, **images,
        },
        at=(COLUMNS[2], SECOND_ROW), size=(WIDTH, 220),
    )


def _finish(flow: WorkflowBuilder, loader: Node, conditioning: Node, latent: Node, prefix: str) -> None:
    flow.group("Image, speed and length", [conditioning, latent], color=GREEN)
    sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], SECOND_ROW, rescale=0.7)
    decode = decoded(flow, loader, sampler, SECOND_ROW)
    saved(flow, decode["IMAGE"], [decode], SECOND_ROW, prefix, webp_top=FIRST_ROW)
