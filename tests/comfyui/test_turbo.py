"""T2V-Turbo in a real ComfyUI: its files, the recorded runs, the scales of guidance, and the settings of VideoCrafter Sampler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file

import vc_core
from harness import golden_turbo, goldens
from harness.bench import same_pixels
from harness.golden_turbo import DRAWN, V1, V2, ZERO
from harness.graphs import TextGraph, assert_fails, out
from harness.server import Server
from tests.comfyui.recorded import LATENT_SCALE, frames_of

#: By whether the base has the layer of guidance, as the server's files are called.
BASES = {DRAWN: "turbo_base.safetensors", ZERO: "videocrafter2_base.safetensors"}
UNET, LIST = "turbo_v2_unet.safetensors", "turbo_v1_list.pt"
PROMPT = goldens.PROMPTS[0]
RUNS = [(name, run) for name in goldens.models(goldens.TURBO) for run in golden_turbo.runs(goldens.recording(name))]


@pytest.fixture(scope="module")
def turbo(comfyui: Server) -> Server:
    """The server with T2V-Turbo's files as they are published: a UNet under bare names, a list, and the models that they are used with."""
    v1, v2 = goldens.recording(V1), goldens.recording(V2)
    for base, name in BASES.items():
        golden_turbo.write_base(v1, comfyui.checkpoints / name, drawn=base == DRAWN)
    list_file = golden_turbo.write_list(v1, comfyui.checkpoints / LIST)
    (comfyui.checkpoints / LIST).write_bytes(list_file.read_bytes())
    whole = v2.weights
    others = {name: weight for name, weight in whole.items() if name.startswith(("first_stage_model.", "cond_stage_model."))}
    save_file({name: weight for name, weight in whole.items() if name not in others}, comfyui.checkpoints / UNET)
    # Version 2 is used with another UNet's file, whose encoders it takes.
    unet = {name: weight for name, weight in v1.weights.items() if name.startswith("model.diffusion") and name != golden_turbo.GUIDANCE}
    save_file(others | unet, comfyui.checkpoints / "videocrafter2_for_v2.safetensors")
    return comfyui


class TurboGraph(TextGraph):
    """A text graph with a model in two files."""

    def __init__(self, name: str = V2, base: str = DRAWN, prompt: str = PROMPT, negative: str = "", **settings: Any) -> None:
        conditions = {key: settings.pop(key) for key in ("guidance", "motion_guidance", "motion_share") if key in settings}
        super().__init__(LIST if name == V1 else UNET, prompt, negative, **settings)
        self.prompt["1"]["inputs"]["base"] = BASES[base] if name == V1 else "videocrafter2_for_v2.safetensors"
        self.conditioning["inputs"].update(conditions)

    @property
    def conditioning(self) -> dict[str, Any]:
        return self.prompt[self.positive[0]]

    def consistency(self, noise: list[Any], steps: int, original_steps: int = 200) -> list[Any]:
        sigmas = out(self.add("VideoCrafterScheduler", model=self.model, steps=steps, denoise=1.0, original_steps=original_steps))
        return self.sample_custom(noise, out(self.add("VideoCrafterConsistency")), sigmas, 1.0)


def core(name: str = V2) -> vc_core.VideoModel:
    return golden_turbo.load(name)


def logged(comfyui: Server, start: int) -> str:
    return comfyui.log.read_text(encoding="utf-8", errors="replace")[start:]


def seeded(graph: TurboGraph, seed: int = 0) -> list[Any]:
    return out(graph.add("RandomNoise", noise_seed=seed))


