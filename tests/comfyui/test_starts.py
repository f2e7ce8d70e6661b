"""CIL, ViewCrafter and FreeInit in a real ComfyUI: the recorded runs, the core's clips, and what is refused before sampling."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vc_core
from harness import golden_methods, goldens
from harness.bench import DYNAMICRAFTER, T2V, same_pixels
from harness.golden_methods import CIL, FREEINIT, VIEWCRAFTER, FreeInitRun, ImageRun
from harness.graphs import TextGraph, assert_fails, out
from tests.comfyui.recorded import LATENT_SCALE, frames_of
from vc_core.diffusion.initial_noise import read_statistics
from vc_core.media.images import fit_image

FILES = {CIL: "dynamicrafter_cil_512", VIEWCRAFTER: "viewcrafter_25"}
IMAGE_RUNS = [ImageRun(folder, run) for folder in golden_methods.recorded(CIL, VIEWCRAFTER) for run in golden_methods.runs(folder)]
FREEINIT_RUNS = [FreeInitRun(run) for run in golden_methods.runs(FREEINIT)]


@pytest.fixture(scope="module", autouse=True)
def files(checkpoints: Path) -> None:
    """The recorded models, by names that tell which they are; ViewCrafter's has no schedule."""
    for folder, name in FILES.items():
        goldens.write_checkpoint(folder, checkpoints / f"{name}.safetensors")
    for model in ("vc2", "no_scale"):
        goldens.recording(FREEINIT, model).write_checkpoint(checkpoints / f"freeinit_{model}.safetensors")


@pytest.fixture(scope="module", autouse=True)
def statistics(comfyui) -> Path:
    """The recorded statistics, in the folder of the models."""
    folder = comfyui.base / "models" / "videocrafter_initial_noise"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(goldens.FOLDER / CIL / "initial_noise.pt", folder / "initial_noise.pt")
    return folder / "initial_noise.pt"


def pictures(graph, comfyui, images, file):
    """An IMAGE of ``[B, 3, H, W]`` in [-1, 1], not rounded to eight bits."""
    save_file({"image": ((images.float() + 1) / 2).movedim(1, -1).contiguous()}, comfyui.base / "input" / file)
    return out(graph.add("TestImage", file=file))


def with_frames(graph, comfyui, images, file, **changes):
    """Sends the conditioning through VideoCrafter Frames to Video."""
    inputs = {"clip_vision": graph.clip_vision, "vae": graph.vae, "latent": graph.latent, "fps": 10.0, "strength": 1.0}
    node = graph.add(
        "VideoCrafterFramesToVideo", positive=graph.positive, negative=graph.negative, images=pictures(graph, comfyui, images, file),
        **(inputs | changes),
    )
    graph.positive, graph.negative = out(node, 0), out(node, 1)
    return node


def with_image(graph, comfyui, image, file, fps=8.0):
    """Sends the conditioning through VideoCrafter Image to Video."""
    node = graph.add(
        "VideoCrafterImageToVideo", positive=graph.positive, negative=graph.negative, clip_vision=graph.clip_vision, vae=graph.vae,
        latent=graph.latent, image=pictures(graph, comfyui, image, file), fps=fps, strength=1.0,
    )
    graph.positive, graph.negative = out(node, 0), out(node, 1)


def given(comfyui, file, noise):
    """Writes the start and the draws of a run for TestNoise and TestStepNoise."""
    save_file(
        {"noise": frames_of(noise.start), "steps": torch.stack([frames_of(each) for each in noise.step_noise])},
        comfyui.base / "input" / file,
    )


def custom(graph, sampler, sigmas, noise, cfg, rescale=0.0):
    """SamplerCustomAdvanced with both guidances alike."""
    both = {"positive": graph.positive, "negative": graph.negative, "cfg": cfg}
    if rescale:
        guider = graph.add("VideoCrafterGuider", model=graph.model, **both, image_cfg=cfg, guidance_rescale=rescale)
    else:
        guider = graph.add("CFGGuider", model=graph.model, **both)
    inputs = {"guider": out(guider), "sampler": sampler, "sigmas": sigmas, "noise": noise, "latent_image": graph.latent}
    return out(graph.add("SamplerCustomAdvanced", **inputs))


