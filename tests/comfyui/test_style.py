"""StyleCrafter in a real ComfyUI: the recorded runs, off at a strength of 0, and a style for each frame, also in windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness import golden_methods, golden_style, goldens
from harness.golden_style import FOLDER, StyleRun
from harness.graphs import TextGraph, assert_fails, out
from tests.comfyui.recorded import LATENT_SCALE, frames_of
from vc_core.diffusion.noise import SeededNoise
from vc_core.style import style_square

RUNS = golden_methods.runs(FOLDER)
BASE, TEMPORAL, ADAPTER = "style_t2v_512_v1.safetensors", "style_temporal.pth", "adapter_v1.safetensors"
TOWER = "style_i2v_512_v1.safetensors"
pytestmark = pytest.mark.skipif(not RUNS, reason="not recorded")


@pytest.fixture(scope="module", autouse=True)
def files(comfyui, checkpoints: Path) -> None:
    golden_style.write("checkpoint", checkpoints / BASE)
    golden_style.write("temporal", checkpoints / TEMPORAL)
    folder = comfyui.base / "models" / "videocrafter_adapters"
    folder.mkdir(parents=True, exist_ok=True)
    golden_style.write("adapter", folder / ADAPTER)
    tower = {f"embedder.model.{name}": tensor for name, tensor in golden_style.weights("open_clip").items()}
    save_file(goldens.weights("i2v_512_v1") | tower, checkpoints / TOWER)


def graph_of(frames, size=(64, 64), prompt="a wolf", temporal=True, negative=""):
    graph = TextGraph(TEMPORAL if temporal else BASE, prompt, negative=negative, frames=frames)
    loader = graph.prompt[graph.model[0]]["inputs"]
    if temporal:
        loader["base"] = BASE
    graph.prompt[graph.latent[0]]["inputs"] |= {"height": size[0], "width": size[1]}
    return graph


def pictures(graph, comfyui, numbers):
    """An IMAGE of style images; of several, which differ in size, the squares that the core cuts of them."""
    images = [golden_style.picture(number) for number in numbers]
    batch = torch.stack([style_square(image) for image in images] if len(images) > 1 else images)
    file = f"style_{'_'.join(map(str, numbers))}.st"
    save_file({"image": ((batch + 1) / 2).movedim(1, -1).contiguous()}, comfyui.base / "input" / file)
    return out(graph.add("TestImage", file=file))


def styled(graph, comfyui, numbers, strength=1.0, **more):
    """Sends the model through VideoCrafter Style. The image tower is in a file of an image-to-video model."""
    tower = out(graph.add("VideoCrafterLoader", ckpt_name=TOWER, weight_dtype="default"), 3)
    images = pictures(graph, comfyui, numbers)
    graph.patch("VideoCrafterStyle", adapter_name=ADAPTER, clip_vision=tower, images=images, strength=strength, **more)


@pytest.mark.parametrize("number", RUNS)
def test_the_recorded_runs(comfyui, number):
    run, settings = StyleRun(number), StyleRun(number).settings
    size = [8 * side for side in run.tensor("x_T").shape[-2:]]
    graph = graph_of(settings["frames"], size, settings["prompt"], temporal=not run.still)
    styled(graph, comfyui, settings["pictures"], settings["style_weight"], still=run.still)
    noise, file = run.noise, f"style_{number}_noise.st"
    save_file(
        {"noise": frames_of(noise.start), "steps": torch.stack([frames_of(each) for each in noise.step_noise])},
        comfyui.base / "input" / file,
    )
    ddim = graph.add("TestStepNoise", sampler=out(graph.add("VideoCrafterDDIM", eta=settings["eta"])), file=file)
    sigmas = graph.add("VideoCrafterScheduler", model=graph.model, steps=settings["steps"], denoise=1.0, spacing="uniform")
    both = {"model": graph.model, "positive": graph.positive, "negative": graph.negative, "cfg": settings["guidance"]}
    if settings["style_guidance"] is None:
        guider = graph.add("CFGGuider", **both)
    else:
        guider = graph.add("VideoCrafterStyleGuider", **both, style_cfg=settings["style_guidance"])
    sampled = out(
        graph.add(
            "SamplerCustomAdvanced", guider=out(guider), sampler=out(ddim), sigmas=out(sigmas), latent_image=graph.latent,
            noise=out(graph.add("TestNoise", file=file)),
        )
    )
    saved = graph.run(comfyui, latent=sampled, image=graph.decode(sampled))
    assert goldens.error(saved["latent"] * LATENT_SCALE, frames_of(run.tensor("latent"))) <= goldens.TOLERANCE
    assert goldens.pixel_error(saved["image"] * 2 - 1, run.tensor("video")[0].permute(1, 2, 3, 0)) <= goldens.PIXEL_TOLERANCE


def test_with_a_strength_of_0_it_is_the_model_to_the_bit(comfyui):
    found = []
    for strength in (None, 0.0, 1.0):
        graph = graph_of(3)
        if strength is not None:
            styled(graph, comfyui, [0], strength)
        found.append(graph.run(comfyui, latent=graph.sample(steps=2))["latent"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_in_windows_each_frame_has_the_style_of_its_image(comfyui):
    """A pass in two windows is a pass of each half with its own images."""
    numbers, halves = [0, 1, 2, 3], []
    whole = graph_of(4)
    styled(whole, comfyui, numbers, several="one for each frame")
    whole.patch(
        "ContextWindowsManual", context_length=2, context_overlap=0, context_schedule="standard_static", context_stride=1,
        closed_loop=False, fuse_method="pyramid", dim=0, freenoise=False, cond_retain_index_list="",
        split_conds_to_windows=False, latent_retain_index_list="", causal_window_fix=True,
    )
    made = whole.run(comfyui, latent=whole.sample(steps=1, cfg=1.0, eta=0.0))["latent"]
    noise = frames_of(SeededNoise((1, 4, 4, 8, 8), 0).start)
    for part in (slice(0, 2), slice(2, 4)):
        graph = graph_of(2)
        styled(graph, comfyui, numbers[part], several="one for each frame")
        file = f"style_half_{part.start}.st"
        save_file({"noise": noise[part].contiguous()}, comfyui.base / "input" / file)
        sigmas = graph.add("VideoCrafterScheduler", model=graph.model, steps=1, denoise=1.0, spacing="uniform")
        drawn, ddim = out(graph.add("TestNoise", file=file)), out(graph.add("VideoCrafterDDIM", eta=0.0))
        halves.append(graph.run(comfyui, latent=graph.sample_custom(drawn, ddim, out(sigmas), 1.0))["latent"])
    assert goldens.error(made, torch.cat(halves)) <= goldens.TOLERANCE


def test_another_number_of_styles_than_of_frames_is_refused(comfyui):
    graph = graph_of(3)
    styled(graph, comfyui, [0, 1], several="one for each frame")
    graph.add("PreviewAny", source=graph.sample(steps=1))
    assert_fails(comfyui, graph, "VideoCrafterSampler", "2 style images", "3 frames")
