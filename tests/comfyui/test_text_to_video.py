"""The nodes in a real ComfyUI give what the core and the reference give."""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vc_core
from harness import golden_contents, goldens
from harness.bench import same_pixels
from harness.client import Progress, files_of
from harness.comfyui import REPOSITORY
from harness.graph import to_prompt
from harness.graphs import Graph, TextGraph, assert_fails, out
from harness.server import Server
from tests.comfyui.recorded import LATENT_SCALE, assert_recorded, frames_of, recorded_sampling, runs, settings_of
from vc_core.diffusion.noise import RecordedNoise
from vc_core.family.bundled import bundled_models

BUNDLED = "videocrafter_tiny_t2v"
PROMPT = goldens.PROMPTS[0]
#: All models; those after the first are long tests.
FIRST_OF_ALL = [pytest.param(name, marks=[pytest.mark.full] if index else []) for index, name in enumerate(goldens.TEXT_TO_VIDEO)]


def recorded_noise(comfyui: Server, graph: Graph, noise: torch.Tensor, file: str) -> list[object]:
    """A NOISE of these values ``[1, C, T, h, w]``. ComfyUI caches results by their inputs, so each noise needs a file of its own."""
    save_file({"noise": frames_of(noise)}, comfyui.base / "input" / file)
    return out(graph.add("TestNoise", file=file))


@pytest.mark.parametrize("name", FIRST_OF_ALL)
@pytest.mark.parametrize("settings", [{"eta": 1.0}, {"eta": 0.5, "guidance_rescale": 0.7, "cfg": 5.0}, {"eta": 0.0, "cfg": 1.0}])
def test_a_seed_gives_the_core_s_video(comfyui, checkpoints, name, settings):
    graph = TextGraph(f"{name}.safetensors", PROMPT)
    sampled = graph.sample(seed=7, steps=6, **settings)
    saved = graph.run(comfyui, image=graph.decode(sampled))
    core = {"cfg": "guidance_scale"}
    video = vc_core.load(checkpoints / f"{name}.safetensors").text_to_video(
        PROMPT, frames=8, height=64, width=64, steps=6, fps=8, seed=7, **{core.get(key, key): value for key, value in settings.items()}
    )
    same_pixels(saved["image"], video)


@pytest.mark.parametrize("name, run", runs(*goldens.TEXT_TO_VIDEO))
def test_the_reference_s_runs(comfyui, checkpoints, name, run):
    """From their recorded noise, through core's custom sampler."""
    settings, (prompt, *_, negative) = settings_of(name, run), goldens.prompts(name)
    graph = TextGraph(f"{name}.safetensors", prompt, negative, fps=settings.fps)
    sampled = graph.sample_custom(cfg=settings.guidance_scale, **recorded_sampling(comfyui, graph, name, run))
    assert_recorded(name, run, graph.run(comfyui, latent=sampled, image=graph.decode(sampled)))


@pytest.mark.parametrize("name", [name for name in goldens.TEXT_TO_VIDEO if goldens.recording(name).has("sampling")])
def test_core_s_euler_ends_at_ddim_s_last_prediction(comfyui, checkpoints, name):
    """Without added noise DDIM is Euler's method in ComfyUI's variable, where the sample scale is right."""
    golden, schedule, steps = goldens.read(name, "sampling"), goldens.read(name, "schedule"), 10
    noise = golden[f"{golden_contents.runs(goldens.recording(name))[0]}.x_T"]
    # ComfyUI noises to the first sigma, the authors start with the noise itself: at that timestep a little more.
    start = noise / (1 - schedule[f"{steps}.0.0.alphas"][-1]).sqrt()
    graph = TextGraph(f"{name}.safetensors", PROMPT, fps=8.0)
    start_noise = recorded_noise(comfyui, graph, start, f"{name}_euler.st")
    sigmas = out(graph.add("VideoCrafterScheduler", model=graph.model, steps=steps, denoise=1.0))
    sampled = graph.sample_custom(start_noise, out(graph.add("KSamplerSelect", sampler_name="euler")), sigmas, 7.5)
    saved = graph.run(comfyui, latent=sampled)
    predicted = []
    vc_core.load(checkpoints / f"{name}.safetensors").text_to_video(
        PROMPT,
        steps=steps,
        eta=0.0,
        guidance_scale=7.5,
        fps=8,
        noise=RecordedNoise(noise, [noise] * steps),
        callback=lambda step, steps, x0, x: predicted.append(x0),
    )
    assert goldens.error(saved["latent"] * LATENT_SCALE, frames_of(predicted[-1])) <= goldens.RUN_TOLERANCE


