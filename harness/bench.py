"""The graph that every row of the table starts from, and how results are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

import vc_core
from harness import goldens
from harness.client import Progress
from harness.graphs import TextGraph, out
from harness.server import Server
from vc_core.lora.merging import LoraSetting

T2V, T2V_V1, I2V, DYNAMICRAFTER, DEPTH = "t2v_512_v2", "t2v_512_v1", "i2v_512_v1", "dynamicrafter_512_v1", "make_your_video"
BUNDLED = "videocrafter_tiny_t2v (bundled)"
#: The models' names on the page. All but the bundled one are recorded: the published forms at tiny widths.
TITLES = {
    T2V: "VideoCrafter2", T2V_V1: "VideoCrafter1", I2V: "VideoCrafter1 I2V", DYNAMICRAFTER: "DynamiCrafter", DEPTH: "Make-Your-Video",
    BUNDLED: "bundled",
}
SWAN, SHIP, NOTHING = goldens.PROMPTS
CIRCLE = "a red circle moving right"
#: The network's latents are a LATENT times this.
SCALE = 0.18215
#: Standard deviations by which results must differ at least where a test expects another result: 20 times what counts as equal.
APART = 20 * goldens.TOLERANCE

Link = list[Any]


class Bench(TextGraph):
    """A row's graph. It starts with a loaded model, its conditioning (with an image where the model takes one) and an empty latent.

    What the row saves is returned by :meth:`results` under the same names.
    """

    def __init__(self, comfyui: Server, model: str, frames: int = 4, videos: int = 1, size: int = 64) -> None:
        self.comfyui, self.name, self.saved = comfyui, model, list[str]()
        self.frames, self.videos = frames, videos
        self.path = Path(model) if model == BUNDLED else self.checkpoint(model, goldens.weights(model))
        self.prompts = (CIRCLE, NOTHING) if model == BUNDLED else goldens.prompts(model)
        super().__init__(self.path.name, self.prompts[0], NOTHING, frames=frames, videos=videos, size=size)
        #: Progress and previews (the bytes of image files) of the run, in their order.
        self.events = list[Progress | bytes]()
        if model in (I2V, DYNAMICRAFTER):
            self.positive, self.negative = self.with_image(self.positive, self.negative, self.latent)
        #: A second conditioning that makes another video: no prompt, and another fps.
        self.other = self.with_fps(self.negative, self.latent, fps=30.0)

    def checkpoint(self, name: str, weights: dict[str, Tensor]) -> Path:
        """A checkpoint in the server's folder, written once."""
        path = self.comfyui.checkpoints / f"{name}.safetensors"
        if not path.exists():
            save_file(weights, path)
        return path

    def load(self, name: str, weights: dict[str, Tensor]) -> str:
        """Load a second model; returns its loader."""
        return self.add("VideoCrafterLoader", ckpt_name=self.checkpoint(name, weights).name, weight_dtype="default")

    def tensor_input(self, node: str, name: str, value: Tensor) -> Link:
        """The output of a test node that reads the tensor ``name`` of a file."""
        value = value.float().contiguous()
        file = f"{name}_{hashlib.sha1(value.numpy().tobytes()).hexdigest()}.st"  # equal content is an equal input to ComfyUI's cache
        save_file({name: value}, self.comfyui.base / "input" / file)
        return out(self.add(node, file=file))

    def with_concat(self, latents: Tensor, conditioning: Link | None = None) -> Link:
        """The positive, or another conditioning, with these as the latents of its images ``[T, 4, h, w]``."""
        [number, _] = self.tensor_input("TestConcat", "concat", latents)
        self.prompt[number]["inputs"]["conditioning"] = conditioning or self.positive
        return out(number)

    def one_video(self, frames: int, latents: Tensor | None) -> Link:
        """The positive for one video of this many frames, whatever latent is sampled; with these latents of its images if any."""
        if self.name not in (I2V, DYNAMICRAFTER):
            return self.with_fps(self.text)
        latent = out(self.add("EmptyVideoCrafterLatent", width=64, height=64, length=frames, batch_size=1))
        positive, _ = self.with_image(self.text, self.text, latent)
        return positive if latents is None else self.with_concat(latents, positive)

    @property
    def image(self) -> Tensor:
        """The recorded image, ``[1, 3, H, W]`` in [-1, 1]."""
        return goldens.read(self.name, "encoders")["photo"][:1]

    def with_image(self, positive: Link, negative: Link, latent: Link) -> tuple[Link, Link]:
        """Both conditionings with the recorded image."""
        both = self.add(
            "VideoCrafterImageToVideo",
            positive=positive,
            negative=negative,
            clip_vision=self.clip_vision,
            vae=self.vae,
            fps=8.0,
            image=self.tensor_input("TestImage", "image", (self.image.movedim(1, -1) + 1) / 2),
            strength=1.0,
            latent=latent,
        )
        return out(both, 0), out(both, 1)

    def encode(self, text: str, clip: Link | None = None) -> Link:
        """The conditioning of a prompt, without fps."""
        return out(self.add("CLIPTextEncode", clip=clip or self.clip, text=text))

    def with_fps(self, conditioning: Link, latent: Link | None = None, fps: float = 8.0) -> Link:
        """A conditioning with fps and, if there is a latent, its number of frames a video."""
        frames = {} if latent is None else {"latent": latent}
        return out(self.add("VideoCrafterConditioning", positive=conditioning, negative=conditioning, fps=fps, **frames))

    def ksampler(self, **changes: Any) -> Link:
        """KSampler, by default three steps of euler without guidance from the blank latent."""
        settings = {"seed": 0, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        inputs = {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return out(self.add("KSampler", **(inputs | settings | changes)))

    def one_step(self, **changes: Any) -> Link:
        """A single prediction, from the middle of the schedule, where no model's numbers are so large that rounding shows."""
        return self.ksampler(steps=1, scheduler="sgm_uniform", denoise=0.5, **changes)

    def part(self, first: int, last: int, **changes: Any) -> Link:
        """KSamplerAdvanced on the steps ``first`` to ``last - 1`` of 4; only the first part adds noise, only the last removes all of it."""
        settings = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal"}
        inputs = {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        ends = {"start_at_step": first, "end_at_step": last, "add_noise": "disable" if first else "enable", "noise_seed": 0}
        leftover = "enable" if last < settings["steps"] else "disable"
        return out(self.add("KSamplerAdvanced", **(inputs | settings | ends | changes), return_with_leftover_noise=leftover))

    def authors(self, **changes: Any) -> Link:
        """The pack's own sampler, three steps without guidance."""
        settings = {"seed": 0, "steps": 3, "cfg": 1.0, "eta": 1.0, "guidance_rescale": 0.0, "denoise": 1.0}
        inputs = {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return out(self.add("VideoCrafterSampler", **(inputs | settings | changes)))

    def frames_of(self, latent: Link, start: int, length: int) -> Link:
        """Some frames of a latent, with the noise of their positions in it."""
        return out(self.add("LatentFromBatch", samples=latent, batch_index=start, length=length))

    def options(self, node: str, name: str) -> list[str]:
        """The choices of an input."""
        listed = self.comfyui.get(f"/object_info/{node}")[node]["input"]["required"][name]
        return listed[1]["options"] if listed[0] == "COMBO" else listed[0]

    def save(self, name: str, **saved: Link) -> None:
        """Save an output under a name: ``latent=``, ``image=``, ``conditioning=`` or ``sigmas=``."""
        self.saved.append(name)
        self.add("TestSave", file=f"saved_{name}.safetensors", **saved)

    def results(self) -> dict[str, Tensor]:
        """Run the graph and read what it saved."""
        if not self.saved:
            return {}
        self.comfyui.run(self.prompt, on_progress=self.events.append, on_preview=self.events.append)
        return {name: next(iter(load_file(self.comfyui.base / "output" / f"saved_{name}.safetensors").values())) for name in self.saved}


def same(ours: Tensor, expected: Tensor, tolerance: float = goldens.TOLERANCE) -> None:
    """Equal up to the tests' tolerance."""
    assert goldens.error(ours, expected) <= tolerance, goldens.error(ours, expected)


def same_pixels(images: Tensor, video: Tensor) -> None:
    """An IMAGE ``[B T, H, W, 3]`` shows the core's video ``[B, 3, T, H, W]`` in [-1, 1], up to a tenth of an 8-bit step."""
    expected = (video.float().clamp(-1, 1).permute(0, 2, 3, 4, 1).flatten(0, 1) + 1) / 2
    assert images.shape == expected.shape, (images.shape, expected.shape)
    error = (images - expected).abs().max().item()
    assert error <= 0.1 / 255, f"{255 * error:.3f} of 255"


def apart(one: Tensor, other: Tensor) -> float:
    """How far two latents are from each other, in standard deviations of the second."""
    return ((one - other).std() / other.std()).item()


def core_latent(
    path: Path, prompt: str = SWAN, negative: str = NOTHING, frames: int = 4, loras: Sequence[LoraSetting] = (), **settings: Any
) -> Tensor:
    """What vc_core samples with a checkpoint and :meth:`Bench.authors`' settings, as a LATENT's frames."""
    latents: list[Tensor] = []
    settings = {"steps": 3, "guidance_scale": 1.0, "fps": 8, "seed": 0, "height": 64, "width": 64} | settings
    model = vc_core.load(path, loras=loras)
    model.text_to_video(prompt, negative, frames=frames, callback=lambda *step: latents.append(step[3]), **settings)
    return latents[-1].transpose(1, 2).flatten(0, 1) / SCALE
