"""Stable Diffusion 2.1's ControlNets on our models: as on core's own, and as residuals added by hand in the core."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import vc_core
from harness import goldens
from harness.bench import T2V_V1
from harness.graphs import TextGraph, assert_fails, out
from harness.server import Server
from harness.works_with.controls import CONTROLS
from harness.works_with.length import windowed
from tests.comfyui.recorded import Pass, Residuals, passes
from vc_core.config import load_config
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import Hooks
from vc_core.models.layers import LayerFactory
from vc_core.models.unet import UNet

PROMPT = goldens.PROMPTS[0]
VIDEOCRAFTER2 = "t2v_512_v2"
SMALLEST = 1e-5
#: Of the recorded model: channels at its two levels, and of its text.
WIDTH = goldens.recording(VIDEOCRAFTER2).reference_config["unet_config"]["params"]["model_channels"]
DEEP_WIDTH, TEXT_WIDTH = 2 * WIDTH, goldens.recording(VIDEOCRAFTER2).reference_config["unet_config"]["params"]["context_dim"]


@pytest.fixture(scope="module", autouse=True)
def hint_files(comfyui: Server) -> None:
    """IMAGEs in the server's input folder."""
    for count in (1, 4, 6):
        save_file({"image": hints(count)}, comfyui.base / "input" / f"hints_{count}.st")


def hints(count: int) -> Tensor:
    """An IMAGE of random images, ``[count, 64, 64, 3]`` in [0, 1]."""
    return torch.rand(count, 64, 64, 3, generator=torch.Generator().manual_seed(count))


class ControlGraph(TextGraph):
    """A text graph with ControlNets of random weights."""

    def __init__(self, checkpoint: str = VIDEOCRAFTER2, frames: int = 4, **settings: Any) -> None:
        super().__init__(f"{checkpoint}.safetensors", PROMPT, frames=frames, **settings)

    def controlnet(self, seed: int, **changed: Any) -> str:
        return self.add("TestControlNet", model=self.model, seed=seed, changed=json.dumps(changed))

    def adapter(self, seed: int) -> str:
        return self.add("TestAdapter", seed=seed, width=WIDTH)

    def apply(self, control: str, images: int = 4, strength: float = 1.0, start: float = 0.0, end: float = 1.0) -> None:
        both = self.add(
            "ControlNetApplyAdvanced",
            positive=self.positive,
            negative=self.negative,
            control_net=out(control),
            image=out(self.add("TestImage", file=f"hints_{images}.st")),
            strength=strength,
            start_percent=start,
            end_percent=end,
        )
        self.positive, self.negative = out(both, 0), out(both, 1)

    def record(self, comfyui: Server, file: str, frames: int = 4, ours: bool = False, **settings: Any) -> list[Pass]:
        """The passes of a run, through the authors' sampler or core's."""
        self.model = out(self.add("TestRecord", model=self.model, file=file))
        latent = self.sample(**{"steps": 2, "cfg": 3.0} | settings) if ours else self.core_sample(**settings)
        assert self.run(comfyui, latent=latent)["latent"].isfinite().all()
        return passes(comfyui, file, frames)


def twins(graph: ControlGraph) -> list[Any]:
    """The latents of our model without its layers over time and of core's with the same weights, one after the other."""
    both = graph.add("TestTwins", model=graph.model)
    latents = []
    for twin in (0, 1):
        graph.model = out(both, twin)
        latents.append(graph.core_sample())
    return out(graph.add("LatentBatch", samples1=latents[0], samples2=latents[1]))


@pytest.mark.parametrize("name", CONTROLS)
def test_as_on_core_s_own_model(comfyui, checkpoints, name):
    """Two videos and two conditionings in a batch: every frame of each gets its own image."""
    latents = []
    for controls in (CONTROLS[name], []):
        graph = ControlGraph(T2V_V1, videos=2)
        for kind, seed, settings in controls:
            graph.apply(getattr(graph, kind)(seed), **settings)
        latents.append(graph.run(comfyui, latent=twins(graph))["latent"])
    (ours, core), (without, _) = (each.chunk(2) for each in latents)
    assert goldens.error(ours, core) <= goldens.TOLERANCE
    assert name == "nothing" or goldens.error(ours, without) > 10 * goldens.TOLERANCE


