"""Image to video in a real ComfyUI gives what the core and the reference give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vc_core
from harness import goldens
from harness.bench import same_pixels
from harness.graphs import TextGraph, assert_fails, out
from harness.server import Server
from tests.comfyui.recorded import assert_recorded, recorded_sampling, runs, settings_of
from vc_core.config import SamplingConfig
from vc_core.evaluation.image_fidelity import measure
from vc_core.sampling import suggested_size

NAME = "i2v_512_v1"
PROMPT = goldens.PROMPTS[0]


@pytest.fixture(scope="module")
def checkpoint(checkpoints: Path) -> Path:
    """The recorded image-to-video model in the server's folder."""
    return checkpoints / f"{NAME}.safetensors"


def image_file(comfyui: Server, name: str, pixels: np.ndarray) -> str:
    """An image in the server's input folder."""
    Image.fromarray(pixels).save(comfyui.base / "input" / name)
    return name


class ImageGraph(TextGraph):
    """A text graph whose conditioning has the image that a node outputs."""

    def __init__(self, node: str, inputs: dict[str, object], checkpoint: str = NAME, strength: float = 1.0, **settings: object) -> None:
        super().__init__(f"{checkpoint}.safetensors", **({"prompt": PROMPT} | settings))
        self.image = image = out(self.add(node, **inputs))
        both = self.add(
            "VideoCrafterImageToVideo", positive=self.positive, negative=self.negative, clip_vision=self.clip_vision, image=image,
            fps=settings.get("fps", 8.0), strength=strength, latent=self.latent,
        )
        self.positive, self.negative = out(both, 0), out(both, 1)


def exact(comfyui: Server, images: torch.Tensor, file: str, **settings: object) -> ImageGraph:
    """A graph whose images ``[B, 3, H, W]`` in [-1, 1] are not rounded to eight bits."""
    save_file({"image": ((images + 1) / 2).movedim(1, -1).contiguous()}, comfyui.base / "input" / file)
    return ImageGraph("TestImage", {"file": file}, **settings)


@pytest.mark.parametrize("name, run", runs(NAME))
def test_the_reference_s_runs(comfyui, checkpoint, name, run):
    """From their recorded image and noise."""
    settings, (prompt, *_, negative) = settings_of(name, run), goldens.prompts(name)
    photo = goldens.read(name, "encoders")["photo"][:1]
    graph = exact(comfyui, photo, "photo.st", fps=settings.fps, prompt=prompt, negative=negative)
    sampled = graph.sample_custom(cfg=settings.guidance_scale, **recorded_sampling(comfyui, graph, name, run))
    assert_recorded(name, run, graph.run(comfyui, latent=sampled, image=graph.decode(sampled)))


def test_several_images_make_several_videos_as_in_the_core(comfyui, checkpoint):
    images = goldens.read(NAME, "encoders")["photo"]
    graph = exact(comfyui, images, "photos.st", frames=4, videos=2)
    saved = graph.run(comfyui, image=graph.decode(graph.sample(seed=4, steps=3)))
    video = vc_core.load(checkpoint).image_to_video(images, PROMPT, frames=4, height=64, width=64, steps=3, fps=8, seed=4)
    same_pixels(saved["image"], video)


def test_strength(comfyui, checkpoint):
    """At 0 the image has no effect; at 1 the result is as without the input."""
    sampled = {}
    for name, strength in (("none", 0.0), ("half", 0.5), ("whole", 1.0)):
        for index, image in enumerate(goldens.read(NAME, "encoders")["photo"]):
            graph = exact(comfyui, image[None], f"strength{index}.st", frames=4, strength=strength)
            sampled[name, index] = graph.run(comfyui, latent=graph.sample(steps=2))["latent"]
    assert torch.equal(sampled["none", 0], sampled["none", 1])
    apart = [(sampled[name, 0] - sampled[name, 1]).abs().mean() for name in ("half", "whole")]
    assert 0 < apart[0] < apart[1]


@pytest.mark.parametrize(
    "name, pixels",
    [
        ("grey.png", np.full((40, 30), 90, np.uint8)),
        ("rgba.png", np.full((33, 57, 4), 120, np.uint8)),
        ("deep.png", np.full((20, 20), 30000, np.uint16)),
        ("dot.png", np.full((1, 1, 3), 200, np.uint8)),
        ("long.png", np.full((20, 8000, 3), 10, np.uint8)),
    ],
)
def test_images_of_any_kind(comfyui, checkpoint, name, pixels):
    graph = ImageGraph("LoadImage", {"image": image_file(comfyui, name, pixels)}, frames=2, size=16)
    assert graph.run(comfyui, latent=graph.sample(steps=1))["latent"].isfinite().all()


@pytest.mark.parametrize(
    "own, image, expected",
    [
        ((512, 320), (1600, 1000), (512, 320)),
        ((512, 320), (1000, 1000), (384, 448)),
        ((512, 320), (500, 1000), (256, 640)),
        ((512, 320), (8000, 20), (832, 192)),
        ((1024, 576), (1920, 1080), (1024, 576)),
        ((64, 64), (300, 300), (64, 64)),
    ],
)
def test_suggested_sizes(own, image, expected):
    width, height = suggested_size(SamplingConfig(width=own[0], height=own[1]), *image)
    assert (width, height) == expected
    assert 0.7 < width * height / (own[0] * own[1]) < 1.3


def test_the_measure_is_the_core_s(comfyui, checkpoint):
    images = goldens.read(NAME, "encoders")["photo"]
    graph = exact(comfyui, images, "measured.st")
    first = out(graph.add("ImageFromBatch", image=graph.image, batch_index=0, length=1))
    measured = graph.add("VideoCrafterPictureKept", images=graph.image, image=first, clip_vision=graph.clip_vision)
    shown = graph.add("PreviewAny", source=out(measured, 1))
    graph.add("TestSave", file="plot.st", image=out(measured, 0))
    table = comfyui.run(graph.prompt)[shown]["text"][0]
    core = measure(images.transpose(0, 1), images[0], vc_core.load(checkpoint).embed_image).table()
    numbers = [[float(cell) for line in text.splitlines()[2:] for cell in line.split("|")[2:-1] if cell.strip()] for text in (table, core)]
    assert numbers[0] == pytest.approx(numbers[1], abs=2e-4) and len(numbers[0]) == 2 * 2 + 2 + 4


class TestErrors:
    def test_an_image_for_a_text_model(self, comfyui, checkpoint):
        goldens.write_checkpoint("t2v_512_v2", comfyui.checkpoints / "t2v_512_v2.safetensors")
        graph = exact(comfyui, goldens.read(NAME, "encoders")["photo"][:1], "text.st", checkpoint="t2v_512_v2", frames=2)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterImageToVideo", "holds no image encoder", "text-to-video models take no image")

    def test_an_animated_image_is_several_images(self, comfyui, checkpoint):
        frames = [Image.new("RGB", (20, 20), (value, 0, 0)) for value in (10, 200, 90)]
        frames[0].save(comfyui.base / "input" / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
        graph = ImageGraph("LoadImage", {"image": "moving.webp"}, frames=2, size=16)
        graph.add("TestSave", file="x", latent=graph.sample(steps=1))
        assert_fails(comfyui, graph, "VideoCrafterImageToVideo", "There are 3 images for 1 video:", "ImageFromBatch", "batch_size 3")

    def test_more_images_than_videos(self, comfyui, checkpoint):
        graph = exact(comfyui, goldens.read(NAME, "encoders")["photo"], "many.st", frames=2)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterImageToVideo", "There are 2 images for 1 video:", "batch_size 2")
