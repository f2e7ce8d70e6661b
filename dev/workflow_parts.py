"""What several workflows have: a drawn image, sampling, and saving, each in its place."""

from __future__ import annotations

from .workflow_builder import Node, Output, WorkflowBuilder

GROUND, RED = 0x121218, 0xE42A2A  # as the bundled models know them
FIRST_ROW, SECOND_ROW = 60, 660  # images, and the video that is made of them
COLUMNS = (0, 380, 760, 1130, 1470)


def drawn_square(flow: WorkflowBuilder, x: int, y: int, column: int, top: float, title: str) -> tuple[Output, list[Node]]:
    """A red square drawn by ComfyUI's own nodes, its left upper corner at (x, y) of 64x64; in two columns from `column` on."""
    values = {"width": 64, "height": 64, "color": GROUND}
    ground = flow.node("EmptyImage", values, at=(COLUMNS[column], top), size=(320, 150), title="Background")
    square = flow.node(
        "EmptyImage", {"width": 19, "height": 19, "color": RED}, at=(COLUMNS[column], top + 200), size=(320, 150), title="Square"
    )
    made = flow.node(
        "ImageCompositeMasked",
        {"destination": ground["IMAGE"], "source": square["IMAGE"], "x": x, "y": y},
        at=(COLUMNS[column + 1], top), size=(300, 170), title=title,
    )
    return made["IMAGE"], [ground, square, made]


def sampler_node(flow: WorkflowBuilder, loader: Node, conditioning: Node, latent: Output, top: float, rescale: float = 0.0) -> Node:
    """The authors' sampler with the bundled models' settings, in the third column below the conditioning."""
    return flow.node(
        "VideoCrafterSampler",
        {
            "model": loader["MODEL"], "positive": conditioning["positive"], "negative": conditioning["negative"],
            "latent_image": latent, "seed": 0, "steps": 25, "cfg": 4.0, "guidance_rescale": rescale,
        },
        at=(COLUMNS[2], top), size=(320, 320),
    )


def decoded(flow: WorkflowBuilder, loader: Node, sampler: Node, top: float) -> Node:
    """The frames, in the fourth column."""
    return flow.node("VideoCrafterDecode", {"samples": sampler["LATENT"], "vae": loader["VAE"]}, at=(COLUMNS[3], top), size=(300, 80))


def saved(flow: WorkflowBuilder, frames: Output, shown: list[Node], top: float, prefix: str) -> None:
    """The fifth column, and a note in the fourth below what is `shown` there already: a video file and an animated image."""
    below = max(node.data["pos"][1] + node.data["size"][1] for node in shown) + 60
    save = flow.node(
        "VideoCrafterSaveVideo", {"images": frames, "filename_prefix": f"video/{prefix}", "fps": 8.0}, at=(COLUMNS[4], top), size=(320, 420)
    )
    webp = flow.node(
        "SaveAnimatedWEBP",
        {"images": frames, "filename_prefix": prefix, "fps": 8.0, "lossless": True},
        at=(COLUMNS[4], top + 480), size=(320, 340),
    )
    flow.note(
        "fps in the conditioning sets the speed of the motion: higher means less motion from frame to frame. fps in the saving nodes "
        "sets the playback speed.",
        at=(COLUMNS[3], below), size=(300, 140), title="Two kinds of fps",
    )
    flow.group("Frames", shown, color="#5e5e3f")
    flow.group("Saved", [save, webp], color="#3f5e5e")
