"""DynamiCrafter in a real ComfyUI: the reference's runs, and the core's, through its nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vc_core
from harness import goldens
from harness.bench import same_pixels
from harness.graphs import TextGraph, assert_fails, out
from harness.server import Server
from tests.comfyui.recorded import LATENT_SCALE, assert_recorded, frames_of, recorded_sampling, runs, settings_of
from vc_core.media.joining import join

PROMPT = goldens.prompts("dynamicrafter_512_v1")[0]
INTERPOLATION = "dynamicrafter_512_interp_v1"


@pytest.fixture(scope="module", autouse=True)
def interpolation(checkpoints: Path) -> None:
    """One of the recorded models once more, under the name of the interpolation model."""
    goldens.write_checkpoint("dynamicrafter_512_v1", checkpoints / f"{INTERPOLATION}.safetensors")


def photo(model: str = "dynamicrafter_512_v1") -> torch.Tensor:
    """A recorded image, ``[1, 3, H, W]`` in [-1, 1]."""
    return goldens.read(model, "encoders")["photo"]


def images(count: int) -> torch.Tensor:
    """Images that differ, ``[count, 3, 64, 64]`` in [-1, 1]."""
    return torch.cat([photo().roll(7 * index, -1) * (1 - 0.1 * index) for index in range(count)])


class ImageGraph(TextGraph):
    """A text graph whose conditioning gets images."""

    def __init__(self, comfyui: Server, checkpoint: str, file: str, **settings: object) -> None:
        super().__init__(f"{checkpoint}.safetensors", **({"prompt": PROMPT} | settings))
        self.comfyui, self.file = comfyui, file

    def image(self, images: torch.Tensor, name: str) -> list[object]:
        """An IMAGE of ``[B, 3, H, W]`` in [-1, 1], not rounded to eight bits."""
        file = f"{self.file}_{name}.st"
        save_file({"image": ((images + 1) / 2).movedim(1, -1).contiguous()}, self.comfyui.base / "input" / file)
        return out(self.add("TestImage", file=file))

    def add_images(self, node: str, **inputs: object) -> str:
        """Send the conditioning through a node that adds images to it; returns the node."""
        defaults = {"positive": self.positive, "negative": self.negative, "clip_vision": self.clip_vision, "vae": self.vae, "strength": 1.0}
        number = self.add(node, **(defaults | inputs))
        self.positive, self.negative = out(number, 0), out(number, 1)
        return number


@pytest.mark.parametrize("name, run", runs(*goldens.DYNAMICRAFTER))
def test_the_reference_s_runs(comfyui, checkpoints, name, run):
    """From their recorded image and noise; a last image is recorded as its latent only."""
    settings, (prompt, *_, negative) = settings_of(name, run), goldens.prompts(name)
    graph = ImageGraph(comfyui, name, f"{name}_{run}", prompt=prompt, negative=negative)
    sampling = recorded_sampling(comfyui, graph, name, run)
    graph.add_images("VideoCrafterImageToVideo", image=graph.image(photo(name), "photo"), fps=settings.fps, latent=graph.latent)
    concat = goldens.read(name, "sampling")[f"{run}.concat"]
    if not torch.equal(concat, concat[:, :, :1].expand_as(concat)):
        file = f"{name}_{run}_concat.st"
        save_file({"concat": frames_of(concat) / LATENT_SCALE}, comfyui.base / "input" / file)
        graph.positive = out(graph.add("TestConcat", conditioning=graph.positive, file=file))
        graph.negative = out(graph.add("TestConcat", conditioning=graph.negative, file=file))
    guider = graph.add(
        "VideoCrafterGuider",
        model=graph.model,
        positive=graph.positive,
        negative=graph.negative,
        cfg=settings.guidance_scale,
        image_cfg=settings.image_guidance_scale or settings.guidance_scale,
        guidance_rescale=settings.guidance_rescale,
    )
    sampled = out(graph.add("SamplerCustomAdvanced", guider=out(guider), latent_image=graph.latent, **sampling))
    assert_recorded(name, run, graph.run(comfyui, latent=sampled, image=graph.decode(sampled)))


@pytest.mark.parametrize("name", goldens.DYNAMICRAFTER)
def test_a_seed_gives_the_core_s_video(comfyui, checkpoints, name):
    """Its own spacing, guidance with rescale, and as many frames as the projector wasn't made for."""
    graph = ImageGraph(comfyui, name, f"seed_{name}", frames=5)
    wide = photo()[:, :, 10:50]  # is fitted to the video's square
    graph.add_images("VideoCrafterImageToVideo", image=graph.image(wide, "wide"), fps=12.0, latent=graph.latent)
    saved = graph.run(comfyui, image=graph.decode(graph.sample(seed=3, steps=4, cfg=7.5, guidance_rescale=0.7)))
    video = vc_core.load(checkpoints / f"{name}.safetensors").image_to_video(
        wide, PROMPT, frames=5, height=64, width=64, steps=4, guidance_scale=7.5, guidance_rescale=0.7, fps=12, seed=3
    )
    same_pixels(saved["image"], video)