@pytest.mark.parametrize("name, run", RUNS)
@pytest.mark.parametrize("sampler", ["VideoCrafterConsistency", "lcm"])
def test_the_reference_s_runs(turbo, name, run, sampler):
    """Through core's custom sampler; core's lcm, without the boundary's scalings, is nearly the same."""
    golden, described = goldens.read(name, "sampling"), golden_turbo.settings(goldens.recording(name), run)
    x_T, noise = golden[f"{run}.x_T"], golden[f"{run}.noise"][:, None]
    scales = {"guidance": described["guidance"], "motion_guidance": -1.0}
    if described.get("use_motion"):
        scales |= {"motion_guidance": described["motion"], "motion_share": described["percentage"]}
    frames, height = x_T.shape[2], x_T.shape[3]
    graph = TurboGraph(
        name, described.get("base_time_cond_proj", DRAWN), described["prompt"], fps=float(described["fps"]), frames=frames, size=8 * height,
        **scales,
    )  # fmt: skip
    graph.prompt[graph.latent[0]]["inputs"]["width"] = 8 * x_T.shape[4]
    steps = {"steps": described["steps"], "original_steps": described["origin_steps"]}
    sigmas = out(graph.add("VideoCrafterScheduler", model=graph.model, denoise=1.0, **steps))
    file = f"{name}_{run}_{sampler}.st"
    save_file({"noise": frames_of(x_T), "steps": frames_of(noise)}, turbo.base / "input" / file)
    if sampler == "lcm":
        chosen = graph.add("TestNoiseSampler", sampler=out(graph.add("KSamplerSelect", sampler_name="lcm")), file=file)
    else:
        chosen = graph.add("TestStepNoise", sampler=out(graph.add(sampler)), file=file)
    sampled = graph.sample_custom(out(graph.add("TestNoise", file=file)), out(chosen), sigmas, 1.0)
    saved = graph.run(turbo, latent=sampled, image=graph.decode(sampled))
    assert goldens.error(saved["latent"] * LATENT_SCALE, frames_of(golden[f"{run}.latent"])) <= goldens.TOLERANCE
    if f"{run}.video" in golden:
        video = rearrange(golden[f"{run}.video"], "b c t h w -> (b t) h w c")
        assert goldens.pixel_error(saved["image"] * 2 - 1, video) <= goldens.PIXEL_TOLERANCE


def test_the_model_s_settings_give_the_core_s_video(turbo):
    """Whatever is set: 50 steps and cfg 12 are a new node's. Steps, sampler and scales are the configuration's."""
    graph = TurboGraph(frames=4, size=32)
    saved = graph.run(turbo, image=graph.decode(graph.sample(seed=7, steps=50, cfg=12.0, settings="the model's")))
    video = core().text_to_video(PROMPT, frames=4, height=32, width=32, fps=8, seed=7)
    assert core().config.sampling.steps == 8 and core().config.sampling.sampler == "consistency"
    same_pixels(saved["image"], video)


def test_the_model_s_sampler_takes_the_steps_that_are_set(turbo):
    """Any number of them, as the core; an ordinary model's sampler is DDIM, so that nothing changes."""
    graph = TurboGraph(frames=4, size=32)
    saved = graph.run(turbo, image=graph.decode(graph.sample(seed=7, steps=3, cfg=1.0, settings="the model's sampler")))
    same_pixels(saved["image"], core().text_to_video(PROMPT, frames=4, height=32, width=32, fps=8, seed=7, steps=3))


def test_an_earlier_start_and_its_noise_act_with_the_model_s_settings(turbo):
    graph = TurboGraph(frames=4, size=32)
    noise = graph.add("VideoCrafterInitialNoise", model=graph.model, statistics="none", noise_seed=7, start_timestep=900)
    more = {"settings": "the model's", "start_timestep": 900, "noise": out(noise), "spacing": "auto"}
    saved = graph.run(turbo, image=graph.decode(graph.sample(seed=7, steps=50, cfg=12.0, **more)))
    video = core().text_to_video(PROMPT, frames=4, height=32, width=32, fps=8, seed=7, start_timestep=900)
    same_pixels(saved["image"], video)


@pytest.mark.parametrize("fast", [False, True])
def test_freeinit_around_consistency_sampling(turbo, fast):
    """The core's video by the seed; with fast sampling 5 steps are 1, 3 and 5 of the solver's."""
    graph = TurboGraph(frames=4, size=32)
    freeinit = graph.add(
        "VideoCrafterFreeInit", sampler=out(graph.add("VideoCrafterConsistency")), iterations=3, filter="butterworth", spatial_stop=0.25,
        temporal_stop=0.25, fast=fast,
    )  # fmt: skip
    noise = graph.add("VideoCrafterInitialNoise", model=graph.model, statistics="none", noise_seed=7, start_timestep=1000)
    sigmas = graph.add("VideoCrafterScheduler", model=graph.model, steps=5, denoise=1.0)
    saved = graph.run(turbo, image=graph.decode(graph.sample_custom(out(noise), out(freeinit), out(sigmas), 1.0)))
    video = core().text_to_video(
        PROMPT, frames=4, height=32, width=32, fps=8, seed=7, steps=5, freeinit_iterations=3, freeinit_fast=fast
    )
    same_pixels(saved["image"], video)


