"""Graphs in the form that the server takes, and what they leave behind."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from harness.client import ComfyError
from harness.server import Server


class Graph:
    """Collects nodes; an output of one is ``[its number, slot]``."""

    def __init__(self) -> None:
        self.prompt: dict[str, dict[str, Any]] = {}

    def add(self, class_type: str, **inputs: Any) -> str:
        """Add a node and return its number. Inputs that are nodes' outputs are pairs, see :meth:`out`."""
        number = str(len(self.prompt) + 1)
        self.prompt[number] = {"class_type": class_type, "inputs": inputs}
        return number

    def run(self, comfyui: Server, **saved: Any) -> dict[str, Tensor]:
        """Run the graph and return what ``saved`` names: ``latent=``, ``image=``, ``conditioning=``, ``sigmas=``."""
        self.add("TestSave", file="saved.safetensors", **saved)
        comfyui.run(self.prompt)
        return load_file(comfyui.base / "output" / "saved.safetensors")


def out(node: str, slot: int = 0) -> list[Any]:
    """An output of a node, as an input of another."""
    return [node, slot]


def assert_fails(comfyui: Server, graph: Graph, kind: str, *parts: str) -> None:
    """The run ends in an error of a node of that class, whose message has all of these parts."""
    with pytest.raises(ComfyError) as error:
        comfyui.run(graph.prompt)
    assert error.value.node_type == kind
    for part in parts:
        assert part in str(error.value), str(error.value)


class TextGraph(Graph):
    """The start of every text-to-video graph: a loaded model, its prompts with fps, and a blank latent."""

    def __init__(
        self,
        checkpoint: str,
        prompt: str,
        negative: str = "",
        fps: float = 8.0,
        frames: int = 8,
        size: int = 64,
        videos: int = 1,
        weight_dtype: str = "default",
    ) -> None:
        super().__init__()
        loader = self.add("VideoCrafterLoader", ckpt_name=checkpoint, weight_dtype=weight_dtype)
        self.model, self.clip, self.vae, self.clip_vision = (out(loader, slot) for slot in range(4))
        texts = [out(self.add("CLIPTextEncode", clip=self.clip, text=text)) for text in (prompt, negative)]
        self.text = texts[0]
        self.latent = out(self.add("EmptyVideoCrafterLatent", width=size, height=size, length=frames, batch_size=videos))
        both = self.add("VideoCrafterConditioning", positive=texts[0], negative=texts[1], fps=fps, latent=self.latent)
        self.positive, self.negative = out(both, 0), out(both, 1)

    def patch(self, node: str, **settings: Any) -> None:
        """Send the model through a node."""
        self.model = out(self.add(node, model=self.model, **settings))

    def sample(self, **settings: Any) -> list[Any]:
        """The authors' sampler on it."""
        settings = {"seed": 0, "steps": 4, "cfg": 12.0, "eta": 1.0, "guidance_rescale": 0.0, "denoise": 1.0} | settings
        inputs = {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return out(self.add("VideoCrafterSampler", **inputs, **settings))

    def core_sample(self, **settings: Any) -> list[Any]:
        """Core's KSampler on it, two steps of euler by default."""
        settings = {"seed": 1, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0} | settings
        inputs = {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return out(self.add("KSampler", **inputs, **settings))

    def sample_custom(self, noise: list[Any], sampler: list[Any], sigmas: list[Any], cfg: float) -> list[Any]:
        """Core's custom sampler on it; the result, not the denoised."""
        guider = self.add("CFGGuider", model=self.model, positive=self.positive, negative=self.negative, cfg=cfg)
        inputs = {"noise": noise, "guider": out(guider), "sampler": sampler, "sigmas": sigmas, "latent_image": self.latent}
        return out(self.add("SamplerCustomAdvanced", **inputs))

    def decode(self, latent: list[Any]) -> list[Any]:
        """The frames of a latent."""
        return out(self.add("VideoCrafterDecode", samples=latent, vae=self.vae, frames_at_once=4))
