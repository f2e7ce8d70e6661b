"""The workflow that edits a clip."""

from __future__ import annotations

from harness.graph import BYPASSED, ObjectInfo

from .workflow_builder import Node, WorkflowBuilder
from .workflow_parts import COLUMNS, FIRST_ROW, GREEN, OLIVE, PURPLE, TEAL, WIDTH, decoded, model, sampler_node, texts

SECOND_ROW = 700
#: Chosen by measurement with the bundled model, see docs/composing.md.
DENOISE = 0.85


def edit_video(info: ObjectInfo) -> WorkflowBuilder:
    """A clip with another prompt: structure, length, frame rate and sound are kept. It is drawn, so that it runs without a file."""
    flow = WorkflowBuilder(info)
    fitted = _clip(flow)
    top = SECOND_ROW
    loader = model(
        flow, "videocrafter_tiny_t2v (bundled)", top,
        "The bundled model only knows 64x64 clips of one colored shape on a dark background.\n\nFor real clips choose VideoCrafter2 here. "
        "Set 512x320 in **VideoCrafter Fit Video**, fps 28, 50 steps and cfg 12, and a denoise of 0.5 to 0.8. Then write any prompt.",
    )
    windows = flow.node(
        "ContextWindowsManual",
        {
            "model": loader["MODEL"], "context_length": 16, "context_overlap": 4, "context_schedule": "standard_static",
            "context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "dim": 0,
        },
        at=(COLUMNS[1], top + 410), size=(WIDTH, 300),
    )
    positive, negative = texts(flow, loader["CLIP"], "a green square moving right", top)
    flow.group("Prompt: what the edited clip shows", [positive, negative], color=GREEN)
    flow.group("Windows: for clips of any length", [windows], color=GREEN)
    encoded = flow.node("VAEEncode", {"pixels": fitted["images"], "vae": loader["VAE"]}, at=(COLUMNS[2], top + 250), size=(WIDTH, 60))
    conditioning = flow.node(
        "VideoCrafterConditioning",
        {"positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "fps": 8.0, "latent": encoded["LATENT"]},
        at=(COLUMNS[2], top), size=(WIDTH, 180),
    )
    flow.group("Speed, and the clip as latent", [conditioning, encoded], color=GREEN)
    noise = flow.node(
        "VideoCrafterWarpedNoise", {"images": fitted["images"], "noise_seed": 0, "strength": 0.5},
        at=(COLUMNS[2], top + 480), size=(WIDTH, 170),
    )
    noise.data["mode"] = BYPASSED  # the bundled model keeps the clip better without it
    flow.group("Bypassed: noise that moves", [noise], color=PURPLE)
    sampler = sampler_node(flow, windows, conditioning, encoded["LATENT"], top, eta=0.0, denoise=DENOISE, noise=noise["NOISE"])
    flow.note(
        "**denoise** decides how much of the clip is kept: lower is closer to it.\n\n**VideoCrafter Warped Noise** is bypassed. Select it "
        "and press Ctrl+B, and the noise moves with the clip: more of its motion at a high denoise, but less of its shapes.",
        at=(COLUMNS[3], top + 410), size=(WIDTH, 190), title="How much is kept",
    )
    _saved(flow, fitted, decoded(flow, loader, sampler, top), top)
    return flow


def _clip(flow: WorkflowBuilder) -> Node:
    """The clip, drawn or the user's own, fitted to the model."""
    flow.note(
        "Choose a file in *Your clip*. Connect its VIDEO output to *video* of **VideoCrafter Fit Video**. With length 0 all of its frames "
        "are taken, with fps 0 at its own rate; its sound goes to the saved file.\n\nThe bundled model only knows clips of one shape "
        "on a dark background. For other clips choose a published model below.",
        at=(COLUMNS[0], FIRST_ROW), size=(WIDTH, 260), title="Use your own clip",
    )
    # No file is chosen: the interface complains about a missing file even where the node is not used.
    own = flow.node("LoadVideo", {"file": ""}, at=(COLUMNS[1], FIRST_ROW), size=(WIDTH, 300), title="Your clip")
    drawn = flow.node(
        "VideoCrafterExampleImage",
        {"shape": "square", "color": "red", "x": 12, "y": 32, "length": 32, "end_x": 52, "end_y": 32},
        at=(COLUMNS[2], FIRST_ROW), size=(WIDTH, 270), title="Frames of the drawn clip",
    )
    video = flow.node("CreateVideo", {"images": drawn["IMAGE"], "fps": 8.0}, at=(COLUMNS[2], FIRST_ROW + 370), size=(WIDTH, 90))
    fitted = flow.node(
        "VideoCrafterFitVideo", {"width": 64, "height": 64, "length": 0, "fps": 0.0, "video": video["VIDEO"]},
        at=(COLUMNS[3], FIRST_ROW), size=(WIDTH, 370),
    )
    flow.group("Your clip: choose, then connect", [own], color=TEAL)
    flow.group("Drawn clip: a red square", [drawn, video], color=GREEN)
    flow.group("Clip: its size for the model", [fitted], color=GREEN)
    return fitted


def _saved(flow: WorkflowBuilder, fitted: Node, decode: Node, top: float) -> None:
    """The edited clip with the sound and the frame rate of the clip."""
    webp = flow.node(
        "SaveAnimatedWEBP",
        {"images": decode["IMAGE"], "filename_prefix": "VideoCrafter_edit_video", "fps": fitted["fps"], "lossless": True},
        at=(COLUMNS[4], top + 210), size=(260, 320),
    )
    save = flow.node(
        "VideoCrafterSaveVideo",
        {"images": decode["IMAGE"], "filename_prefix": "video/VideoCrafter_edit_video", "fps": fitted["fps"], "audio": fitted["audio"]},
        at=(COLUMNS[5], FIRST_ROW), size=(320, 540),
    )
    flow.group("Frames: nothing to set", [decode], color=OLIVE)
    flow.group("Saved: an animated image", [webp], color=TEAL)
    flow.group("Saved: a video file with its sound", [save], color=TEAL)