def test_settings_of_saved_graphs_are_as_set(turbo):
    """A graph without the input samples as it always did, whatever the model."""
    results = []
    for settings in ({}, {"settings": "as set"}):
        graph = TurboGraph(frames=2, size=16)
        results.append(graph.run(turbo, latent=graph.sample(seed=3, steps=2, cfg=2.0, **settings))["latent"])
    assert results[0].equal(results[1])
    settings = {"seed": 3, "steps": 2, "guidance_scale": 2.0, "eta": 1.0, "sampler": "ddim"}
    expected = core().text_to_video(PROMPT, frames=2, height=16, width=16, fps=8, **settings)
    graph = TurboGraph(frames=2, size=16)
    same_pixels(graph.run(turbo, image=graph.decode(graph.sample(seed=3, steps=2, cfg=2.0)))["image"], expected)


@pytest.mark.parametrize("steps, cfg, parts", [(50, 1.0, ["50 steps are set"]), (4, 12.0, ["The CFG scale is 12", "two passes"])])
def test_settings_for_other_models_are_warned_of(turbo, steps, cfg, parts):
    graph, start = TurboGraph(frames=2, size=16), len(logged(turbo, 0))
    graph.add("TestSave", file="x", latent=graph.sample(steps=steps, cfg=cfg))
    turbo.run(graph.prompt)
    log = logged(turbo, start)
    assert all(part in log for part in [*parts, "The sampler is ddim", "Choose settings: the model's"]), log


def test_the_model_s_settings_are_not_warned_of(turbo):
    graph, start = TurboGraph(frames=2, size=16), len(logged(turbo, 0))
    graph.add("TestSave", file="x", latent=graph.sample(steps=50, cfg=12.0, settings="the model's"))
    turbo.run(graph.prompt)
    log = logged(turbo, start)
    assert "distilled for" not in log and "CFG scale is" not in log
    assert "the negative conditioning is not read" in log


def test_a_cfg_scale_is_honoured_and_at_1_the_negative_is_not_read(turbo):
    latents = {}
    for cfg, negative in ((5.0, "red"), (5.0, "blue"), (1.0, "red"), (1.0, "blue")):
        graph = TurboGraph(negative=negative, frames=2, size=16)
        latents[cfg, negative] = graph.run(turbo, latent=graph.sample(steps=2, cfg=cfg))["latent"]
    assert latents[1.0, "red"].equal(latents[1.0, "blue"])
    assert not latents[5.0, "red"].equal(latents[5.0, "blue"]) and not latents[5.0, "red"].equal(latents[1.0, "red"])


def test_guidance_travels_under_core_s_key(turbo):
    """FluxGuidance and our input give the same; without either the model's own is taken; our input's 0 leaves FluxGuidance's."""

    def latent(flux: float | None, ours: float | None) -> torch.Tensor:
        graph = TurboGraph(frames=2, size=16, **({} if ours is None else {"guidance": ours}))
        if flux is not None:
            guided = graph.add("FluxGuidance", conditioning=graph.conditioning["inputs"]["positive"], guidance=flux)
            graph.conditioning["inputs"]["positive"] = out(guided)
        return graph.run(turbo, latent=graph.consistency(seeded(graph), 2))["latent"]

    four = latent(4.0, None)
    assert four.equal(latent(None, 4.0)) and four.equal(latent(4.0, 0.0)) and four.equal(latent(9.0, 4.0))
    assert not four.equal(latent(None, None)) and latent(None, None).equal(latent(7.5, None))


def test_flux_guidance_after_our_node(turbo):
    graph = TurboGraph(frames=2, size=16, guidance=9.0)
    graph.positive = out(graph.add("FluxGuidance", conditioning=graph.positive, guidance=4.0))
    ours = TurboGraph(frames=2, size=16, guidance=4.0)
    assert graph.run(turbo, latent=graph.consistency(seeded(graph), 2))["latent"].equal(
        ours.run(turbo, latent=ours.consistency(seeded(ours), 2))["latent"]
    )


def test_conditionings_with_scales_of_their_own_do_not_mix(turbo):
    """Two conditionings in one batch, one with motion guidance and one without: each has what it has alone."""
    graph = TurboGraph(frames=2, size=16)
    negative = {**graph.conditioning["inputs"], "motion_guidance": -1.0, "guidance": 3.0}
    graph.negative = out(graph.add("VideoCrafterConditioning", **negative), 1)
    saved = graph.run(turbo, latent=graph.sample(seed=1, steps=1, cfg=2.0))["latent"] * LATENT_SCALE
    model = core()
    text = model.encode_text([PROMPT, ""])
    conditioning = golden_turbo.Conditioning
    positive, other = conditioning(text[:1]), conditioning(text[1:], guidance=torch.tensor([3.0]))
    settings = {"frames": 2, "height": 16, "width": 16, "seed": 1, "steps": 1, "sampler": "ddim", "eta": 1.0, "guidance_scale": 2.0}
    run = vc_core.Sampling.of(model.config, **settings)
    positive = run.conditions(positive, model.config.unet)
    expected = model.sample(positive, other, sampling=run.changed(motion_guidance=-1.0))
    assert goldens.error(saved, frames_of(expected)) <= goldens.TOLERANCE