def assert_run(saved, latent, video=None):
    """The latent and, where it is recorded, the video."""
    assert goldens.error(saved["latent"] * LATENT_SCALE, frames_of(latent)) <= goldens.TOLERANCE
    if video is not None:
        assert goldens.pixel_error(saved["image"] * 2 - 1, video[0].permute(1, 2, 3, 0)) <= goldens.PIXEL_TOLERANCE


@pytest.mark.parametrize("run", IMAGE_RUNS, ids=lambda run: f"{run.folder}-{run.run}")
def test_the_recorded_runs_of_images(comfyui, run):
    settings, sampling, frames = run.settings, run.sampling, run.tensor("x_T").shape[2]
    graph = TextGraph(f"{FILES[run.folder]}.safetensors", settings["prompt"], frames=frames, fps=settings["fs"])
    file = f"{run.folder}_{run.run}"
    if run.folder == CIL:
        with_image(graph, comfyui, run.tensor("photo"), f"{file}_photo.st", float(settings["fs"]))
    else:
        shown = goldens.read(VIEWCRAFTER, "sampling")["frames"][0].movedim(1, 0)[:frames]
        with_frames(graph, comfyui, shown, f"{file}_frames.st", fps=float(settings["fs"]))
    # The latents that the reference drew of the images' posterior.
    save_file({"concat": frames_of(run.concat()) / LATENT_SCALE}, comfyui.base / "input" / f"{file}_concat.st")
    graph.positive, graph.negative = (
        out(graph.add("TestConcat", conditioning=each, file=f"{file}_concat.st")) for each in (graph.positive, graph.negative)
    )
    given(comfyui, f"{file}_noise.st", run.noise)
    ddim = graph.add("VideoCrafterDDIM", eta=settings["eta"])
    scheduler = graph.add(
        "VideoCrafterScheduler", model=graph.model, steps=settings["steps"], denoise=1.0, spacing=settings["spacing"],
        start_timestep=sampling["start_timestep"] or 1000,
    )
    sampled = custom(
        graph, out(graph.add("TestStepNoise", sampler=out(ddim), file=f"{file}_noise.st")), out(scheduler),
        out(graph.add("TestNoise", file=f"{file}_noise.st")), settings["cfg"], settings["rescale"],
    )
    video = run.tensor("video") if f"{run.run}.video" in goldens.read(run.folder, "sampling") else None
    assert_run(graph.run(comfyui, latent=sampled, image=graph.decode(sampled)), run.tensor("latent"), video)


@pytest.mark.parametrize("run", FREEINIT_RUNS, ids=lambda run: run.run)
def test_the_recorded_runs_of_freeinit(comfyui, run):
    settings, sampling, shape = run.settings, run.sampling, run.tensor("x_T").shape
    graph = TextGraph(f"freeinit_{settings['model']}.safetensors", settings["prompt"], frames=shape[2], fps=settings["fps"])
    graph.prompt[graph.latent[0]]["inputs"] |= {"height": 8 * shape[3], "width": 8 * shape[4]}
    given(comfyui, f"freeinit_{run.run}.st", run.noise)
    ddim = graph.add("TestStepNoise", sampler=out(graph.add("VideoCrafterDDIM", eta=settings["eta"])), file=f"freeinit_{run.run}.st")
    freeinit = graph.add(
        "VideoCrafterFreeInit", sampler=out(ddim), iterations=settings["iterations"], filter=settings["method"],
        spatial_stop=settings["d_s"], temporal_stop=settings["d_t"], fast=settings["use_fast_sampling"], order=sampling["freeinit_order"],
    )
    scheduler = graph.add("VideoCrafterScheduler", model=graph.model, steps=settings["steps"], denoise=1.0, spacing="uniform")
    noise = out(graph.add("TestNoise", file=f"freeinit_{run.run}.st"))
    sampled = custom(graph, out(freeinit), out(scheduler), noise, settings["guidance"])
    assert_run(graph.run(comfyui, latent=sampled, image=graph.decode(sampled)), run.tensor("latents")[-1], run.tensor("video"))


