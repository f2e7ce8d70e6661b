"""Every conditioning node with every kind of model: what doesn't fit is refused before sampling, with the node or the file to take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness import goldens
from harness.bench import DYNAMICRAFTER, I2V, T2V
from harness.graphs import TextGraph, assert_fails, out
from harness.server import Server

INTERPOLATION = "dynamicrafter_512_interp_v1"
TEXT, FPS, IMAGE = "CLIPTextEncode", "VideoCrafterConditioning", "VideoCrafterImageToVideo"
ENDS, KEYFRAMES = "VideoCrafterInterpolation", "VideoCrafterKeyframes"
NO_IMAGE = ("makes videos from an image, but the positive conditioning has none", "text-to-video model")
TAKES_NONE = ("takes no image", "use VideoCrafter Conditioning", "i2v_512_v1")
NO_ENDS = ("can't end a video with an image", "use VideoCrafter Image to Video", "dynamicrafter_512_interp_v1")
TWO_IMAGES = ("joins two images", "use VideoCrafter Interpolation", "dynamicrafter_512_v1")
#: The words of the error; None: it works.
PAIRS: dict[str, dict[str, tuple[str, ...] | None]] = {
    T2V: {TEXT: None, FPS: None, IMAGE: TAKES_NONE, ENDS: TAKES_NONE, KEYFRAMES: TAKES_NONE},
    I2V: {TEXT: NO_IMAGE, FPS: NO_IMAGE, IMAGE: None, ENDS: NO_ENDS, KEYFRAMES: NO_ENDS},
    DYNAMICRAFTER: {TEXT: NO_IMAGE, FPS: NO_IMAGE, IMAGE: None, ENDS: NO_ENDS, KEYFRAMES: NO_ENDS},
    INTERPOLATION: {TEXT: NO_IMAGE, FPS: NO_IMAGE, IMAGE: TWO_IMAGES, ENDS: None, KEYFRAMES: None},
}
#: Models, nodes, words, and the node that refuses. VideoCrafter Guider is for images only.
CASES = [
    (model, node, words, sampler)
    for model, nodes in PAIRS.items()
    for node, words in nodes.items()
    for sampler in ("VideoCrafterSampler", "KSampler", "VideoCrafterGuider")
    if sampler != "VideoCrafterGuider" or not (words == TAKES_NONE or node in (TEXT, FPS))
]


@pytest.fixture(scope="module", autouse=True)
def interpolation(checkpoints: Path) -> None:
    """One of the recorded models once more, under the name of the interpolation model."""
    goldens.write_checkpoint(DYNAMICRAFTER, checkpoints / f"{INTERPOLATION}.safetensors")


class PairGraph(TextGraph):
    """A model, and the conditioning of a node; the image encoder and the VAE are those of another file."""

    def __init__(self, comfyui: Server, model: str, node: str, frames: int = 4, videos: int = 1, images: int = 1) -> None:
        super().__init__(f"{model}.safetensors", goldens.PROMPTS[0], frames=frames, videos=videos)
        self.comfyui = comfyui
        other = self.add("VideoCrafterLoader", ckpt_name=f"{DYNAMICRAFTER}.safetensors", weight_dtype="default")
        self.tower = {"clip_vision": out(other, 3), "vae": out(other, 2), "strength": 1.0, "fps": 8.0}
        if node == TEXT:
            self.positive = self.negative = self.text
        elif node == KEYFRAMES:
            number = self.add_images(node, keyframes=self.image(2), width=64, height=64, length=frames, loop=True)
            self.latent = out(number, 2)
        elif node != FPS:
            self.add_images(node, image=self.image(images), latent=self.latent)

    def image(self, count: int) -> list[object]:
        """A batch of images."""
        save_file({"image": torch.rand(count, 40, 40, 3)}, self.comfyui.base / "input" / f"{count}_images.st")
        return out(self.add("TestImage", file=f"{count}_images.st"))

    def add_images(self, node: str, **inputs: object) -> str:
        """Send the conditioning through a node that adds images to it; returns the node."""
        number = self.add(node, positive=self.positive, negative=self.negative, **self.tower, **inputs)
        self.positive, self.negative = out(number, 0), out(number, 1)
        return number

    def another_latent(self, frames: int, videos: int = 1) -> None:
        """Sample a latent that the conditioning doesn't know."""
        self.latent = out(self.add("EmptyVideoCrafterLatent", width=64, height=64, length=frames, batch_size=videos))

    def guided_by_both(self) -> list[object]:
        """Sampled with VideoCrafter Guider."""
        both = {"positive": self.positive, "negative": self.negative}
        guider = self.add("VideoCrafterGuider", model=self.model, **both, cfg=3.0, image_cfg=3.0, guidance_rescale=0.0)
        inputs = {"noise": out(self.add("RandomNoise", noise_seed=0)), "sampler": out(self.add("VideoCrafterDDIM", eta=1.0))}
        sigmas = out(self.add("VideoCrafterScheduler", model=self.model, steps=2, denoise=1.0))
        return out(self.add("SamplerCustomAdvanced", guider=out(guider), sigmas=sigmas, latent_image=self.latent, **inputs))


