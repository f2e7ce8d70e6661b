"""Numbers that ComfyUI lets pass: NaN in a widget, anything by a link, sigmas that rise, a weight without end."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from harness import goldens
from harness.bench import T2V
from harness.graphs import TextGraph, assert_fails, out
from vc_core.lora.writing import save_lora

#: Numbers of the node that trains.
TRAINING = {
    "steps": 1, "batch_size": 1, "grad_accumulation_steps": 1, "learning_rate": 0.001, "rank": 2, "seed": 0, "alpha": 1.0,
}
#: Numbers of the nodes; each node's other inputs are in :func:`added`.
NUMBERS = [
    *(("VideoCrafterSampler", name) for name in ("seed", "steps", "cfg", "eta", "guidance_rescale", "denoise", "start_timestep")),
    *(("VideoCrafterScheduler", name) for name in ("steps", "denoise", "original_steps", "start_timestep")),
    *(("VideoCrafterInitialNoise", name) for name in ("noise_seed", "start_timestep")),
    *(("VideoCrafterWarpedNoise", name) for name in ("noise_seed", "strength")),
    *(("VideoCrafterFreeInit", name) for name in ("iterations", "spatial_stop", "temporal_stop", "order")),
    *(("VideoCrafterApplyCamera", name) for name in ("trace_scale", "conditioned_frame", "seed")),
    *(("VideoCrafterTrajectory", name) for name in ("box_size", "edited_steps", "noise_seed")),
    *(("VideoCrafterCameraGuider", name) for name in ("cfg", "camera_cfg", "guidance_rescale")),
    *(("VideoCrafterDeepCache", name) for name in ("interval", "blocks", "start_percent", "end_percent")),
    *(("EmptyVideoCrafterLatent", name) for name in ("width", "height", "length", "batch_size")),
    *(("VideoCrafterModelSettings", name) for name in ("width", "height", "length", "fps", "steps")),
    *(("VideoCrafterExampleImage", name) for name in ("x", "y", "length", "end_x", "end_y")),
    ("VideoCrafterPromptSchedule", "length"),
    ("VideoCrafterMotionStrength", "strength"),
    *(("VideoCrafterLoadLora", name) for name in ("strength_model", "strength_clip", "alpha")),
    *(("VideoCrafterTrainLora", name) for name in TRAINING),
    ("VideoCrafterDepthToVideo", "strength"),
    *(("VideoCrafterStyleGuider", name) for name in ("cfg", "style_cfg")),
    ("VideoCrafterDDIM", "eta"),
    *(("VideoCrafterConditioning", name) for name in ("fps", "guidance", "motion_guidance", "motion_share")),
    ("VideoCrafterDecode", "frames_at_once"),
    ("VideoCrafterJoinClips", "length"),
    ("VideoCrafterSaveVideo", "fps"),
    ("VideoCrafterSaveVideo", "crf"),
    ("VideoCrafterSaveVideo", "loop_count"),
    ("VideoCrafterCamera", "length"),
    ("VideoCrafterCamera", "speed"),
    *(("VideoCrafterDrawTrajectory", name) for name in ("width", "height", "length")),
    ("VideoCrafterShowMotion", "trail"),
    ("VideoCrafterShowMotion", "opacity"),
    *((name, "fps") for name in ("VideoCrafterEvaluate", "VideoCrafterCompare")),
    *(("VideoCrafterFitVideo", name) for name in ("width", "height", "length", "fps", "start", "source_fps")),
]
#: Numbers that may be negative.
BELOW_ZERO = ("strength_model", "strength_clip", "motion_guidance")
#: A LoRA file in the server's folder.
LORA = "numbers.safetensors"
LINKED = ["nan", "infinity", "minus one", "far too much", "words", "nothing", "yes", "a tensor"]


@pytest.fixture
def graph(comfyui, checkpoints) -> TextGraph:
    folder = comfyui.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_lora(folder / LORA, {"time_embed.0": (torch.ones(1, 64), torch.ones(256, 1), 1.0)})
    made = TextGraph(f"{T2V}.safetensors", goldens.PROMPTS[0], frames=2, size=16)
    made.input = comfyui.base / "input"
    return made


def added(graph: TextGraph, node: str, **changes: object) -> str:
    """A node with inputs that are right but for these."""
    sampled = {"model": graph.model, "positive": graph.positive, "negative": graph.negative, "latent_image": graph.latent}
    inputs = {
        "VideoCrafterSampler": {
            **sampled, "seed": 0, "steps": 1, "cfg": 1.0, "eta": 1.0, "guidance_rescale": 0.0, "denoise": 1.0, "spacing": "auto",
        },
        "VideoCrafterScheduler": {"model": graph.model, "steps": 2, "denoise": 1.0, "spacing": "auto"},
        "VideoCrafterDeepCache": {"model": graph.model, "interval": 2, "blocks": 1, "start_percent": 0.0, "end_percent": 1.0},
        "EmptyVideoCrafterLatent": {"width": 16, "height": 16, "length": 2, "batch_size": 1},
        "VideoCrafterModelSettings": {"model": graph.model, "width": 0, "height": 0, "length": 0, "fps": 0.0, "steps": 0},
        "VideoCrafterExampleImage": {"shape": "circle", "color": "blue", "x": 20, "y": 20},
        "VideoCrafterMotionStrength": {"model": graph.model, "strength": 0.5, "blocks": "all"},
        "VideoCrafterTrainLora": {
            "model": graph.model, "latents": graph.latent, "positive": graph.positive, "trained": "style", **TRAINING,
        },
        "VideoCrafterPromptSchedule": {"clip": graph.clip, "schedule": '"0": "a"', "length": 2, "interpolation": "linear"},
        "VideoCrafterLoadLora": {"model": graph.model, "lora_name": LORA, "strength_model": 1.0, "strength_clip": 1.0},
        "VideoCrafterDDIM": {"eta": 1.0},
        "VideoCrafterInitialNoise": {"model": graph.model, "statistics": "none", "noise_seed": 0, "start_timestep": 940},
        "VideoCrafterTrajectory": {
            "model": graph.model, "latent": graph.latent, "method": "FreeTraj", "subject": "swan", "prompt": "a swan", "clip": graph.clip,
            "paths": '[{"x": 1, "y": 2}]', "box_size": 0.4, "edited_steps": 2, "noise_seed": 0,
        },
        "VideoCrafterCameraGuider": {
            "model": graph.model, "positive": graph.positive, "negative": graph.negative, "cfg": 3.0, "camera_cfg": 2.0,
            "schedule": "cosine", "guidance_rescale": 0.0,
        },
        "VideoCrafterConditioning": {"positive": graph.text, "negative": graph.text, "fps": 8.0},
        "VideoCrafterDecode": {"samples": graph.latent, "vae": graph.vae, "frames_at_once": 4},
    }
    inputs["VideoCrafterCamera"] = {"move": "pan left", "with_move": "none", "length": 2, "speed": 1.0, "easing": "linear"}
    inputs["VideoCrafterDrawTrajectory"] = {"width": 16, "height": 16, "length": 2, "paths": "[[1, 2]]"}
    if node == "VideoCrafterShowMotion":
        tracks = out(graph.add("VideoCrafterDrawTrajectory", **inputs["VideoCrafterDrawTrajectory"]))
        inputs[node] = {"tracks": tracks, "trail": 0, "opacity": 1.0}
    images = {"images": out(graph.add("EmptyImage", width=16, height=16, batch_size=4, color=0))} if node not in inputs else {}
    if node == "VideoCrafterApplyCamera":
        save_file({"poses": torch.eye(3, 4, dtype=torch.float64).repeat(2, 1, 1)}, graph.input / "numbers_camera.st")
        camera = out(graph.add("TestCamera", file="numbers_camera.st"))
        more = {"trace_scale": 1.0, "conditioned_frame": 0, "seed": 0}
        inputs[node] = {"model": graph.model, "camera": camera, "latent": graph.latent, **more}
    if node == "VideoCrafterFreeInit":
        stops = {"spatial_stop": 0.2, "temporal_stop": 0.2}
        inputs[node] = {"sampler": out(graph.add("VideoCrafterDDIM", eta=1.0)), "iterations": 2, "filter": "box", "fast": False, **stops}
    both = {"positive": graph.text, "negative": graph.text}
    guided = {"model": graph.model, "positive": graph.positive, "negative": graph.negative}
    inputs["VideoCrafterStyleGuider"] = {**guided, "cfg": 1.0, "style_cfg": 1.0}
    inputs["VideoCrafterDepthToVideo"] = {**both, "depth": images.get("images"), "range": "clip", "strength": 1.0}
    inputs["VideoCrafterJoinClips"] = {**images, "length": 2, "match": False}
    inputs["VideoCrafterWarpedNoise"] = {**images, "noise_seed": 0, "strength": 1.0}
    inputs["VideoCrafterSaveVideo"] = {**images, "filename_prefix": "numbers", "fps": 8.0, "crf": 20.0}
    inputs["VideoCrafterFitVideo"] = {**images, "width": 16, "height": 16, "length": 2, "fps": 8.0, "start": 0.0, "source_fps": 8.0}
    measured = {"prompt": "", "fps": 8.0, "measures": "fast"}
    inputs["VideoCrafterEvaluate"] = {**images, **measured}
    inputs["VideoCrafterCompare"] = {"images_a": images.get("images"), "images_b": images.get("images"), **measured}
    return graph.add(node, **(inputs[node] | changes))


def shown(graph: TextGraph, node: str) -> None:
    """Make ComfyUI run a node that outputs something."""
    if graph.prompt[node]["class_type"] != "VideoCrafterSaveVideo":
        graph.add("PreviewAny", source=out(node))


@pytest.mark.parametrize("linked", LINKED)
def test_a_number_by_a_link(comfyui, graph, linked):
    """All nodes' numbers, one after the other."""
    start = dict(graph.prompt)
    for node, name in NUMBERS:
        if linked == "minus one" and name in BELOW_ZERO:
            continue
        graph.prompt = dict(start)
        number = graph.add("TestStrangeNumber", what=linked)
        shown(graph, added(graph, node, **{name: out(number)}))
        assert_fails(comfyui, graph, node, f"{name} is ", "; it must be a ", "number from ")