@pytest.mark.parametrize("deep_cache", [False, True])
def test_a_seed_gives_the_core_s_freeinit(comfyui, checkpoints, deep_cache):
    """Also two videos at once, with noise at each step; deep features are not kept from one iteration to the next."""
    graph = TextGraph(f"{T2V}.safetensors", goldens.PROMPTS[0], frames=4, videos=2)
    if deep_cache:
        graph.patch("VideoCrafterDeepCache", interval=3, blocks=1, start_percent=0.0, end_percent=1.0)
    ddim = graph.add("VideoCrafterDDIM", eta=1.0)
    freeinit = graph.add(
        "VideoCrafterFreeInit", sampler=out(ddim), iterations=3, filter="gaussian", spatial_stop=0.4, temporal_stop=0.3, fast=True
    )
    sigmas = out(graph.add("VideoCrafterScheduler", model=graph.model, steps=5, denoise=1.0))
    noise = out(graph.add("VideoCrafterInitialNoise", model=graph.model, statistics="none", noise_seed=7, start_timestep=1000))
    saved = graph.run(comfyui, image=graph.decode(custom(graph, out(freeinit), sigmas, noise, 7.0)))
    video = vc_core.load(checkpoints / f"{T2V}.safetensors").text_to_video(
        [goldens.PROMPTS[0]] * 2, frames=4, height=64, width=64, steps=5, guidance_scale=7.0, fps=8, seed=7, eta=1.0, spacing="uniform",
        freeinit_iterations=3, freeinit_filter="gaussian", freeinit_spatial_stop=0.4, freeinit_temporal_stop=0.3, freeinit_fast=True,
        deep_cache_interval=3 if deep_cache else 1, deep_cache_blocks=1,
    )
    same_pixels(saved["image"], video)


def test_one_iteration_is_the_sampler_alone(comfyui, checkpoints):
    """And so are a start at the last timestep and no statistics: to the bit."""
    made = []
    for node in (None, "VideoCrafterFreeInit"):
        graph = TextGraph(f"{T2V}.safetensors", goldens.PROMPTS[0], frames=4)
        sampler = out(graph.add("VideoCrafterDDIM", eta=1.0))
        start = {} if node is None else {"start_timestep": 1000}
        if node is not None:
            more = {"iterations": 1, "filter": "butterworth", "spatial_stop": 0.25, "temporal_stop": 0.25, "fast": False}
            sampler = out(graph.add(node, sampler=sampler, **more))
        sigmas = out(graph.add("VideoCrafterScheduler", model=graph.model, steps=4, denoise=1.0, **start))
        noise = out(graph.add("RandomNoise", noise_seed=5))
        made.append(graph.run(comfyui, latent=custom(graph, sampler, sigmas, noise, 7.0))["latent"])
    assert torch.equal(*made)
    made = []
    for more in ({}, {"start_timestep": 1000, "spacing": "auto"}, {"noise": "none"}):
        graph = TextGraph(f"{T2V}.safetensors", goldens.PROMPTS[0], frames=4)
        if "noise" in more:
            node = graph.add("VideoCrafterInitialNoise", model=graph.model, statistics="none", noise_seed=3, start_timestep=1000)
            more = {"noise": out(node)}
        made.append(graph.run(comfyui, latent=graph.sample(seed=3, **more))["latent"])
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde", "uni_pc"])
def test_core_s_samplers_in_freeinit(comfyui, checkpoints, sampler):
    """Finite, and another clip than in one iteration; sigmas of another spacing are thinned out for fast sampling."""
    made = []
    for iterations in (1, 2):
        graph = TextGraph(f"{T2V}.safetensors", goldens.PROMPTS[0], frames=4)
        inner = out(graph.add("KSamplerSelect", sampler_name=sampler))
        freeinit = graph.add(
            "VideoCrafterFreeInit", sampler=inner, iterations=iterations, filter="box", spatial_stop=0.5, temporal_stop=0.5, fast=True
        )
        sigmas = out(graph.add("BasicScheduler", model=graph.model, scheduler="karras", steps=4, denoise=1.0))
        noise = out(graph.add("RandomNoise", noise_seed=5))
        made.append(graph.run(comfyui, latent=custom(graph, out(freeinit), sigmas, noise, 4.0))["latent"])
    assert made[1].isfinite().all() and goldens.error(made[1], made[0]) > 0.05


