"""Writes the workflows of ``workflows/``: `python -m dev.workflows`.

They are described here rather than drawn, so that a changed node changes them all in the same way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from .comfyui import REPOSITORY
from .graph import ObjectInfo
from .server import running
from .workflow_builder import WorkflowBuilder

FOLDER = REPOSITORY / "workflows"
BUNDLED_TEXT_TO_VIDEO = "videocrafter_tiny_t2v (bundled)"


def text_to_video(info: ObjectInfo) -> WorkflowBuilder:
    """A sentence to a clip, with the bundled model, so that it runs as soon as it is opened."""
    flow = WorkflowBuilder(info)
    loader = flow.node("VideoCrafterLoader", {"ckpt_name": BUNDLED_TEXT_TO_VIDEO}, at=(0, 60), size=(330, 140))
    flow.note(
        "**Model**\n\nThe bundled model is tiny: 64x64, and it knows *a red|green|blue|yellow|white|purple "
        "circle|square|triangle moving left|right|up|down*.\n\nFor real clips put VideoCrafter2's `model.ckpt` into "
        "`models/checkpoints`, choose it here, set 512x320 and 16 frames, fps 28, 50 steps, cfg 12 and write any prompt.",
        at=(0, 260), size=(330, 240), title="Change the model",
    )  # fmt: skip
    positive = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": "a red circle moving right"}, at=(380, 60), size=(330, 130), title="Prompt"
    )
    negative = flow.node("CLIPTextEncode", {"clip": loader["CLIP"], "text": ""}, at=(380, 240), size=(330, 110), title="Negative prompt")
    latent = flow.node("EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16}, at=(380, 400), size=(330, 130))
    conditioning = flow.node(
        "VideoCrafterConditioning",
        {"positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "fps": 8.0, "latent": latent["LATENT"]},
        at=(760, 60), size=(320, 120),
    )  # fmt: skip
    sampler = flow.node(
        "VideoCrafterSampler",
        {
            "model": loader["MODEL"], "positive": conditioning["positive"], "negative": conditioning["negative"],
            "latent_image": latent["LATENT"], "seed": 0, "steps": 25, "cfg": 4.0,
        },
        at=(760, 240), size=(320, 290),
    )  # fmt: skip
    decode = flow.node("VideoCrafterDecode", {"samples": sampler["LATENT"], "vae": loader["VAE"]}, at=(1130, 60), size=(300, 80))
    video = flow.node("CreateVideo", {"images": decode["IMAGE"], "fps": 8.0}, at=(1130, 200), size=(300, 80))
    save = flow.node("SaveVideo", {"video": video["VIDEO"], "filename_prefix": "video/VideoCrafter"}, at=(1470, 60), size=(320, 340))
    webp = flow.node(
        "SaveAnimatedWEBP",
        {"images": decode["IMAGE"], "filename_prefix": "VideoCrafter", "fps": 8.0, "lossless": True},
        at=(1470, 460), size=(320, 340),
    )  # fmt: skip
    flow.note(
        "fps tells the model how far things move from frame to frame: high is slow. The clip's own speed is set in Create Video.",
        at=(1130, 340), size=(300, 120), title="Two kinds of fps",
    )  # fmt: skip
    flow.group("Model", [loader], color="#3f789e")
    flow.group("What is seen", [positive, negative, latent], color="#3f5e3f")
    flow.group("Sampling", [conditioning, sampler], color="#5e3f5e")
    flow.group("Frames", [decode, video], color="#5e5e3f")
    flow.group("Saved", [save, webp], color="#3f5e5e")
    return flow


WORKFLOWS: dict[str, Callable[[ObjectInfo], WorkflowBuilder]] = {"text_to_video": text_to_video}


def main() -> None:
    """Write every workflow, with the nodes as a running ComfyUI describes them."""
    with tempfile.TemporaryDirectory() as base, running(Path(base)) as server:
        info = server.object_info()
        for name, describe in WORKFLOWS.items():
            describe(info).save(FOLDER / f"{name}.json")
            print(f"workflows/{name}.json")


if __name__ == "__main__":
    main()