def test_a_split_run_is_one_run(comfyui, checkpoints):
    graph = TextGraph("t2v_512_v2.safetensors", PROMPT)
    noise = out(graph.add("RandomNoise", noise_seed=3))
    ddim = out(graph.add("VideoCrafterDDIM", eta=0.0))
    sigmas = out(graph.add("VideoCrafterScheduler", model=graph.model, steps=6, denoise=1.0))
    whole = graph.sample_custom(noise, ddim, sigmas, 5.0)
    split = graph.add("SplitSigmas", sigmas=sigmas, step=3)
    blank, half = graph.latent, graph.sample_custom(noise, ddim, out(split, 0), 5.0)
    graph.latent = half
    rest = graph.sample_custom(out(graph.add("DisableNoise")), ddim, out(split, 1), 5.0)
    assert blank != half
    joined = Graph()
    joined.prompt = {key: dict(value) for key, value in graph.prompt.items()}
    one = joined.run(comfyui, latent=whole)["latent"]
    two = graph.run(comfyui, latent=rest)["latent"]
    assert goldens.error(two, one) <= goldens.TOLERANCE


def test_two_videos_in_a_batch_are_the_core_s_two(comfyui, checkpoints):
    graph = TextGraph("t2v_512_v2.safetensors", PROMPT, frames=4, videos=2)
    saved = graph.run(comfyui, image=graph.decode(graph.sample(seed=2, steps=3)))
    video = vc_core.load(checkpoints / "t2v_512_v2.safetensors").text_to_video(
        [PROMPT, PROMPT], frames=4, height=64, width=64, steps=3, fps=8, seed=2
    )
    assert saved["image"].shape[0] == 8
    same_pixels(saved["image"], video)


def test_a_long_prompt_is_the_core_s(comfyui, checkpoints):
    prompt = " ".join(f"swan number {index} in the pond" for index in range(60))
    graph = TextGraph("t2v_512_v1.safetensors", prompt)
    saved = graph.run(comfyui, conditioning=graph.text)["conditioning"]
    core = vc_core.load(checkpoints / "t2v_512_v1.safetensors").encode_text([prompt])
    assert core.shape[1] > 300
    assert goldens.error(saved, core) <= goldens.TOLERANCE


@pytest.mark.parametrize(
    "sampler, scheduler", [("euler", "normal"), ("dpmpp_2m", "karras"), ("ddim", "ddim_uniform"), ("lcm", "sgm_uniform")]
)
def test_core_s_ksampler_and_decoder(comfyui, checkpoints, sampler, scheduler):
    graph = TextGraph("t2v_512_v2.safetensors", PROMPT)
    inputs = {"model": graph.model, "positive": graph.positive, "negative": graph.negative, "latent_image": graph.latent}
    settings = {"seed": 1, "steps": 4, "cfg": 3.0, "sampler_name": sampler, "scheduler": scheduler, "denoise": 1.0}
    sampled = out(graph.add("KSampler", **inputs, **settings))
    both = graph.decode(sampled), out(graph.add("VAEDecode", samples=sampled, vae=graph.vae))
    ours = Graph()
    ours.prompt = dict(graph.prompt)
    first, second = ours.run(comfyui, image=both[0])["image"], graph.run(comfyui, image=both[1])["image"]
    assert first.shape == (8, 64, 64, 3) and first.isfinite().all() and first.std() > 0.01
    assert (first - second).abs().max() <= 1e-4


@pytest.mark.parametrize("name", goldens.TEXT_TO_VIDEO)
def test_weights_in_eight_bits_are_close(comfyui, checkpoints, name):
    """e4m3 keeps 3 bits of a weight after its first, e5m2 2: the further from the file's, the fewer."""
    latents = []
    for weight_dtype in ("default", "fp8_e4m3fn", "fp8_e5m2"):
        graph = TextGraph(f"{name}.safetensors", PROMPT, weight_dtype=weight_dtype)
        latents.append(graph.run(comfyui, latent=graph.sample(steps=3, cfg=1.0))["latent"])
    away = [((latent - latents[0]).std() / latents[0].std()).item() for latent in latents[1:]]
    assert 0 < away[0] < away[1] < 0.25