def test_an_earlier_start_is_the_core_s(comfyui, checkpoints, statistics):
    """With the statistics as noise, in the one node of the authors' sampling."""
    photo = goldens.read(CIL, "sampling")["photo"].float()
    graph = TextGraph(f"{FILES[CIL]}.safetensors", goldens.PROMPTS[0], frames=8)
    with_image(graph, comfyui, photo, "cil_seed.st", 24.0)
    noise = graph.add("VideoCrafterInitialNoise", model=graph.model, statistics="initial_noise.pt", noise_seed=4, start_timestep=900)
    sampled = graph.sample(seed=4, steps=4, cfg=7.5, guidance_rescale=0.7, start_timestep=900, noise=out(noise), spacing="auto")
    saved = graph.run(comfyui, image=graph.decode(sampled))
    settings = {
        "frames": 8, "height": 64, "width": 64, "steps": 4, "guidance_scale": 7.5, "guidance_rescale": 0.7, "fps": 24, "seed": 4,
        "start_timestep": 900,
    }
    model = vc_core.load(checkpoints / f"{FILES[CIL]}.safetensors")
    analytic = model.image_to_video(photo, goldens.PROMPTS[0], initial_noise=read_statistics(statistics), **settings)
    same_pixels(saved["image"], analytic)
    assert goldens.error(model.image_to_video(photo, goldens.PROMPTS[0], **settings), analytic) > 0.05


def test_frames_to_video_is_the_core_s(comfyui, checkpoints):
    """25 frames, of another size than the video's; real images in place of the first and the last."""
    shown = goldens.read(VIEWCRAFTER, "sampling")["frames"][0].movedim(1, 0).float()
    views = torch.cat([shown.roll(3 * index, -1) for index in range(4)])[:25, :, 8:56]
    ends = shown[:2].flip(-1)
    graph = TextGraph(f"{FILES[VIEWCRAFTER]}.safetensors", "Rotating view of a scene", frames=25)
    names = ("first_image", "last_image")
    more = {name: pictures(graph, comfyui, end, f"{name}.st") for name, end in zip(names, ends.split(1), strict=True)}
    with_frames(graph, comfyui, views, "views.st", **more)
    saved = graph.run(comfyui, latent=graph.sample(seed=2, steps=3, cfg=7.5))
    model = vc_core.load(checkpoints / f"{FILES[VIEWCRAFTER]}.safetensors")
    fitted = fit_image((views + 1) / 2, 64, 64) * 2 - 1
    images = torch.cat([ends[:1], fitted[1:-1], ends[1:]]).movedim(0, 1)[None]
    both = model.image_conditioning(images[:, :, 0], None, "Rotating view of a scene", "", (25, 64, 64), images)
    latent = model.sample(*both, height=64, width=64, frames=25, steps=3, seed=2, guidance_rescale=0.0)
    assert goldens.error(saved["latent"] * LATENT_SCALE, frames_of(latent)) <= goldens.TOLERANCE