@pytest.mark.parametrize("ours", [pytest.param(False, marks=pytest.mark.full), True])
@pytest.mark.parametrize("name", ["an image per frame", "a chain", "an adapter and a ControlNet"])
def test_by_hand_in_the_core(comfyui, checkpoints, name, ours):
    graph = ControlGraph(videos=2)
    for kind, seed, settings in CONTROLS[name]:
        graph.apply(getattr(graph, kind)(seed), **settings)
    seen = graph.record(comfyui, f"{name} {ours}", ours=ours)
    unet = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors").unet
    assert len(seen) == 2 and all(len(each.residuals("output")) == len(unet.output_blocks) for each in seen)
    for each in seen:
        assert goldens.error(each.tensors["out"], each.by_hand(unet, Residuals(each))) <= goldens.TOLERANCE
        assert goldens.error(each.by_hand(unet), each.tensors["out"]) > 0.01


def test_each_frame_of_each_video_gets_its_image(comfyui, checkpoints):
    """An adapter's residuals depend on the image only."""
    graph = ControlGraph(videos=2)
    graph.apply(graph.adapter(1))
    seen = graph.record(comfyui, "rows", steps=1)[0]
    rows = seen.residuals("input")[0]
    assert len(rows) == 2 * 2 * 4 and len(seen.conditionings) == 2
    assert torch.equal(rows, rows[:4].repeat(4, 1, 1, 1))
    assert all(not torch.equal(rows[index], rows[other]) for index in range(4) for other in range(index))


@pytest.mark.parametrize("start, end, expected", [(0.5, 1.0, [False, False, True, True]), (0.0, 0.5, [True, True, False, False])])
def test_it_starts_and_ends_at_its_percentages(comfyui, checkpoints, start, end, expected):
    graph = ControlGraph()
    graph.apply(graph.controlnet(1), start=start, end=end)
    seen = graph.record(comfyui, f"percent_{start}", steps=4, scheduler="ddim_uniform")
    assert [each.controlled for each in seen] == expected


def test_an_adapter_in_passes_with_fewer_conditionings(comfyui, checkpoints):
    """Core's adapter keeps what it made for two conditionings when guidance adds a pass with one."""
    graph = ControlGraph(videos=2)
    graph.apply(graph.adapter(1))
    graph.model = out(graph.add("SelfAttentionGuidance", model=graph.model, scale=1.0, blur_sigma=2.0))
    both, one = graph.record(comfyui, "fewer", steps=1)
    assert (len(both.conditionings), len(one.conditionings)) == (2, 1)
    seen = Residuals(one)
    seen.input = [each if each is None else each[:8] for each in seen.input]
    assert len(one.residuals("input")[0]) == 16
    unet = vc_core.load(checkpoints / f"{VIDEOCRAFTER2}.safetensors").unet
    assert goldens.error(one.tensors["out"], one.by_hand(unet, seen)) <= goldens.TOLERANCE


def test_each_window_of_a_long_video_gets_its_images(comfyui, checkpoints):
    graph = ControlGraph(frames=6)
    graph.apply(graph.adapter(1), images=6)
    whole = graph.record(comfyui, "whole", frames=6, steps=1, cfg=1.0)[0].residuals("input")[0]
    graph = ControlGraph(frames=6)
    graph.apply(graph.adapter(1), images=6)
    graph.model = windowed(graph, 4, 2)
    # Core's windows of batches work in 0.3.75 only where there are as many sigmas as frames.
    windows = graph.record(comfyui, "windows", frames=4, steps=5, cfg=1.0)
    assert len(windows) == 2 * 5
    for window, frames in zip(windows, [slice(0, 4), slice(2, 6)] * 5, strict=True):
        assert goldens.error(window.residuals("input")[0], whole[frames]) <= SMALLEST


