"""Images of what the bundled models make, for the docs: `make gallery`, or `python -m dev.gallery [MODEL ...]`.

Of every bundled model there are an animated image of several clips and contact sheets: one clip a row, from left to right in time, with
one thing changed from row to row. The help pages' images are made beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import vc_core
from harness.comfyui import REPOSITORY
from vc_core.adapters.control import Control, ControlAdapter
from vc_core.control.cameras import camera_path
from vc_core.family.bundled import bundled_models
from vc_core.pipeline import VideoModel

FOLDER = REPOSITORY / "docs" / "gallery"
HELP = REPOSITORY / "web" / "docs"
HELP_MODEL = "videocrafter_tiny_t2v"  # whose images the help pages show
STEPS, GUIDANCE, FPS = 25, 4.0, 8.0
SHOWN = 8  # frames of a clip on a sheet
SIDE, GAP, TEXT = 96, 4, 18  # pixels: of a frame as shown, between frames, and of a line of text
PLAYED = 8  # frames a second of the animated images
GROUND = "#121218"
PAINT = {"red": "#e42a2a", "green": "#28ba42", "blue": "#2c54ec", "yellow": "#f0d630", "white": "#f0f0f0", "purple": "#a630c4"}
SENTENCES = (
    "a red circle moving right", "a green square moving up", "a blue triangle moving left", "a yellow circle moving down",
    "a purple square moving right", "a white triangle moving up", "a blue circle moving down", "a yellow square moving left",
)


@dataclass(frozen=True)
class Shot:
    """A clip to be made: what it is called on the sheet, and what differs from the usual settings."""

    label: str
    prompt: str
    settings: dict[str, Any] = field(default_factory=dict)
    image: Tensor | None = None  # [3, H, W] in [-1, 1], for a model of images
    depth: Tensor | None = None  # [1, 1, T, H, W], for a model of depth
    camera: str = ""  # moves, for a model with a camera


def text_sheets(distilled: bool = False) -> dict[str, list[Shot]]:
    """What a text-to-video model shows; a distilled one in place of the scales of guidance with several numbers of steps."""
    prompt = SENTENCES[0]
    if distilled:
        last = {"steps": [Shot(f"{steps} steps", prompt, {"steps": steps}) for steps in (1, 2, 4, 8)]}
    else:
        last = {"guidance": [Shot(f"guidance {scale:g}", prompt, {"guidance_scale": scale}) for scale in (1.0, 2.0, 4.0, 8.0)]}
    return {
        "prompts": [Shot(sentence, sentence) for sentence in SENTENCES],
        "seeds": [Shot(f"seed {seed}", "a green triangle moving up", {"seed": seed}) for seed in range(4)],
        "fps": [Shot(f"fps {fps}", prompt, {"fps": float(fps)}) for fps in (8, 16, 24)],
        **last,
    }


def image_sheets(joins: bool) -> dict[str, list[Shot]]:
    """What an image-to-video model shows; one that joins images also between two, and round."""
    sheets = {
        "images": [
            Shot(sentence, sentence.split(" ", 3)[3], image=drawn(*sentence.split()[1:3])) for sentence in SENTENCES
        ],
        "seeds": [Shot(f"seed {seed}", "moving right", {"seed": seed}, drawn("green", "square")) for seed in range(4)],
        "fps": [Shot(f"fps {fps}", "moving right", {"fps": float(fps)}, drawn("red", "circle")) for fps in (8, 16, 24)],
        "guidance": [
            Shot(f"guidance {scale:g}", "moving right", {"guidance_scale": scale}, drawn("red", "circle")) for scale in (1.0, 2.0, 4.0, 8.0)
        ],
    }
    if joins:
        places = (((18, 18), (46, 46)), ((46, 18), (18, 46)))
        sheets["between"] = [
            Shot(f"from {first} to {last}", "", {"end_image": drawn("blue", "square", last)}, drawn("blue", "square", first))
            for first, last in places
        ]
        sheets["loops"] = [Shot("round and back", "moving right", {"loop": True}, drawn("yellow", "triangle", (20, 32)))]
    return sheets


def depth_sheets() -> dict[str, list[Shot]]:
    """What a depth-to-video model shows: each prompt's shape, where a silhouette moves on a slope."""
    shots = []
    for number, sentence in enumerate(SENTENCES):
        shape = sentence.split()[2]
        places = [(16 + 2 * time, 46 - (number + 1) * time // 4) for time in range(16)]
        maps = torch.stack([drawn("white", shape, place).amax(0) for place in places])
        shots.append(Shot(" ".join(sentence.split()[:3]), " ".join(sentence.split()[:3]), depth=maps[None, None]))
    return {"silhouettes": shots}


def camera_sheets() -> dict[str, list[Shot]]:
    """What a model with a camera shows: each move, of whatever the prompt says."""
    moves = ("pan left", "pan right", "pan up", "pan down", "zoom in", "zoom out", "zoom in, pan right", "still")
    prompts = (" ".join(sentence.split()[:3]) for sentence in SENTENCES)
    return {"cameras": [Shot(f"{move}: {prompt}", prompt, camera=move) for move, prompt in zip(moves, prompts, strict=True)]}


def drawn(colour: str, shape: str, at: tuple[int, int] = (32, 32), radius: int = 9, size: int = 64) -> Tensor:
    """An image of the bundled models' world, ``[3, size, size]`` in [-1, 1], with its edges smoothed."""
    fine = 4
    image = Image.new("RGB", (size * fine, size * fine), GROUND)
    x, y = at
    left, top, right, bottom = (fine * (place) for place in (x - radius, y - radius, x + radius, y + radius))
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((left, top, right, bottom), fill=PAINT[colour])
    elif shape == "square":
        draw.rectangle((left, top, right, bottom), fill=PAINT[colour])
    else:
        draw.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=PAINT[colour])
    pixels = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels / 127.5 - 1).float().permute(2, 0, 1)