def test_a_widget_of_nan(comfyui, graph):
    """JSON in Python has NaN, and no comparison with a bound finds it."""
    start = dict(graph.prompt)
    whole = {  # ComfyUI refuses these
        "seed", "noise_seed", "start_timestep", "iterations", "order", "steps", "original_steps", "interval", "blocks", "width", "height",
        "length", "batch_size", "frames_at_once", "x", "y", "end_x", "end_y", "loop_count", "rank",
        "grad_accumulation_steps", "trail", "conditioned_frame", "edited_steps",
    }
    for node, name in [each for each in NUMBERS if each[1] not in whole]:
        graph.prompt = dict(start)
        shown(graph, added(graph, node, **{name: float("nan")}))
        assert_fails(comfyui, graph, node, f"{name} is nan; it must be a number from ")


def test_an_input_that_the_node_does_not_have(comfyui, graph):
    """ComfyUI passes on whatever is in a graph."""
    shown(graph, added(graph, "VideoCrafterDDIM", clip_vision=graph.clip_vision))
    assert_fails(comfyui, graph, "VideoCrafterDDIM", "This node has no input 'clip_vision'; it has eta.")


def test_sigmas_that_rise(comfyui, graph):
    sigmas = out(graph.add("VideoCrafterScheduler", model=graph.model, steps=3, denoise=1.0))
    flipped = out(graph.add("FlipSigmas", sigmas=sigmas))
    noise, sampler = out(graph.add("RandomNoise", noise_seed=0)), out(graph.add("VideoCrafterDDIM", eta=0.0))
    graph.add("TestSave", file="x", latent=graph.sample_custom(noise, sampler, flipped, cfg=1.0))
    assert_fails(comfyui, graph, "SamplerCustomAdvanced", "needs sigmas that fall", "FlipSigmas")


def test_no_steps_leave_the_start(comfyui, graph):
    """As with core's samplers."""
    sigmas = out(graph.add("VideoCrafterScheduler", model=graph.model, steps=4, denoise=1.0))
    last = out(graph.add("SplitSigmas", sigmas=sigmas, step=4), 1)
    noise = out(graph.add("RandomNoise", noise_seed=0))
    results = []
    for sampler in (graph.add("VideoCrafterDDIM", eta=0.0), graph.add("KSamplerSelect", sampler_name="euler")):
        sampled = graph.sample_custom(noise, out(sampler), last, cfg=1.0)
        start = dict(graph.prompt)
        results.append(graph.run(comfyui, latent=sampled)["latent"])
        graph.prompt = start
    assert results[0].equal(results[1])


@pytest.mark.parametrize("prompt", ["a (red:inf) swan", "a (red:nan) swan"])
def test_a_prompt_weight_that_is_no_number(comfyui, checkpoints, prompt):
    graph = TextGraph(f"{T2V}.safetensors", prompt, frames=2, size=16)
    graph.add("TestSave", file="x", latent=graph.sample(steps=1))
    assert_fails(comfyui, graph, "VideoCrafterSampler", "NaN or infinite numbers", "(red:inf)")
