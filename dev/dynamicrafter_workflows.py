"""The workflows of DynamiCrafter: image to video, interpolation, loop and keyframes."""

from __future__ import annotations

from harness.graph import ObjectInfo

from .workflow_builder import Node, Output, WorkflowBuilder
from .workflow_parts import COLUMNS, FIRST_ROW, SECOND_ROW, decoded, drawn_square, sampler_node, saved

BUNDLED = "videocrafter_tiny_dynamicrafter (bundled)"
OWN_IMAGES = "To use your own images, connect **Load Image** in place of the drawn ones."


def image_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """Image to video, where the first frame is the image."""
    flow = WorkflowBuilder(info)
    image = _one_image(flow, "Source image", 8, 22)
    loader, positive, negative, latent = _start(flow, "moving right", "dynamicrafter_512_v1 or dynamicrafter_1024_v1", image)
    conditioning = flow.node(
        "VideoCrafterImageToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "image": image, "fps": 8.0, "latent": latent["LATENT"], "vae": loader["VAE"],
        },
        at=(COLUMNS[2], SECOND_ROW), size=(320, 210),
    )
    _finish(flow, loader, conditioning, latent["LATENT"], "DynamiCrafter")
    return flow


def interpolation(info: ObjectInfo) -> WorkflowBuilder:
    """A video between two images."""
    flow = WorkflowBuilder(info)
    flow.note(f"The video starts with the first image and ends with the last image. {OWN_IMAGES}", at=(0, FIRST_ROW), title="Two images")
    first, drawing = drawn_square(flow, 6, 10, column=1, top=FIRST_ROW, title="First image")
    last, more = drawn_square(flow, 39, 36, column=3, top=FIRST_ROW, title="Last image")
    flow.group("First", drawing, color="#3f5e3f")
    flow.group("Last", more, color="#3f5e3f")
    loader, positive, negative, latent = _start(flow, "moving right", "dynamicrafter_512_interp_v1", first)
    conditioning = _between(flow, loader, positive, negative, latent, {"image": first, "end_image": last})
    _finish(flow, loader, conditioning, latent["LATENT"], "DynamiCrafter_interpolation")
    return flow


def loop(info: ObjectInfo) -> WorkflowBuilder:
    """A loop. The last frame repeats the first, so it is left out."""
    flow = WorkflowBuilder(info)
    image = _one_image(flow, "First and last image", 10, 22)
    loader, positive, negative, latent = _start(flow, "moving right", "dynamicrafter_512_interp_v1", image)
    conditioning = _between(flow, loader, positive, negative, latent, {"image": image})
    sampler = _sampling(flow, loader, conditioning, latent["LATENT"])
    decode = decoded(flow, loader, sampler, top=SECOND_ROW)
    once = flow.node(
        "ImageFromBatch", {"image": decode["IMAGE"], "batch_index": 0, "length": 15}, at=(COLUMNS[3], SECOND_ROW + 140), size=(300, 90),
        title="Without the last frame",
    )
    saved(flow, once["IMAGE"], [decode, once], top=SECOND_ROW, prefix="DynamiCrafter_loop")
    return flow


def keyframes(info: ObjectInfo) -> WorkflowBuilder:
    """A chain of clips through three images, joined."""
    flow = WorkflowBuilder(info)
    flow.note(
        f"Each clip starts with one image and ends with the next. Use **Batch Images** to add more images. {OWN_IMAGES}",
        at=(0, FIRST_ROW), title="Three images",
    )
    places = ((6, 10), (39, 22), (12, 38))
    images, drawings = [], []
    for index, (x, y) in enumerate(places):
        column, top = (1, 3, 1)[index], FIRST_ROW + (0, 0, 440)[index]
        image, drawing = drawn_square(flow, x, y, column=column, top=top, title=f"Image {index + 1}")
        images.append(image)
        drawings += drawing
    two = flow.node("ImageBatch", {"image1": images[0], "image2": images[1]}, at=(COLUMNS[3], FIRST_ROW + 440), size=(300, 60))
    three = flow.node("ImageBatch", {"image1": two["IMAGE"], "image2": images[2]}, at=(COLUMNS[4], FIRST_ROW + 440), size=(300, 60))
    flow.group("Images", [*drawings, two, three], color="#3f5e3f")
    top = SECOND_ROW + 440
    loader, positive, negative = _texts(flow, "", "dynamicrafter_512_interp_v1", top)
    conditioning = flow.node(
        "VideoCrafterKeyframes",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "vae": loader["VAE"], "keyframes": three["IMAGE"], "width": 64, "height": 64, "length": 16, "fps": 8.0,
        },
        at=(COLUMNS[2], top), size=(320, 270),
    )
    sampler = sampler_node(flow, loader, conditioning, conditioning["latent"], top=top + 330, rescale=0.7)
    flow.group("Sampling the clips", [conditioning, sampler], color="#5e3f5e")
    decode = decoded(flow, loader, sampler, top=top)
    join = flow.node("VideoCrafterJoinClips", {"images": decode["IMAGE"], "length": 16}, at=(COLUMNS[3], top + 140), size=(300, 200))
    saved(flow, join["images"], [decode, join], top=top, prefix="DynamiCrafter_keyframes")
    return flow