@pytest.mark.parametrize("loop", [False, True])
def test_interpolation_and_loops_are_the_core_s(comfyui, checkpoints, loop):
    graph = ImageGraph(comfyui, INTERPOLATION, f"ends_{loop}", frames=8)
    first, last = images(2).split(1)
    end = {} if loop else {"end_image": graph.image(last, "last")}
    graph.add_images("VideoCrafterInterpolation", image=graph.image(first, "first"), fps=5.0, latent=graph.latent, **end)
    saved = graph.run(comfyui, image=graph.decode(graph.sample(seed=1, steps=3, cfg=7.5)))
    ends = {"loop": True} if loop else {"end_image": last}
    video = vc_core.load(checkpoints / f"{INTERPOLATION}.safetensors").image_to_video(
        first, PROMPT, frames=8, height=64, width=64, steps=3, guidance_scale=7.5, guidance_rescale=0.0, fps=5, seed=1, **ends
    )
    same_pixels(saved["image"], video)


@pytest.mark.parametrize("loop", [False, True])
def test_keyframes_are_a_chain_of_the_core_s_clips(comfyui, checkpoints, loop):
    graph = ImageGraph(comfyui, INTERPOLATION, f"chain_{loop}")
    shown = images(3)
    keyframes = graph.image(shown, "all")
    number = graph.add_images("VideoCrafterKeyframes", keyframes=keyframes, width=64, height=64, length=4, loop=loop, fps=5.0)
    graph.latent = out(number, 2)
    frames = graph.decode(graph.sample(seed=1, steps=3, cfg=7.5))
    joined = graph.add("VideoCrafterJoinClips", images=frames, length=4, match=True)
    saved = graph.run(comfyui, image=out(joined))
    ends = shown[[1, 2, 0]] if loop else shown[1:]
    clips = vc_core.load(checkpoints / f"{INTERPOLATION}.safetensors").image_to_video(
        shown[: len(ends)], PROMPT, frames=4, height=64, width=64, steps=3, guidance_scale=7.5, guidance_rescale=0.0, fps=5, seed=1,
        end_image=ends,
    )
    assert len(saved["image"]) == 4 * len(ends) - (len(ends) - 1)
    same_pixels(saved["image"], join(list(clips)).video[None])