def shoot(model: VideoModel, shots: Sequence[Shot]) -> list[np.ndarray]:
    """Make the clips, each ``[T, H, W, 3]`` of 8 bits."""
    clips = []
    usual: dict[str, Any] = {"fps": FPS, "seed": 0}
    if not model.config.unet.guidance_embedding:
        usual |= {"steps": STEPS, "guidance_scale": GUIDANCE}
    for shot in shots:
        settings = usual | shot.settings
        if shot.camera:
            control = Control(poses=camera_path(shot.camera, model.config.sampling.frames).poses[None])
            settings["hooks"] = [each.controlled(control) for each in model.adapters.values() if isinstance(each, ControlAdapter)]
        if shot.depth is not None:
            video = model.depth_to_video(shot.depth, shot.prompt, **settings)
        elif shot.image is None:
            video = model.text_to_video(shot.prompt, **settings)
        else:
            video = model.image_to_video(shot.image, shot.prompt, **settings)
        clips.append(rearrange(((video[0] + 1) * 127.5).round().clamp(0, 255).byte().cpu(), "c t h w -> t h w c").numpy())
    return clips


def sheet(shots: Sequence[Shot], clips: Sequence[np.ndarray]) -> Image.Image:
    """A contact sheet: a line of text and a row of frames for each clip."""
    row = TEXT + SIDE + GAP
    image = Image.new("RGB", (SHOWN * (SIDE + GAP) + GAP, len(clips) * row + GAP), "#1e1e26")
    for index, (shot, clip) in enumerate(zip(shots, clips, strict=True)):
        _write(image, shot.label, (GAP, GAP + index * row))
        for place in range(SHOWN):
            frame = _shown(clip[round(place * (len(clip) - 1) / (SHOWN - 1))])
            image.paste(frame, (GAP + place * (SIDE + GAP), GAP + index * row + TEXT))
    return image


def moving(clips: Sequence[np.ndarray], columns: int = 4) -> list[Image.Image]:
    """The frames of an animated image in which all clips run side by side."""
    rows = -(-len(clips) // columns)
    frames = []
    for time in range(len(clips[0])):
        image = Image.new("RGB", (columns * (SIDE + GAP) + GAP, rows * (SIDE + GAP) + GAP), "#1e1e26")
        for index, clip in enumerate(clips):
            image.paste(_shown(clip[time]), (GAP + index % columns * (SIDE + GAP), GAP + index // columns * (SIDE + GAP)))
        frames.append(image)
    return frames


def save(frames: Image.Image | Sequence[Image.Image], path: Path) -> None:
    """Write an image, or several as an animated one, as WebP."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(frames, Image.Image):
        frames.save(path, quality=80, method=6)
    else:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 // PLAYED, loop=0, quality=70, method=6)
    print(f"{path.relative_to(REPOSITORY)} ({path.stat().st_size / 1000:.0f} kB)", flush=True)


def render(name: str) -> None:
    """All images of one bundled model."""
    model = vc_core.load(name)
    with_image = model.config.image_encoder is not None
    if model.config.unet.takes_depth:
        sheets = depth_sheets()
    elif any(isinstance(adapter, ControlAdapter) for adapter in model.adapters.values()):
        sheets = camera_sheets()
    else:
        sheets = image_sheets("ends" in model.config.keyframes) if with_image else text_sheets(model.config.unet.guidance_embedding)
    for title, shots in sheets.items():
        clips = shoot(model, shots)
        save(sheet(shots, clips), FOLDER / f"{name}_{title}.webp")
        if len(clips) == len(SENTENCES):
            save(moving(clips), FOLDER / f"{name}.webp")
        if name == HELP_MODEL and title == "prompts":
            save(sheet(shots[:1], clips[:1]), HELP / "text_to_video.webp")


def page() -> str:
    """The gallery's page, of the images that there are."""
    parts = ["# What the bundled models make\n\n`make gallery` renders these images. They are not selected: each is the first result.\n"]
    for name in bundled_models():
        images = sorted(FOLDER.glob(f"{name}*.webp"), key=lambda path: (len(path.stem) > len(name), path.stem))
        if images:
            parts.append(f"## {name}\n")
        for path in images:
            title = path.stem.removeprefix(name).strip("_")
            parts.append(f"### {title.capitalize()}\n" if title else "")
            parts.append(f"![{title or 'clips'} of {name}]({path.name})\n")
    return "\n".join(part for part in parts if part)


def main() -> None:
    names = sys.argv[1:] or list(bundled_models())
    unknown = set(names) - set(bundled_models())
    if unknown:
        sys.exit(f"There is no bundled model {', '.join(sorted(unknown))}. There are {', '.join(bundled_models())}.")
    for name in names:
        render(name)
    (FOLDER / "README.md").write_text(page(), encoding="utf-8")


def _shown(frame: np.ndarray) -> Image.Image:
    return Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _write(image: Image.Image, text: str, at: tuple[int, int]) -> None:
    ImageDraw.Draw(image).text(at, text, fill="#d8d8e0", font=ImageFont.load_default(13))


if __name__ == "__main__":
    main()