def _one_image(flow: WorkflowBuilder, title: str, x: int, y: int) -> Output:
    flow.note(OWN_IMAGES, at=(0, FIRST_ROW), title="The image")
    image, drawing = drawn_square(flow, x, y, column=1, top=FIRST_ROW, title="The image")
    preview = flow.node("PreviewImage", {"images": image}, at=(COLUMNS[3], FIRST_ROW), size=(300, 280))
    flow.group(title, [*drawing, preview], color="#3f5e3f")
    return image


def _texts(flow: WorkflowBuilder, motion: str, published: str, top: float) -> tuple[Node, Node, Node]:
    """Loader and texts, in the first two columns."""
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": BUNDLED}, at=(0, top), size=(330, 220), title="Video model")
    flow.note(
        "The bundled model is tiny. It makes 64x64 videos of a coloured shape on a dark background.\n\nFor real videos: put the "
        f"authors' file ({published}) into `models/checkpoints` and choose it here. Set 50 steps, cfg 7.5, guidance_rescale 0.7 and "
        "the fps given in its tooltip, and describe what happens. If the file has no CLIP, VAE or CLIP vision, use ComfyUI's "
        "loaders for them.",
        at=(0, top + 280), size=(330, 260), title="Change the video model",
    )
    positive = flow.node("CLIPTextEncode", {"clip": loader["CLIP"], "text": motion}, at=(COLUMNS[1], top), size=(330, 130), title="Motion")
    negative = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": ""}, at=(COLUMNS[1], top + 180), size=(330, 110), title="Negative prompt"
    )
    flow.group("Video model", [loader], color="#3f789e")
    return loader, positive, negative


def _start(flow: WorkflowBuilder, motion: str, published: str, image: Output) -> tuple[Node, Node, Node, Node]:
    """Loader, texts and a latent of the image's shape, in the second row."""
    loader, positive, negative = _texts(flow, motion, published, SECOND_ROW)
    given = {"model": loader["MODEL"], "image": image}
    size = flow.node("VideoCrafterImageSize", given, at=(COLUMNS[1], SECOND_ROW + 340), size=(330, 80))
    latent = flow.node(
        "EmptyVideoCrafterLatent", {"width": size["width"], "height": size["height"], "length": 16},
        at=(COLUMNS[1], SECOND_ROW + 470), size=(330, 130),
    )
    flow.group("Motion and size", [positive, negative, size, latent], color="#3f5e3f")
    return loader, positive, negative, latent


def _between(flow: WorkflowBuilder, loader: Node, positive: Node, negative: Node, latent: Node, images: dict[str, Output]) -> Node:
    return flow.node(
        "VideoCrafterInterpolation",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "vae": loader["VAE"], "latent": latent["LATENT"], "fps": 8.0, **images,
        },
        at=(COLUMNS[2], SECOND_ROW), size=(320, 210),
    )


def _sampling(flow: WorkflowBuilder, loader: Node, conditioning: Node, latent: Output) -> Node:
    sampler = sampler_node(flow, loader, conditioning, latent, top=SECOND_ROW + 270, rescale=0.7)
    flow.group("Sampling the video", [conditioning, sampler], color="#5e3f5e")
    return sampler


def _finish(flow: WorkflowBuilder, loader: Node, conditioning: Node, latent: Output, prefix: str) -> None:
    decode = decoded(flow, loader, _sampling(flow, loader, conditioning, latent), top=SECOND_ROW)
    saved(flow, decode["IMAGE"], [decode], top=SECOND_ROW, prefix=prefix)
