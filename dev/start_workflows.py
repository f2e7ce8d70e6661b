"""The workflows of FreeInit, of an earlier start, and of ViewCrafter."""

from __future__ import annotations

from harness.graph import ObjectInfo

from .dynamicrafter_workflows import BUNDLED, OWN_IMAGES
from .workflow_builder import Node, WorkflowBuilder
from .workflow_parts import COLUMNS, FIRST_ROW, SECOND_ROW, decoded, drawn_square, sampler_node, saved

BUNDLED_TEXT_TO_VIDEO = "videocrafter_tiny_t2v (bundled)"
STATISTICS = "videocrafter_tiny_dynamicrafter_noise (bundled)"


def freeinit(info: ObjectInfo) -> WorkflowBuilder:
    """Text to video, sampled three times."""
    flow = WorkflowBuilder(info)
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": BUNDLED_TEXT_TO_VIDEO}, at=(0, 60), size=(330, 220))
    flow.note(
        "**FreeInit** samples the video several times, each time from noise that keeps the low frequencies of the video before: "
        "steadier, and as many times as slow. Set iterations to 1 to compare.\n\nFor real videos choose VideoCrafter2 in **Load "
        "VideoCrafter Model**. Set 512x320, fps 28, 50 steps and cfg 12.",
        at=(0, 340), size=(330, 240), title="Steadier videos",
    )
    positive, negative = _texts(flow, loader, "a green triangle moving up", 60)
    latent = flow.node("EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16}, at=(COLUMNS[1], 400), size=(330, 130))
    conditioning = flow.node(
        "VideoCrafterConditioning",
        {"positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "fps": 8.0, "latent": latent["LATENT"]},
        at=(COLUMNS[2], 60), size=(320, 120),
    )
    noise = flow.node(
        "VideoCrafterInitialNoise", {"model": loader["MODEL"], "statistics": "none", "noise_seed": 0, "start_timestep": 1000},
        at=(COLUMNS[2], 240), size=(320, 170),
    )
    sigmas = flow.node("VideoCrafterScheduler", {"model": loader["MODEL"], "steps": 25}, at=(COLUMNS[2], 470), size=(320, 170))
    ddim = flow.node("VideoCrafterDDIM", {"eta": 1.0}, at=(COLUMNS[2], 700), size=(320, 80))
    repeated = flow.node("VideoCrafterFreeInit", {"sampler": ddim["SAMPLER"], "iterations": 3}, at=(COLUMNS[2], 840), size=(320, 220))
    guider = flow.node(
        "CFGGuider", {"model": loader["MODEL"], "positive": conditioning["positive"], "negative": conditioning["negative"], "cfg": 4.0},
        at=(COLUMNS[2], 1120), size=(320, 120),
    )
    sampler = flow.node(
        "SamplerCustomAdvanced",
        {
            "noise": noise["NOISE"], "guider": guider["GUIDER"], "sampler": repeated["SAMPLER"], "sigmas": sigmas["SIGMAS"],
            "latent_image": latent["LATENT"],
        },
        at=(COLUMNS[2], 1300), size=(320, 130),
    )
    flow.group("Model", [loader], color="#3f789e")
    flow.group("Prompt and size", [positive, negative, latent], color="#3f5e3f")
    flow.group("Sampling", [conditioning, noise, sigmas, ddim, repeated, guider, sampler], color="#5e3f5e")
    decode = flow.node("VideoCrafterDecode", {"samples": sampler["output"], "vae": loader["VAE"]}, at=(COLUMNS[3], 60), size=(300, 80))
    saved(flow, decode["IMAGE"], [decode], top=60, prefix="VideoCrafter_freeinit")
    return flow


def more_motion(info: ObjectInfo) -> WorkflowBuilder:
    """DynamiCrafter from an earlier timestep, with analytic initial noise."""
    flow = WorkflowBuilder(info)
    flow.note(OWN_IMAGES, at=(0, FIRST_ROW), title="The image")
    image, drawing = drawn_square(flow, 8, 22, column=1, top=FIRST_ROW, title="The image")
    preview = flow.node("PreviewImage", {"images": image}, at=(COLUMNS[3], FIRST_ROW), size=(300, 280))
    flow.group("Source image", [*drawing, preview], color="#3f5e3f")
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": BUNDLED}, at=(0, SECOND_ROW), size=(330, 220), title="Video model")
    flow.note(
        "DynamiCrafter moves more if it starts at a timestep below 1000. **start_timestep** is the same in both nodes.\n\nFor real videos "
        "choose dynamicrafter_512_v1 or dynamicrafter_1024_v1, the size of its statistics (512x320, 1024x576) and 16 frames, and set 50 "
        "steps, cfg 7.5, guidance_rescale 0.7, fps 24. Put the authors' initial_noise_512.pt or initial_noise_1024.pt into "
        "`models/videocrafter_initial_noise`, or choose *none*. DynamiCrafter-CIL needs neither: leave start_timestep at 1000.",
        at=(0, SECOND_ROW + 280), size=(330, 320), title="More motion",
    )
    positive, negative = _texts(flow, loader, "moving right", SECOND_ROW)
    latent = flow.node(
        "EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16}, at=(COLUMNS[1], SECOND_ROW + 340), size=(330, 130)
    )
    conditioning = flow.node(
        "VideoCrafterImageToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "image": image, "fps": 8.0, "latent": latent["LATENT"], "vae": loader["VAE"],
        },
        at=(COLUMNS[2], SECOND_ROW), size=(320, 210),
    )
    noise = flow.node(
        "VideoCrafterInitialNoise", {"model": loader["MODEL"], "statistics": STATISTICS, "noise_seed": 0, "start_timestep": 940},
        at=(COLUMNS[2], SECOND_ROW + 270), size=(320, 170),
    )
    sampler = flow.node(
        "VideoCrafterSampler",
        {
            "model": loader["MODEL"], "positive": conditioning["positive"], "negative": conditioning["negative"],
            "latent_image": latent["LATENT"], "seed": 0, "steps": 25, "cfg": 4.0, "guidance_rescale": 0.7, "start_timestep": 940,
            "noise": noise["NOISE"],
        },
        at=(COLUMNS[2], SECOND_ROW + 500), size=(320, 340),
    )
    flow.group("Video model", [loader], color="#3f789e")
    flow.group("Motion and size", [positive, negative, latent], color="#3f5e3f")
    flow.group("Sampling the video", [conditioning, noise, sampler], color="#5e3f5e")
    decode = decoded(flow, loader, sampler, top=SECOND_ROW)
    saved(flow, decode["IMAGE"], [decode], top=SECOND_ROW, prefix="DynamiCrafter_more_motion")
    return flow


def viewcrafter(info: ObjectInfo) -> WorkflowBuilder:
    """ViewCrafter's wiring, on a drawn shape that moves; the bundled model was not trained for it."""
    flow = WorkflowBuilder(info)
    flow.note(
        "An image for every frame. Here a drawn shape moves from the first image to the last. Connect the rough views of a scene in place "
        "of *Images of all frames*: a point cloud or a depth map, rendered along a path of the camera.",
        at=(0, FIRST_ROW), size=(330, 190), title="The views",
    )
    images, drawings = [], []
    for index, (x, y) in enumerate(((6, 22), (22, 22), (38, 22))):
        column, top = (1, 3, 1)[index], FIRST_ROW + (0, 0, 440)[index]
        image, drawing = drawn_square(flow, x, y, column=column, top=top, title=f"View {index + 1}")
        repeated = {"image": image, "amount": (8, 9, 8)[index]}
        images.append(flow.node("RepeatImageBatch", repeated, at=(COLUMNS[3], FIRST_ROW + 440 + 140 * index), size=(300, 80)))
        drawings += drawing
    two = flow.node(
        "ImageBatch", {"image1": images[0]["IMAGE"], "image2": images[1]["IMAGE"]}, at=(COLUMNS[4], FIRST_ROW + 440), size=(300, 60)
    )
    views = flow.node(
        "ImageBatch", {"image1": two["IMAGE"], "image2": images[2]["IMAGE"]}, at=(COLUMNS[4], FIRST_ROW + 560), size=(300, 60),
        title="Images of all frames",
    )
    flow.group("Images", [*drawings, *images, two, views], color="#3f5e3f")
    row = SECOND_ROW + 440
    loader = flow.node(
        "VideoCrafterLoader", {"ckpt_name": BUNDLED, "model": "viewcrafter_25_512_v1"}, at=(0, row), size=(330, 220), title="Video model"
    )
    flow.note(
        "The bundled model only shows how the nodes are connected; it was trained for other videos.\n\nFor real views: download "
        "`model.ckpt` of Drexubery/ViewCrafter_25 (1024x576) or ViewCrafter_25_512 (512x320), save it in `models/checkpoints` as "
        "viewcrafter_25_v1.ckpt or viewcrafter_25_512_v1.ckpt (`python -m vc_core fetch viewcrafter_25_v1` does both), choose it here, "
        "and set **model** to its name or auto. Set its size and 25 frames, 50 steps, cfg 7.5 and fps 10, and the prompt *Rotating view "
        "of a scene*.",
        at=(0, row + 280), size=(330, 340), title="Files that ViewCrafter needs",
    )
    positive, negative = _texts(flow, loader, "moving right", row)
    latent = flow.node("EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 25}, at=(COLUMNS[1], row + 340), size=(330, 130))
    conditioning = flow.node(
        "VideoCrafterFramesToVideo",
        {
            "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "clip_vision": loader["CLIP_VISION"],
            "vae": loader["VAE"], "latent": latent["LATENT"], "images": views["IMAGE"], "fps": 10.0,
        },
        at=(COLUMNS[2], row), size=(320, 270),
    )
    sampler = sampler_node(flow, loader, conditioning, latent["LATENT"], top=row + 330, rescale=0.7)
    flow.group("Video model", [loader], color="#3f789e")
    flow.group("Prompt and size", [positive, negative, latent], color="#3f5e3f")
    flow.group("Sampling the video", [conditioning, sampler], color="#5e3f5e")
    decode = decoded(flow, loader, sampler, top=row)
    saved(flow, decode["IMAGE"], [decode], top=row, prefix="ViewCrafter")
    return flow


def _texts(flow: WorkflowBuilder, loader: Node, prompt: str, top: float) -> tuple[Node, Node]:
    """Both prompts, in the second column."""
    positive = flow.node("CLIPTextEncode", {"clip": loader["CLIP"], "text": prompt}, at=(COLUMNS[1], top), size=(330, 130), title="Prompt")
    negative = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": ""}, at=(COLUMNS[1], top + 180), size=(330, 110), title="Negative prompt"
    )
    return positive, negative
