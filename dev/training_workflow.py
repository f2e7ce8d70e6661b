"""The workflow that trains a LoRA and samples with it."""

from __future__ import annotations

from harness.graph import ObjectInfo

from .workflow_builder import Node, WorkflowBuilder
from .workflow_parts import COLUMNS, FIRST_ROW, SECOND_ROW, decoded, saved

CYAN = 0x14CDD7
THIRD_ROW = SECOND_ROW + 600


def train_lora(info: ObjectInfo) -> WorkflowBuilder:
    """Trains the bundled model on clips of a colour that it doesn't know, which are made of its own, and samples with the LoRA."""
    flow = WorkflowBuilder(info)
    loader = flow.node(
        "VideoCrafterLoader", {"ckpt_name": "videocrafter_tiny_t2v (bundled)"}, at=(COLUMNS[0], FIRST_ROW), size=(330, 220)
    )
    flow.note(
        "**The clips**\n\nFour clips of a white circle are made and painted cyan, a colour that the bundled model doesn't know. For "
        "your own clips load the frames of each, all with the same number of frames, and connect them to **VAE Encode**, as a batch or as "
        "a list.\n\nWith many files, train with `vc-core train` in place of a graph: see docs/training.md.",
        at=(COLUMNS[0], FIRST_ROW + 280), size=(330, 260), title="Train on your own clips",
    )
    clips = _clips(flow, loader)
    negative = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": ""}, at=(COLUMNS[1], SECOND_ROW), size=(330, 110), title="Empty prompt"
    )
    caption = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": "a cyan circle"}, at=(COLUMNS[1], SECOND_ROW + 170), size=(330, 110),
        title="Caption of all clips",
    )
    captions = _conditioned(flow, caption, negative, clips["latent"], top=SECOND_ROW)
    train = flow.node(
        "VideoCrafterTrainLora",
        {
            "model": loader["MODEL"], "latents": clips["encoded"]["LATENT"], "positive": captions["positive"],
            "negative": captions["negative"], "trained": "style", "steps": 60, "grad_accumulation_steps": 2, "learning_rate": 0.003,
            "rank": 16, "seed": 0, "gradient_checkpointing": False,
        },
        at=(COLUMNS[3], SECOND_ROW), size=(300, 400),
    )
    loss = flow.node(
        "LossGraphNode", {"loss": train["loss_map"], "filename_prefix": "videocrafter_loss"}, at=(COLUMNS[4], SECOND_ROW), size=(320, 220)
    )
    save = flow.node(
        "SaveLoRA", {"lora": train["lora"], "prefix": "loras/videocrafter_lora", "steps": train["steps"]},
        at=(COLUMNS[4], SECOND_ROW + 290), size=(320, 110),
    )
    flow.group("Captions", [negative, caption, captions], color="#3f5e3f")
    flow.group("Training", [train, loss, save], color="#5e3f5e")
    _with_lora(flow, loader, negative, train)
    return flow


def _clips(flow: WorkflowBuilder, loader: Node) -> dict[str, Node]:
    """The clips that are trained on: clips of the model's own, in another colour."""
    white = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": "a white circle"}, at=(COLUMNS[1], FIRST_ROW), size=(330, 110),
        title="White circle",
    )
    latent = flow.node(
        "EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16, "batch_size": 4}, at=(COLUMNS[1], FIRST_ROW + 170),
        size=(330, 150), title="Four clips",
    )
    blank = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": ""}, at=(COLUMNS[1], FIRST_ROW + 380), size=(330, 110), title="Negative prompt"
    )
    both = _conditioned(flow, white, blank, latent, top=FIRST_ROW)
    sampler = flow.node(
        "VideoCrafterSampler",
        {
            "model": loader["MODEL"], "positive": both["positive"], "negative": both["negative"], "latent_image": latent["LATENT"],
            "seed": 1, "steps": 25, "cfg": 4.0,
        },
        at=(COLUMNS[2], FIRST_ROW + 180), size=(320, 290),
    )
    frames = flow.node(
        "VideoCrafterDecode", {"samples": sampler["LATENT"], "vae": loader["VAE"]}, at=(COLUMNS[3], FIRST_ROW), size=(300, 80)
    )
    cyan = flow.node(
        "EmptyImage", {"width": 64, "height": 64, "batch_size": 64, "color": CYAN}, at=(COLUMNS[3], FIRST_ROW + 140), size=(300, 150),
        title="Cyan",
    )
    painted = flow.node(
        "ImageBlend", {"image1": frames["IMAGE"], "image2": cyan["IMAGE"], "blend_factor": 1.0, "blend_mode": "multiply"},
        at=(COLUMNS[3], FIRST_ROW + 350), size=(300, 110), title="Painted",
    )
    encoded = flow.node("VAEEncode", {"pixels": painted["IMAGE"], "vae": loader["VAE"]}, at=(COLUMNS[4], FIRST_ROW), size=(320, 60))
    preview = flow.node("PreviewImage", {"images": painted["IMAGE"]}, at=(COLUMNS[4], FIRST_ROW + 120), size=(320, 340))
    flow.group("Model", [loader], color="#3f789e")
    flow.group("Sampling the clips", [white, latent, blank, both, sampler], color="#3f5e3f")
    flow.group("Clips to train on", [frames, cyan, painted, encoded, preview], color="#5e5e3f")
    return {"latent": latent, "encoded": encoded}


def _conditioned(flow: WorkflowBuilder, positive: Node, negative: Node, latent: Node, top: float) -> Node:
    return flow.node(
        "VideoCrafterConditioning",
        {"positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "fps": 8.0, "latent": latent["LATENT"]},
        at=(COLUMNS[2], top), size=(320, 120),
    )


def _with_lora(flow: WorkflowBuilder, loader: Node, negative: Node, train: Node) -> None:
    """The third row: a video of the model with the LoRA."""
    top = THIRD_ROW
    model = flow.node(
        "LoraModelLoader", {"model": loader["MODEL"], "lora": train["lora"], "strength_model": 1.0}, at=(COLUMNS[0], top), size=(330, 130)
    )
    prompt = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": "a cyan circle"}, at=(COLUMNS[1], top), size=(330, 130),
        title="Prompt",
    )
    latent = flow.node("EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16}, at=(COLUMNS[1], top + 190), size=(330, 130))
    both = _conditioned(flow, prompt, negative, latent, top=top)
    sampler = flow.node(
        "VideoCrafterSampler",
        {
            "model": model["model"], "positive": both["positive"], "negative": both["negative"], "latent_image": latent["LATENT"],
            "seed": 0, "steps": 25, "cfg": 4.0,
        },
        at=(COLUMNS[2], top + 180), size=(320, 290),
    )
    flow.group("Model with LoRA", [model], color="#3f789e")
    flow.group("Prompt and size", [prompt, latent], color="#3f5e3f")
    flow.group("Sampling with the LoRA", [both, sampler], color="#5e3f5e")
    decode = decoded(flow, loader, sampler, top=top)
    saved(flow, decode["IMAGE"], [decode], top=top, prefix="VideoCrafter_train_lora")
