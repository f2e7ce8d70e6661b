"""The workflow that trains a LoRA and samples with it."""

from __future__ import annotations

from harness.graph import ObjectInfo

from .workflow_builder import Node, WorkflowBuilder
from .workflow_parts import BLUE, COLUMNS, FIRST_ROW, GREEN, OLIVE, PURPLE, WIDTH, decoded, negative_prompt, sampler_node, saved

CYAN = 0x14CDD7
SECOND_ROW, THIRD_ROW = 760, 1400


def train_lora(info: ObjectInfo) -> WorkflowBuilder:
    """Trains the bundled model on clips of a colour that it doesn't know, which are made of its own, and samples with the LoRA."""
    flow = WorkflowBuilder(info)
    loader = flow.node(
        "VideoCrafterLoader", {"ckpt_name": "videocrafter_tiny_t2v (bundled)"}, at=(COLUMNS[0], FIRST_ROW), size=(WIDTH, 220)
    )
    flow.note(
        "**The clips**\n\nFour clips of a white circle are made and painted cyan, a color that the bundled model doesn't know. For "
        "your own clips load the frames of each, all with the same number of frames, and connect them to **VAE Encode**, as a batch or as "
        "a list.\n\nWith many files, train with `vc-core train` in place of a graph: see docs/training.md.",
        at=(COLUMNS[0], FIRST_ROW + 290), size=(WIDTH, 280), title="Train on your own clips",
    )
    clips = _clips(flow, loader)
    caption = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": "a cyan circle"}, at=(COLUMNS[1], SECOND_ROW), size=(WIDTH, 110),
        title="Caption of all clips",
    )
    negative = negative_prompt(flow, loader["CLIP"], SECOND_ROW + 180)
    captions = _conditioned(flow, caption, negative, clips["latent"], top=SECOND_ROW)
    train = flow.node(
        "VideoCrafterTrainLora",
        {
            "model": loader["MODEL"], "latents": clips["encoded"]["LATENT"], "positive": captions["positive"],
            "negative": captions["negative"], "trained": "style", "steps": 60, "grad_accumulation_steps": 2, "learning_rate": 0.003,
            "rank": 16, "seed": 0, "gradient_checkpointing": False,
        },
        at=(COLUMNS[3], SECOND_ROW), size=(WIDTH, 420),
    )
    loss = flow.node(
        "LossGraphNode", {"loss": train["loss_map"], "filename_prefix": "videocrafter_loss"}, at=(COLUMNS[4], SECOND_ROW), size=(260, 220)
    )
    save = flow.node(
        "SaveLoRA", {"lora": train["lora"], "prefix": "loras/videocrafter_lora", "steps": train["steps"]},
        at=(COLUMNS[4], SECOND_ROW + 310), size=(260, 110),
    )
    flow.group("Captions: what the clips show", [negative, caption, captions], color=GREEN)
    flow.group("Training: steps, rank", [train], color=PURPLE)
    flow.group("Trained: the LoRA's file", [loss, save], color=PURPLE)
    _with_lora(flow, loader, negative, train)
    return flow


def _clips(flow: WorkflowBuilder, loader: Node) -> dict[str, Node]:
    """The clips that are trained on: clips of the model's own, in another color."""
    white = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": "a white circle"}, at=(COLUMNS[1], FIRST_ROW), size=(WIDTH, 110),
        title="White circle",
    )
    blank = negative_prompt(flow, loader["CLIP"], FIRST_ROW + 180)
    latent = flow.node(
        "EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16, "batch_size": 4}, at=(COLUMNS[1], FIRST_ROW + 360),
        size=(WIDTH, 150), title="Four clips",
    )
    both = _conditioned(flow, white, blank, latent, top=FIRST_ROW)
    sampler = sampler_node(flow, loader, both, latent["LATENT"], FIRST_ROW, seed=1)
    frames = flow.node(
        "VideoCrafterDecode", {"samples": sampler["LATENT"], "vae": loader["VAE"]}, at=(COLUMNS[4], FIRST_ROW), size=(260, 80)
    )
    cyan = flow.node(
        "EmptyImage", {"width": 64, "height": 64, "batch_size": 64, "color": CYAN}, at=(COLUMNS[4], FIRST_ROW + 170), size=(260, 150),
        title="Cyan",
    )
    painted = flow.node(
        "ImageBlend", {"image1": frames["IMAGE"], "image2": cyan["IMAGE"], "blend_factor": 1.0, "blend_mode": "multiply"},
        at=(COLUMNS[5], FIRST_ROW), size=(320, 110), title="Painted",
    )
    preview = flow.node("PreviewImage", {"images": painted["IMAGE"]}, at=(COLUMNS[6], FIRST_ROW), size=(WIDTH, 300))
    encoded = flow.node("VAEEncode", {"pixels": painted["IMAGE"], "vae": loader["VAE"]}, at=(COLUMNS[6], FIRST_ROW + 390), size=(WIDTH, 60))
    flow.group("Model: choose a file", [loader], color=BLUE)
    flow.group("Clips: four white circles", [white, latent, blank, both], color=GREEN)
    flow.group("Painted: a new color", [frames, cyan, painted], color=OLIVE)
    flow.group("Clips to train on: or your own", [encoded, preview], color=OLIVE)
    return {"latent": latent, "encoded": encoded}


def _conditioned(flow: WorkflowBuilder, positive: Node, negative: Node, latent: Node, top: float) -> Node:
    return flow.node(
        "VideoCrafterConditioning",
        {"positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "fps": 8.0, "latent": latent["LATENT"]},
        at=(COLUMNS[2], top), size=(WIDTH, 180),
    )


def _with_lora(flow: WorkflowBuilder, loader: Node, negative: Node, train: Node) -> None:
    """The third row: a video of the model with the LoRA."""
    top = THIRD_ROW
    model = flow.node(
        "LoraModelLoader", {"model": loader["MODEL"], "lora": train["lora"], "strength_model": 1.0}, at=(COLUMNS[0], top), size=(WIDTH, 130)
    )
    prompt = flow.node(
        "CLIPTextEncode", {"clip": loader["CLIP"], "text": "a cyan circle"}, at=(COLUMNS[1], top), size=(WIDTH, 110), title="Prompt"
    )
    latent = flow.node("EmptyVideoCrafterLatent", {"width": 64, "height": 64, "length": 16}, at=(COLUMNS[1], top + 190), size=(WIDTH, 130))
    both = _conditioned(flow, prompt, negative, latent, top=top)
    sampler = sampler_node(flow, model, both, latent["LATENT"], top)
    flow.group("Model with LoRA: its strength", [model], color=BLUE)
    flow.group("Prompt, size and speed", [prompt, latent, both], color=GREEN)
    decode = decoded(flow, loader, sampler, top=top)
    saved(flow, decode["IMAGE"], [decode], top, "VideoCrafter_train_lora", save_top=top)