def test_the_workflow_as_it_is_shipped(comfyui, object_info):
    """Queued as the web interface would; progress is reported; the saved files open."""
    saved = json.loads((REPOSITORY / "workflows" / "text_to_video.json").read_text())
    steps: list[Progress] = []
    files = files_of(comfyui.run(to_prompt(saved, object_info), on_progress=steps.append))
    assert max(progress.value for progress in steps if progress.maximum == 25) == 25
    assert {Path(file["filename"]).suffix for file in files} == {".mp4", ".webp"}
    for file in files:
        content = io.BytesIO(comfyui.view(file))
        if file["filename"].endswith(".mp4"):
            with av.open(content) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert len(frames) == 16 and frames[0].shape == (64, 64, 3)
        else:
            image = Image.open(content)
            assert image.n_frames == 16 and image.size == (64, 64)


def test_the_bundled_model_is_listed_first_and_gives_the_core_s_video(comfyui, object_info):
    listed = object_info["VideoCrafterLoader"]["input"]["required"]["ckpt_name"]
    options = listed[1]["options"] if listed[0] == "COMBO" else listed[0]
    assert options[0] == f"{BUNDLED} (bundled)" and BUNDLED in bundled_models()
    prompt = "a blue square moving left"
    graph = TextGraph(f"{BUNDLED} (bundled)", prompt, frames=16)
    saved = graph.run(comfyui, image=graph.decode(graph.sample(seed=1, steps=10, cfg=6.0)))
    video = vc_core.load(BUNDLED).text_to_video(prompt, height=64, width=64, steps=10, guidance_scale=6.0, fps=8, seed=1)
    same_pixels(saved["image"], video)


class TestErrors:
    """Each names what is wrong and what to do, at the node that caused it."""

    def test_no_such_file(self, comfyui):
        graph = TextGraph("not_there.safetensors", PROMPT)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterLoader", "not_there.safetensors")

    @pytest.mark.parametrize(
        "name, content, message",
        [
            ("page.ckpt", b"<!DOCTYPE html><html>sign in</html>", "page.ckpt"),
            ("empty.safetensors", b"", "empty"),
        ],
    )
    def test_no_model(self, comfyui, name, content, message):
        (comfyui.checkpoints / name).write_bytes(content)
        graph = TextGraph(name, PROMPT)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterLoader", message)

    def test_a_model_of_another_family(self, comfyui):
        weights = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}
        save_file(weights, comfyui.checkpoints / "sd.safetensors")
        graph = TextGraph("sd.safetensors", PROMPT)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterLoader", "sd.safetensors", "without temporal transformers", "VideoCrafter family")

    def test_a_file_without_its_encoders(self, comfyui):
        weights = {name: value for name, value in goldens.weights("t2v_512_v2").items() if name.startswith("model.")}
        save_file(weights, comfyui.checkpoints / "unet.safetensors")
        graph = TextGraph("unet.safetensors", PROMPT)
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "CLIPTextEncode", "unet.safetensors holds no text encoder", "CLIPLoader")

    @pytest.mark.parametrize(
        "width, length, parts",
        [
            (20, 8, ["width is 20", "16 or 24"]),
            (64, 0, ["length", "0"]),
            (0, 8, ["width is 0", "8 to 4096"]),
            (-64, 8, ["width is -64", "8 to 4096"]),
            (1e300, 8, ["width is 1000", "8 to 4096"]),
        ],
    )
    def test_sizes(self, comfyui, width, length, parts):
        graph = Graph()
        latent = graph.add("EmptyVideoCrafterLatent", width=width, height=64, length=length, batch_size=1)
        graph.add("TestSave", file="x", latent=out(latent))
        assert_fails(comfyui, graph, "EmptyVideoCrafterLatent", *parts)

    def test_more_steps_than_there_are(self, comfyui, checkpoints):
        graph = TextGraph("t2v_512_v2.safetensors", PROMPT)
        graph.add("TestSave", file="x", latent=graph.sample(steps=50, denoise=0.02))
        assert_fails(comfyui, graph, "VideoCrafterSampler", "denoise of 0.02", "part of 2500", "fewer steps")

    def test_frames_that_make_no_complete_videos(self, comfyui, checkpoints):
        graph = TextGraph("t2v_512_v2.safetensors", PROMPT, frames=4, videos=2)
        graph.latent = out(graph.add("LatentFromBatch", samples=graph.latent, batch_index=0, length=7))
        graph.add("TestSave", file="x", latent=graph.sample())
        assert_fails(comfyui, graph, "VideoCrafterSampler", "different lengths, 3 and 4 frames")