def test_what_is_refused_before_sampling(comfyui, checkpoints, statistics):
    shown = goldens.read(VIEWCRAFTER, "sampling")["frames"][0].movedim(1, 0).float()

    def text(checkpoint=f"{T2V}.safetensors", **settings):
        return TextGraph(checkpoint, "a", **({"frames": 4} | settings))

    for value, shown_value in ((0, "0"), (1001, "1001"), (-5, "-5")):
        for node in ("VideoCrafterScheduler", "VideoCrafterSampler", "VideoCrafterInitialNoise"):
            graph = text()
            inputs = {
                "VideoCrafterScheduler": {"steps": 4, "denoise": 1.0},
                "VideoCrafterInitialNoise": {"statistics": "none", "noise_seed": 0},
                "VideoCrafterSampler": {
                    "positive": graph.positive, "negative": graph.negative, "latent_image": graph.latent, "seed": 0, "steps": 2, "cfg": 1.0,
                    "eta": 1.0, "guidance_rescale": 0.0, "denoise": 1.0,
                },
            }[node]
            start = out(graph.add("PrimitiveInt", value=value))  # a link passes ComfyUI's own check of the bounds
            graph.add("PreviewAny", source=out(graph.add(node, model=graph.model, start_timestep=start, **inputs)))
            assert_fails(comfyui, graph, node, f"start_timestep is {shown_value}; it must be a whole number from 1 to 1000.")
    graph = text()
    graph.add("PreviewAny", source=graph.sample(steps=300, start_timestep=200, spacing="auto"))
    assert_fails(comfyui, graph, "VideoCrafterSampler", "steps is 300; it can be 1 to 200")
    graph = text()
    graph.add("PreviewAny", source=graph.sample(denoise=0.5, start_timestep=900, spacing="auto"))
    assert_fails(comfyui, graph, "VideoCrafterSampler", "start_timestep is 900 and denoise 0.5", "leave start_timestep at 1000")

    graph = text(frames=8, size=32)
    noise = graph.add("VideoCrafterInitialNoise", model=graph.model, statistics="initial_noise.pt", noise_seed=0, start_timestep=940)
    graph.add("PreviewAny", source=graph.sample(start_timestep=940, noise=out(noise), spacing="auto"))
    assert_fails(comfyui, graph, "VideoCrafterSampler", "8 frames of 64x64 pixels", "the clip has 8 of 32x32")

    graph = text(f"{FILES[VIEWCRAFTER]}.safetensors", frames=5)
    with_frames(graph, comfyui, shown, "wrong_count.st")
    graph.add("PreviewAny", source=graph.positive)
    assert_fails(comfyui, graph, "VideoCrafterFramesToVideo", "There are 8 images for a latent of 5 frames", "Set length")
    graph = text(f"{FILES[VIEWCRAFTER]}.safetensors", frames=8)
    with_frames(graph, comfyui, shown, "other_latent.st")
    graph.latent = out(graph.add("EmptyVideoCrafterLatent", width=64, height=64, length=4, batch_size=1))
    graph.add("PreviewAny", source=graph.sample())
    assert_fails(comfyui, graph, "VideoCrafterSampler", "placed in 8 frames, but 4 frames are sampled")

    graph = text(f"{DYNAMICRAFTER}.safetensors", frames=8)
    with_frames(graph, comfyui, shown, "wrong_model.st")
    graph.add("PreviewAny", source=graph.sample())
    assert_fails(comfyui, graph, "VideoCrafterSampler", "takes no image for every frame", "viewcrafter_25_v1")
    graph = text(f"{FILES[VIEWCRAFTER]}.safetensors", frames=8)
    with_image(graph, comfyui, shown[:1], "wrong_node.st")
    graph.add("PreviewAny", source=graph.sample())
    assert_fails(comfyui, graph, "VideoCrafterSampler", "takes an image for every frame: use VideoCrafter Frames to Video")
    graph = text(frames=8)
    graph.clip_vision = out(graph.add("VideoCrafterLoader", ckpt_name=f"{FILES[CIL]}.safetensors", weight_dtype="default"), 3)
    with_frames(graph, comfyui, shown, "text_model.st")
    graph.add("PreviewAny", source=graph.sample())
    assert_fails(comfyui, graph, "VideoCrafterSampler", "takes no image")


def test_what_freeinit_refuses(comfyui, checkpoints):
    def frei(graph, sigmas, latent=None):
        inner = out(graph.add("VideoCrafterDDIM", eta=1.0))
        more = {"iterations": 2, "filter": "butterworth", "spatial_stop": 0.25, "temporal_stop": 0.25, "fast": False}
        graph.latent = latent or graph.latent
        noise = out(graph.add("RandomNoise", noise_seed=0))
        graph.add("PreviewAny", source=custom(graph, out(graph.add("VideoCrafterFreeInit", sampler=inner, **more)), sigmas, noise, 1.0))

    graph = TextGraph(f"{FILES[CIL]}.safetensors", "a", frames=4)
    with_image(graph, comfyui, goldens.read(CIL, "sampling")["photo"], "freeinit_photo.st")
    frei(graph, out(graph.add("VideoCrafterScheduler", model=graph.model, steps=2, denoise=1.0)))
    assert_fails(comfyui, graph, "SamplerCustomAdvanced", "zero terminal SNR", "set start_timestep below 1000, such as 940")
    graph = TextGraph(f"{T2V}.safetensors", "a", frames=4)
    split = graph.add(
        "SplitSigmas", sigmas=out(graph.add("VideoCrafterScheduler", model=graph.model, steps=4, denoise=1.0)), step=2
    )
    frei(graph, out(split, 0))
    assert_fails(comfyui, graph, "SamplerCustomAdvanced", "these sigmas do not end at 0")
    graph = TextGraph(f"{T2V}.safetensors", "a", frames=4)
    filled = graph.sample(steps=1, cfg=1.0)
    frei(graph, out(graph.add("VideoCrafterScheduler", model=graph.model, steps=2, denoise=1.0)), filled)
    assert_fails(comfyui, graph, "SamplerCustomAdvanced", "starts from an empty latent")