class Shapes(Hooks):
    """Records the shapes that residuals are added to."""

    def __init__(self) -> None:
        self.input, self.middle, self.output = [], [], []

    def after_input_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        self.input.append(list(hidden.shape))
        return hidden, hidden

    def after_middle_block(self, hidden: Tensor) -> Tensor:
        self.middle.append(list(hidden.shape))
        return hidden

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        self.output.append(list(skip.shape))
        return hidden, skip


def test_the_true_sizes_fit(comfyui):
    """Stable Diffusion 2.1's ControlNet and T2I adapter on two frames of VideoCrafter2's own size."""
    graph = ControlGraph()
    graph.prompt = {}
    graph.add("TestTrueSize", file="true_size.json")
    comfyui.run(graph.prompt)
    shapes = json.loads((comfyui.base / "output" / "true_size.json").read_text())
    seen, blank = Shapes(), {"device": "meta"}
    unet = UNet(load_config(VIDEOCRAFTER2).unet, LayerFactory(**blank))
    unet(torch.empty(1, 4, 2, 40, 64, **blank), torch.empty(1, **blank), Conditioning(torch.empty(1, 77, 1024, **blank)), seen)
    assert shapes["controlnet"] == {"middle": seen.middle, "output": seen.output[::-1]}
    assert len(seen.output) == 12
    adapted = shapes["adapter"]["input"][::-1]
    assert [number for number, shape in enumerate(adapted) if shape] == [2, 5, 8, 11]
    assert all(shape in (None, place) for shape, place in zip(adapted, seen.input, strict=True))


class TestRefused:
    def refused(self, comfyui: Server, graph: ControlGraph, *parts: str) -> None:
        graph.add("TestSave", file="x", latent=graph.core_sample())
        assert_fails(comfyui, graph, "KSampler", *parts)

    def test_another_base_model_s_text(self, comfyui, checkpoints):
        graph = ControlGraph()
        graph.apply(graph.controlnet(1, context_dim=TEXT_WIDTH + 16))
        self.refused(comfyui, graph, f"reads text of width {TEXT_WIDTH + 16}", f"the model's is {TEXT_WIDTH} wide")

    def test_another_base_model_s_widths(self, comfyui, checkpoints):
        graph = ControlGraph()
        graph.apply(graph.controlnet(1, model_channels=2 * WIDTH))
        expected = f"[8, {2 * DEEP_WIDTH}, 4, 4] for middle block 0", f"[8, {DEEP_WIDTH}, 4, 4]"
        self.refused(comfyui, graph, *expected, "made for Stable Diffusion 2.1")

    def test_other_levels(self, comfyui, checkpoints):
        graph = ControlGraph()
        graph.apply(graph.controlnet(
            1, channel_mult=[1, 2, 2], num_res_blocks=[1, 1, 1], transformer_depth=[1, 1, 1], transformer_depth_output=[1] * 6
        ))
        self.refused(comfyui, graph, f"[8, {DEEP_WIDTH}, 2, 2] for middle block 0", f"[8, {DEEP_WIDTH}, 4, 4]")

    def test_an_adapter_that_rounds_a_size_otherwise(self, comfyui, checkpoints):
        graph = ControlGraph(size=72)
        graph.apply(graph.adapter(1))
        self.refused(comfyui, graph, f"[8, {DEEP_WIDTH}, 4, 4] for input block 3", f"[8, {DEEP_WIDTH}, 5, 5]", "multiples of 64")

    def test_a_control_lora(self, comfyui, checkpoints):
        graph = ControlGraph()
        graph.apply(graph.add("TestControlLora"))
        self.refused(comfyui, graph, "Control-LoRA", "use a complete ControlNet")