@pytest.mark.parametrize("model, node, words, sampler", CASES)
def test_a_model_gets_only_what_it_takes(comfyui, model, node, words, sampler):
    graph = PairGraph(comfyui, model, node)
    sampled = {"VideoCrafterSampler": graph.sample, "KSampler": graph.core_sample, "VideoCrafterGuider": graph.guided_by_both}[sampler]
    if words is None:
        assert graph.run(comfyui, latent=sampled())["latent"].isfinite().all()
    else:
        graph.add("TestSave", file="x", latent=sampled())
        assert_fails(comfyui, graph, sampler, *words)


@pytest.mark.parametrize("sampler", ["VideoCrafterSampler", "KSampler"])
@pytest.mark.parametrize("node", [ENDS, KEYFRAMES])
@pytest.mark.parametrize("frames, videos", [(16, 1), (8, 1), (2, 1), (4, 4), (3, 2)])
def test_images_at_both_ends_are_for_their_own_length(comfyui, node, sampler, frames, videos):
    """Of 8 or 16 frames, the conditioning's 4 are a half or a quarter, so that its last image would be in the middle."""
    graph = PairGraph(comfyui, INTERPOLATION, node)
    graph.another_latent(frames, videos)
    sampled = graph.sample() if sampler == "VideoCrafterSampler" else graph.core_sample()
    if (node, sampler, frames) == (KEYFRAMES, "KSampler", 8):
        # A loop through two keyframes is two clips of 4. KSampler gets 8 frames, and only the conditioning tells that they are two videos.
        assert len(graph.run(comfyui, latent=sampled)["latent"]) == 8
        return
    graph.add("TestSave", file="x", latent=sampled)
    made = "2 videos of 4 frames" if node == KEYFRAMES else "4 frames"
    assert_fails(
        comfyui, graph, sampler,
        f"placed in {made}, but ", "are sampled: connect the latent that is sampled",
    )


@pytest.mark.parametrize("sampler", ["sample", "core_sample"])
def test_the_image_of_all_frames_is_for_any_length(comfyui, sampler):
    """The same as with the sampled latent connected to the node that takes the image."""
    latents = []
    for known in (True, False):
        graph = PairGraph(comfyui, DYNAMICRAFTER, IMAGE, frames=8 if known else 4)
        if not known:
            graph.another_latent(8)
        latents.append(graph.run(comfyui, latent=getattr(graph, sampler)())["latent"])
    assert torch.equal(*latents) and len(latents[0]) == 8


def test_two_images_for_several_videos_are_every_video_s(comfyui):
    """One pair of images for two videos: the first video is as when it is sampled alone."""
    alone, both = (
        graph.run(comfyui, latent=graph.sample(cfg=1.0))["latent"]
        for graph in (PairGraph(comfyui, INTERPOLATION, ENDS, videos=videos) for videos in (1, 2))
    )
    assert goldens.error(both[:4], alone) <= goldens.TOLERANCE


@pytest.mark.parametrize("model, node", [(DYNAMICRAFTER, IMAGE), (I2V, IMAGE), (INTERPOLATION, ENDS)])
def test_a_video_is_no_image(comfyui, model, node):
    graph = PairGraph(comfyui, model, node, images=5)
    graph.add("TestSave", file="x", latent=graph.sample())
    assert_fails(comfyui, graph, node, "There are 5 images for 1 video:", "ImageFromBatch", "batch_size 5")