def test_a_list_without_its_base_and_a_base_that_does_not_fit(turbo):
    graph = TurboGraph(V1)
    del graph.prompt["1"]["inputs"]["base"]
    graph.add("TestSave", file="x", latent=graph.sample())
    assert_fails(turbo, graph, "VideoCrafterLoader", LIST, "a list of 496 tensors without names", "VideoCrafter2's", "the loader's base")
    goldens.write_checkpoint("t2v_1024_v1", turbo.checkpoints / "another_base.safetensors")
    graph = TurboGraph(V1)
    graph.prompt["1"]["inputs"]["base"] = "another_base.safetensors"
    graph.add("TestSave", file="x", latent=graph.sample())
    assert_fails(turbo, graph, "VideoCrafterLoader", LIST, "layers of this UNet", "belong together")


def test_more_steps_than_the_model_was_distilled_from(turbo):
    graph = TurboGraph(frames=2, size=16)
    sigmas = graph.add("VideoCrafterScheduler", model=graph.model, steps=9, denoise=1.0, original_steps=8)
    graph.add("TestSave", file="x", sigmas=out(sigmas))
    assert_fails(turbo, graph, "VideoCrafterScheduler", "steps is 9", "1 to 8")


def test_a_split_consistency_run_is_one_run(turbo):
    """The first part's last step goes to the second part's first sigma with noise, as a whole run's step does."""
    graph = TurboGraph(frames=2, size=16)
    noise = torch.randn(4, 2, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    latents = {}
    sigmas = out(graph.add("VideoCrafterScheduler", model=graph.model, steps=4, denoise=1.0))
    split = graph.add("SplitSigmas", sigmas=sigmas, step=3)
    for part, rows in (("whole", noise), ("rest", noise[3:])):
        save_file({"noise": noise[0].clone(), "steps": rows.clone()}, turbo.base / "input" / f"split_{part}.st")
    first = out(graph.add("TestStepNoise", sampler=out(graph.add("VideoCrafterConsistency")), file="split_whole.st"))
    second = out(graph.add("TestStepNoise", sampler=out(graph.add("VideoCrafterConsistency")), file="split_rest.st"))
    start = out(graph.add("TestNoise", file="split_whole.st"))
    whole = graph.sample_custom(start, first, sigmas, 1.0)
    graph.latent = graph.sample_custom(start, first, out(split, 0), 1.0)
    halves = graph.sample_custom(out(graph.add("DisableNoise")), second, out(split, 1), 1.0)
    before = dict(graph.prompt)
    for name, result in (("whole", whole), ("halves", halves)):
        graph.prompt = dict(before)
        latents[name] = graph.run(turbo, latent=result)["latent"]
    assert goldens.error(latents["halves"], latents["whole"]) <= goldens.TOLERANCE


def test_the_saved_model_is_loaded_again(turbo):
    """ModelSave writes the merged weights; the file is then a complete model by itself."""
    graph = TurboGraph(V1, ZERO, frames=2, size=16)
    graph.add("CheckpointSave", model=graph.model, clip=graph.clip, vae=graph.vae, filename_prefix="turbo")
    first = graph.run(turbo, latent=graph.consistency(seeded(graph), 2))["latent"]
    written = sorted((turbo.base / "output").glob("turbo_*.safetensors"))[-1]
    (turbo.checkpoints / "turbo_saved.safetensors").write_bytes(written.read_bytes())
    again = TextGraph("turbo_saved.safetensors", PROMPT, frames=2, size=16)
    sigmas = out(again.add("VideoCrafterScheduler", model=again.model, steps=2, denoise=1.0))
    noise = out(again.add("RandomNoise", noise_seed=0))
    second = again.run(turbo, latent=again.sample_custom(noise, out(again.add("VideoCrafterConsistency")), sigmas, 1.0))["latent"]
    assert goldens.error(second, first) <= goldens.TOLERANCE