def test_equal_guidance_by_text_and_image_is_the_usual_one(comfyui, checkpoints):
    latents = []
    for node, settings in (("CFGGuider", {}), ("VideoCrafterGuider", {"image_cfg": 5.0, "guidance_rescale": 0.0})):
        graph = ImageGraph(comfyui, "dynamicrafter_512_v1", "guided", frames=4)
        graph.add_images("VideoCrafterImageToVideo", image=graph.image(photo(), "photo"), fps=12.0, latent=graph.latent)
        guider = graph.add(node, model=graph.model, positive=graph.positive, negative=graph.negative, cfg=5.0, **settings)
        sampled = graph.add(
            "SamplerCustomAdvanced", noise=out(graph.add("RandomNoise", noise_seed=2)), guider=out(guider),
            sampler=out(graph.add("KSamplerSelect", sampler_name="euler")), latent_image=graph.latent,
            sigmas=out(graph.add("VideoCrafterScheduler", model=graph.model, steps=3, denoise=1.0)),
        )
        latents.append(graph.run(comfyui, latent=out(sampled))["latent"])
    assert goldens.error(latents[1], latents[0]) <= goldens.TOLERANCE


class TestErrors:
    def test_no_latent_of_the_image(self, comfyui, checkpoints):
        graph = ImageGraph(comfyui, "dynamicrafter_512_v1", "none", frames=2)
        number = graph.add(
            "VideoCrafterImageToVideo", positive=graph.positive, negative=graph.negative, clip_vision=graph.clip_vision,
            image=graph.image(photo(), "photo"), fps=12.0, strength=1.0,
        )
        graph.positive, graph.negative = out(number, 0), out(number, 1)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterSampler", "needs the latent of its image", "connect vae and latent")

    def test_different_numbers_of_images(self, comfyui, checkpoints):
        graph = ImageGraph(comfyui, INTERPOLATION, "uneven", frames=4)
        one, two = graph.image(images(1), "one"), graph.image(images(2), "two")
        graph.add_images("VideoCrafterInterpolation", image=one, end_image=two, fps=5.0, latent=graph.latent)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterInterpolation", "image and end_image have 1 and 2 images")

    def test_one_keyframe(self, comfyui, checkpoints):
        graph = ImageGraph(comfyui, INTERPOLATION, "lonely")
        number = graph.add_images(
            "VideoCrafterKeyframes", keyframes=graph.image(photo(), "one"), width=64, height=64, length=4, loop=False, fps=5.0
        )
        graph.latent = out(number, 2)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterKeyframes", "keyframes has 1 image", "Batch Images")

    def test_frames_that_are_no_whole_clips(self, comfyui, checkpoints):
        graph = ImageGraph(comfyui, INTERPOLATION, "parts")
        joined = graph.add("VideoCrafterJoinClips", images=graph.image(images(3), "three"), length=2, match=True)
        graph.add("TestSave", file="x", image=out(joined))
        assert_fails(comfyui, graph, "VideoCrafterJoinClips", "3 images, which is not a multiple of length 2")

    def test_a_file_that_could_be_several_models(self, comfyui, checkpoints):
        parts = ("model.diffusion_model.", "image_proj_model.")
        tensors = {name: value for name, value in goldens.weights("dynamicrafter_512_v1").items() if name.startswith(parts)}
        save_file(tensors, checkpoints / "community.safetensors")
        graph = ImageGraph(comfyui, "community", "community")
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterLoader", "could be any of dynamicrafter_1024_v1", "the loader's model")


def test_a_community_file_with_parts_from_other_files(comfyui, checkpoints):
    """UNet and projector from one file; text, VAE and image encoder from another."""
    parts = ("model.diffusion_model.", "image_proj_model.")
    tensors = {name: value for name, value in goldens.weights("dynamicrafter_512_v1").items() if name.startswith(parts)}
    save_file(tensors, checkpoints / "dynamicrafter_512_pruned.safetensors")
    latents = []
    for pruned in (False, True):
        graph = ImageGraph(comfyui, "dynamicrafter_512_v1", "whole", frames=4)
        if pruned:
            loader = graph.add("VideoCrafterLoader", ckpt_name="dynamicrafter_512_pruned.safetensors", weight_dtype="default", model="auto")
            graph.model = out(loader)
        graph.add_images("VideoCrafterImageToVideo", image=graph.image(photo(), "photo"), fps=12.0, latent=graph.latent)
        latents.append(graph.run(comfyui, latent=graph.sample(steps=2))["latent"])
    assert torch.equal(latents[0], latents[1])
