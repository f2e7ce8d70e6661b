"""What works with our MODEL: a table of ComfyUI's nodes and features, each with a graph and an assertion on what comes out of it.

A row is a function that builds its graph on a :class:`Bench` and returns the assertion. ``test_works_with.py`` runs the rows;
``python -m dev.works_with`` writes ``docs/works_with.md`` from them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import vc_core
from dev.client import Interrupted, Progress
from dev.server import Server
from tests import goldens
from tests.comfyui.graphs import TextGraph, assert_fails, out

T2V, T2V_V1, I2V, DYNAMICRAFTER = "t2v_512_v2", "t2v_512_v1", "i2v_512_v1", "dynamicrafter_512_v1"
BUNDLED = "videocrafter_tiny_t2v (bundled)"
#: How the page calls each model. All but the bundled one are the recorded ones: the published forms at tiny widths.
TITLES = {T2V: "VideoCrafter2", T2V_V1: "VideoCrafter1", I2V: "VideoCrafter1 I2V", DYNAMICRAFTER: "DynamiCrafter", BUNDLED: "bundled"}
SAMPLERS, LORA, CONDITIONING = "Samplers and schedulers", "LoRA, merging, saving", "Conditioning"
LENGTH, BATCHES, WATCHING = "Any length", "Several videos at once", "Previews and cancelling"
GROUPS = (SAMPLERS, LORA, CONDITIONING, LENGTH, BATCHES, WATCHING)
SWAN, SHIP, NOTHING = goldens.PROMPTS
CIRCLE = "a red circle moving right"
#: Between a LATENT and what the network sees.
SCALE = 0.18215
#: What is to differ in a test differs by more than so many deviations: 20 times what counts as equal.
APART = 20 * goldens.TOLERANCE

Link = list[Any]
Check = Callable[[dict[str, Tensor]], None]


class Bench(TextGraph):
    """A row's graph: begun with a loaded model, its conditioning (with a picture where it takes one) and a blank latent.

    What the row keeps comes back from :meth:`results` under the names it was kept by.
    """

    def __init__(self, comfyui: Server, model: str, frames: int = 4, videos: int = 1, size: int = 64) -> None:
        self.comfyui, self.name, self.kept = comfyui, model, list[str]()
        self.path = Path(model) if model == BUNDLED else self.checkpoint(model, goldens.weights(model))
        self.prompts = (CIRCLE, NOTHING) if model == BUNDLED else goldens.prompts(model)
        super().__init__(self.path.name, self.prompts[0], NOTHING, frames=frames, videos=videos, size=size)
        self.progress, self.previews = list[Progress](), list[bytes]()
        if model in (I2V, DYNAMICRAFTER):
            self.positive, self.negative = self.pictured(self.positive, self.negative, self.latent)
        #: A second conditioning that makes another video: without a prompt, and faster.
        self.other = self.tell(self.negative, self.latent, fps=30.0)

    def checkpoint(self, name: str, weights: dict[str, Tensor]) -> Path:
        """A checkpoint in the server's folder, written once."""
        path = self.comfyui.checkpoints / f"{name}.safetensors"
        if not path.exists():
            save_file(weights, path)
        return path

    def load(self, name: str, weights: dict[str, Tensor]) -> str:
        """A second model: the number of its loader."""
        return self.add("VideoCrafterLoader", ckpt_name=self.checkpoint(name, weights).name, weight_dtype="default")

    def given(self, node: str, name: str, value: Tensor) -> Link:
        """The output of a test node that reads the tensor ``name`` of a file."""
        value = value.float().contiguous()
        file = f"{name}_{hashlib.sha1(value.numpy().tobytes()).hexdigest()}.st"  # equal content is an equal input to ComfyUI's cache
        save_file({name: value}, self.comfyui.base / "input" / file)
        return out(self.add(node, file=file))

    def given_concat(self, latents: Tensor, conditioning: Link | None = None) -> Link:
        """The positive, or another conditioning, with these as the latents of its pictures ``[T, 4, h, w]``."""
        [number, _] = self.given("TestConcat", "concat", latents)
        self.prompt[number]["inputs"]["conditioning"] = conditioning or self.positive
        return out(number)

    def alone(self, frames: int, latents: Tensor | None) -> Link:
        """The positive for one video of so many frames, in whatever latent; with these latents of its pictures if any."""
        if self.name not in (I2V, DYNAMICRAFTER):
            return self.tell(self.text)
        latent = out(self.add("EmptyVideoCrafterLatent", width=64, height=64, length=frames, batch_size=1))
        pictured = self.pictured(self.text, self.text, latent)
        return pictured[0] if latents is None else self.given_concat(latents, pictured[0])

    @property
    def picture(self) -> Tensor:
        """The recorded picture, ``[1, 3, H, W]`` in [-1, 1]."""
        return goldens.read(self.name, "encoders")["photo"][:1]

    def pictured(self, positive: Link, negative: Link, latent: Link) -> tuple[Link, Link]:
        """Both conditionings with the recorded picture."""
        told = self.add(
            "VideoCrafterImageToVideo", positive=positive, negative=negative, clip_vision=self.clip_vision, vae=self.vae, fps=8.0,
            image=self.given("TestImage", "image", (self.picture.movedim(1, -1) + 1) / 2), strength=1.0, latent=latent,
        )  # fmt: skip
        return out(told, 0), out(told, 1)

    def encode(self, text: str, clip: Link | None = None) -> Link:
        """A prompt's conditioning, as it comes."""
        return out(self.add("CLIPTextEncode", clip=clip or self.clip, text=text))

    def tell(self, conditioning: Link, latent: Link | None = None, fps: float = 8.0) -> Link:
        """A conditioning with fps and, where a latent is given, its frames a video."""
        frames = {} if latent is None else {"latent": latent}
        return out(self.add("VideoCrafterConditioning", positive=conditioning, negative=conditioning, fps=fps, **frames))

    def ksampler(self, **given: Any) -> Link:
        """KSampler, by default three steps of euler without guidance from the blank latent."""
        settings = {"seed": 0, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        inputs = {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return out(self.add("KSampler", **(inputs | settings | given)))

    def one_step(self, **given: Any) -> Link:
        """A single prediction, from the middle of the schedule, where no model's numbers are so large that rounding tells."""
        return self.ksampler(steps=1, scheduler="sgm_uniform", denoise=0.5, **given)

    def part(self, first: int, last: int, **given: Any) -> Link:
        """KSamplerAdvanced on the steps from ``first`` to before ``last``; only the first part adds noise, only the last ends clean."""
        settings = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal"}
        inputs = {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        ends = {"start_at_step": first, "end_at_step": last, "add_noise": "disable" if first else "enable", "noise_seed": 0}
        leftover = "enable" if last < settings["steps"] else "disable"
        return out(self.add("KSamplerAdvanced", **(inputs | settings | ends | given), return_with_leftover_noise=leftover))

    def authors(self, **given: Any) -> Link:
        """The pack's own sampler, three steps without guidance."""
        settings = {"seed": 0, "steps": 3, "cfg": 1.0, "eta": 1.0, "guidance_rescale": 0.0, "denoise": 1.0}
        inputs = {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return out(self.add("VideoCrafterSampler", **(inputs | settings | given)))

    def frames_of(self, latent: Link, start: int, length: int) -> Link:
        """Some frames of a latent, which keep their places' noise."""
        return out(self.add("LatentFromBatch", samples=latent, batch_index=start, length=length))

    def options(self, node: str, name: str) -> list[str]:
        """The choices of an input."""
        listed = self.comfyui.get(f"/object_info/{node}")[node]["input"]["required"][name]
        return listed[1]["options"] if listed[0] == "COMBO" else listed[0]

    def keep(self, name: str, **saved: Link) -> None:
        """Bring something back: ``latent=``, ``image=``, ``conditioning=`` or ``sigmas=``."""
        self.kept.append(name)
        self.add("TestSave", file=f"kept_{name}.safetensors", **saved)

    def results(self) -> dict[str, Tensor]:
        """Run the graph and read what was kept."""
        if not self.kept:
            return {}
        self.comfyui.run(self.prompt, on_progress=self.progress.append, on_preview=self.previews.append)
        return {name: next(iter(load_file(self.comfyui.base / "output" / f"kept_{name}.safetensors").values())) for name in self.kept}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    group: str
    #: The nodes or the feature, as users know them.
    what: str
    #: What was found to hold.
    holds: str
    models: tuple[str, ...]
    #: Builds the graph and returns the assertion.
    graph: Callable[[Bench], Check]
    frames: int = 4
    videos: int = 1
    #: Options of ComfyUI's command line that it needs.
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.graph.__name__

    def run(self, comfyui: Server, model: str) -> None:
        """Run the graph with a model and hold what comes out to the assertion."""
        bench = Bench(comfyui, model, self.frames, self.videos)
        check = self.graph(bench)
        check(bench.results())


ROWS: list[Row] = []


def row(group: str, what: str, holds: str, *models: str, **sizes: Any) -> Callable[[Callable[[Bench], Check]], Callable[[Bench], Check]]:
    """Enter a graph into the table."""

    def enter(graph: Callable[[Bench], Check]) -> Callable[[Bench], Check]:
        ROWS.append(Row(group, what, holds, models, graph, **sizes))
        return graph

    return enter


def same(ours: Tensor, expected: Tensor, tolerance: float = goldens.TOLERANCE) -> None:
    """Equal up to the tests' tolerance."""
    assert goldens.error(ours, expected) <= tolerance, goldens.error(ours, expected)


def apart(one: Tensor, other: Tensor) -> float:
    """How far two latents are from each other, in deviations of the second."""
    return ((one - other).std() / other.std()).item()


def core_latent(path: Path, prompt: str = SWAN, negative: str = NOTHING, frames: int = 4, **settings: Any) -> Tensor:
    """What vc_core samples with a checkpoint and :meth:`Bench.authors`' settings, as a LATENT's frames."""
    seen: list[Tensor] = []
    given = {"steps": 3, "guidance_scale": 1.0, "fps": 8, "seed": 0, "height": 64, "width": 64} | settings
    vc_core.load(path).text_to_video(prompt, negative, frames=frames, callback=lambda *told: seen.append(told[3]), **given)
    return seen[-1].transpose(1, 2).flatten(0, 1) / SCALE


# --- Samplers and schedulers ---

#: They add no noise on the way, so they all solve the same equation.
DETERMINISTIC = (
    "euler", "heun", "heunpp2", "exp_heun_2_x0", "dpm_2", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2m", "ipndm", "ipndm_v", "deis",
    "res_multistep", "gradient_estimation", "ddim", "uni_pc", "uni_pc_bh2",
)  # fmt: skip


@row(
    SAMPLERS,
    "KSampler, every sampler",
    "each ends in a video as wide in its numbers as one by the authors' sampler, within a factor of 3",
    BUNDLED,
    frames=2,
)
def every_sampler(bench: Bench) -> Check:
    names = bench.options("KSampler", "sampler_name")
    bench.keep("its own", latent=bench.authors(steps=25))
    for name in names:
        bench.keep(name, latent=bench.ksampler(sampler_name=name, scheduler="karras", steps=5))

    def check(seen: dict[str, Tensor]) -> None:
        widths = {name: (seen[name].std() / seen["its own"].std()).item() for name in names}
        wrong = {name: width for name, width in widths.items() if not 1 / 3 < width < 3}
        assert not wrong, wrong

    return check


@row(SAMPLERS, "KSampler, every sampler", "each ends in finite numbers from a schedule without signal at its end", DYNAMICRAFTER, frames=2)
def every_sampler_of_v(bench: Bench) -> Check:
    names = bench.options("KSampler", "sampler_name")
    for name in names:
        bench.keep(name, latent=bench.ksampler(sampler_name=name, steps=3))

    def check(seen: dict[str, Tensor]) -> None:
        assert not [name for name in names if not seen[name].isfinite().all() or seen[name].std() == 0]

    return check


@row(
    SAMPLERS, "KSampler, the deterministic samplers", "with more steps they meet in one video, all at least as fast as euler", T2V, frames=2
)
def deterministic_samplers_agree(bench: Bench) -> Check:
    steps, known = 10, bench.options("KSampler", "sampler_name")
    names = [name for name in DETERMINISTIC if name in known]
    for name in names:
        bench.keep(name, latent=bench.ksampler(sampler_name=name, scheduler="karras", steps=steps))
    bench.keep("half as far", latent=bench.ksampler(sampler_name="euler", scheduler="karras", steps=2 * steps))
    bench.keep("goal", latent=bench.ksampler(sampler_name="heun", scheduler="karras", steps=3 * steps))

    def check(seen: dict[str, Tensor]) -> None:
        # Euler's error falls as 1 / steps: half of it lies between a run and one of twice the steps. A quarter more for what falls faster.
        bound = 1.25 * 2 * apart(seen["half as far"], seen["euler"])
        assert bound < 0.1
        away = {name: apart(seen[name], seen["goal"]) for name in names}
        assert max(away.values()) <= bound, (bound, away)

    return check


@row(
    SAMPLERS,
    "KSampler, BasicScheduler, every scheduler",
    "falls from at most the schedule's first sigma to 0, and gives a video",
    T2V,
    DYNAMICRAFTER,
)
def every_scheduler(bench: Bench) -> Check:
    names = bench.options("KSampler", "scheduler")
    for name in names:
        bench.keep(name, latent=bench.ksampler(scheduler=name))
        bench.keep(f"{name} sigmas", sigmas=out(bench.add("BasicScheduler", model=bench.model, scheduler=name, steps=8, denoise=1.0)))

    def check(seen: dict[str, Tensor]) -> None:
        # Of a schedule without signal at its end core's last sigma is the large one; any other is the reference's. Both scales end at 0.7.
        alpha = max(goldens.read(bench.name, "schedule")["alphas_cumprod"][-1].item(), 4.8973451890853435e-08)
        first = ((1 - alpha) / alpha) ** 0.5 / 0.7
        for name in names:
            sigmas = seen[f"{name} sigmas"]
            assert sigmas[0] <= first * 1.0001 and sigmas[-1] == 0 and (sigmas.diff() < 0).all(), (name, sigmas, first)
            assert seen[name].isfinite().all() and seen[name].std() > 0.1

    return check


@row(
    SAMPLERS, "ddim with ddim_uniform, VideoCrafter DDIM at eta 0",
    "the same prediction where both visit the same timesteps: in KSampler at every number of steps for which 1000 // steps doesn't divide "
    "999; BasicScheduler leaves out the first where the spacing gives more than asked for (7 gives 8)",
    T2V, T2V_V1, DYNAMICRAFTER,
)  # fmt: skip
def ddim_is_the_authors(bench: Bench) -> Check:
    counts = (2, 3, 4, 5, 7, 9, 10, 25, 27, 30, 50, 111, 200, 333)
    for steps in counts:
        bench.keep(
            f"core {steps}", sigmas=out(bench.add("BasicScheduler", model=bench.model, scheduler="ddim_uniform", steps=steps, denoise=1.0))
        )
        bench.keep(
            f"ours {steps}", sigmas=out(bench.add("VideoCrafterScheduler", model=bench.model, steps=steps, denoise=1.0, spacing="uniform"))
        )
    # From an empty latent the authors start with the noise itself; from any other both noise it to the first timestep.
    start = bench.given("TestLatent", "latent", torch.randn(4, 4, 8, 8, generator=torch.manual_seed(1)) / SCALE)
    for steps in (4, 7):
        bench.keep(
            f"run {steps}", latent=bench.ksampler(sampler_name="ddim", scheduler="ddim_uniform", steps=steps, cfg=3.0, latent_image=start)
        )
        guider = bench.add("CFGGuider", model=bench.model, positive=bench.positive, negative=bench.negative, cfg=3.0)
        sampled = bench.add(
            "SamplerCustomAdvanced", noise=out(bench.add("RandomNoise", noise_seed=0)), guider=out(guider), latent_image=start,
            sampler=out(bench.add("VideoCrafterDDIM", eta=0.0)),
            sigmas=out(bench.add("VideoCrafterScheduler", model=bench.model, steps=steps, denoise=1.0, spacing="uniform")),
        )  # fmt: skip
        # The last prediction: the authors' own last step leaves the first timestep's noise in.
        bench.keep(f"our run {steps}", latent=out(sampled, 1))

    def check(seen: dict[str, Tensor]) -> None:
        for steps in counts:
            core, ours = seen[f"core {steps}"], seen[f"ours {steps}"]
            # Where a timestep would be 1000 the authors' code fails; ours takes the last one, core leaves it out.
            one_more = 999 % (1000 // steps) == 0
            visited = len(range(1, 1000, 1000 // steps)) + one_more
            assert len(ours) == visited + 1 and len(core) == min(steps, visited - one_more) + 1
            same(core, ours[-len(core) :])
        for steps in (4, 7):
            same(seen[f"run {steps}"], seen[f"our run {steps}"])

    return check


@row(
    SAMPLERS,
    "the sample scale",
    "at any timestep the network gets sqrt(a) s x0 + sqrt(1 - a) noise, by the reference's tables",
    T2V,
    T2V_V1,
    DYNAMICRAFTER,
)
def the_network_gets_what_it_was_trained_on(bench: Bench) -> Check:
    recorded = goldens.read(bench.name, "schedule")
    spacing = "uniform_trailing.50" if bench.name == DYNAMICRAFTER else "50.0.0"
    places = [0, 1, 10, 19, 20, 35, 49]
    timesteps, alphas = (recorded[f"{spacing}.{table}"][places] for table in ("timesteps", "alphas"))
    scales = recorded.get(f"{spacing}.scale", torch.ones(50))[places]
    clean, noise = (torch.randn(4, 4, 8, 8, generator=torch.manual_seed(seed)) for seed in (1, 2))
    seen_by = bench.add(
        "TestNetworkInput", model=bench.model, positive=bench.positive, noise=bench.given("TestNoise", "noise", noise),
        latent=bench.given("TestLatent", "latent", clean / SCALE), timesteps=",".join(str(int(timestep)) for timestep in timesteps),
    )  # fmt: skip
    bench.keep("inputs", latent=out(seen_by))
    bench.keep("timesteps", sigmas=out(seen_by, 1))

    def check(seen: dict[str, Tensor]) -> None:
        assert seen["timesteps"].tolist() == timesteps.tolist()
        for got, alpha, scale in zip(seen["inputs"].split(4), alphas, scales, strict=True):
            # Where nothing of the sample is to be left, core's large sigma leaves 2e-4 of it in.
            tolerance = goldens.TOLERANCE if alpha > 0 else 4e-4
            same(got, alpha.sqrt() * scale * clean + (1 - alpha).sqrt() * noise, tolerance)

    return check


@row(SAMPLERS, "KSamplerAdvanced", "a run split in two is one run", T2V, DYNAMICRAFTER)
def a_run_split_in_two(bench: Bench) -> Check:
    bench.keep("whole", latent=bench.ksampler(steps=4, cfg=3.0))
    bench.keep("parts", latent=bench.part(2, 4, cfg=3.0, latent_image=bench.part(0, 2, cfg=3.0)))
    return lambda seen: same(seen["parts"], seen["whole"])


@row(SAMPLERS, "denoise below 1", "video to video: the lower, the nearer to the given video", T2V, BUNDLED)
def the_lower_the_nearer(bench: Bench) -> Check:
    shares = (0.1, 0.3, 0.5, 0.7, 1.0)
    given = bench.ksampler(seed=1, steps=6)
    bench.keep("given", latent=given)
    for share in shares:
        bench.keep(f"k {share}", latent=bench.ksampler(steps=4, denoise=share, latent_image=given))
        bench.keep(f"own {share}", latent=bench.authors(steps=4, eta=0.0, denoise=share, latent_image=given))

    def check(seen: dict[str, Tensor]) -> None:
        for sampler in ("k", "own"):
            away = [apart(seen[f"{sampler} {share}"], seen["given"]) for share in shares]
            assert away == sorted(away) and away[0] < 0.7 * away[-1], away

    return check


def masked(bench: Bench, mask: Tensor) -> Check:
    """Samples where a mask ``[n, H, W]`` is 1, with several samplers; all else must be as it was."""
    start = torch.randn(4, 4, 8, 8, generator=torch.manual_seed(1)) / SCALE
    latent = bench.add("SetLatentNoiseMask", samples=bench.given("TestLatent", "latent", start), mask=bench.given("TestMask", "mask", mask))
    for sampler in ("euler", "heun", "dpmpp_2m_sde"):
        bench.keep(sampler, latent=bench.ksampler(sampler_name=sampler, steps=4, latent_image=out(latent)))
    for eta in (0.0, 1.0):
        bench.keep(f"own {eta:g}", latent=bench.authors(eta=eta, latent_image=out(latent)))

    def check(seen: dict[str, Tensor]) -> None:
        kept = (mask[:, ::8, ::8] == 0)[:, None].expand(4, 4, 8, 8)
        for latent in seen.values():
            same(latent[kept], start[kept])
            assert apart(latent[~kept], start[~kept]) > 0.3

    return check


@row(SAMPLERS, "SetLatentNoiseMask, a mask of space", "inpainting: what is not masked stays as it is", T2V, DYNAMICRAFTER)
def inpainting(bench: Bench) -> Check:
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    return masked(bench, mask)


@row(
    SAMPLERS,
    "SetLatentNoiseMask, a mask a frame",
    "frames that are not masked stay as they are: a clip can be continued",
    T2V,
    DYNAMICRAFTER,
)
def continuing(bench: Bench) -> Check:
    mask = torch.zeros(4, 64, 64)
    mask[2:] = 1
    return masked(bench, mask)


# --- LoRA, merging and saving ---

RANK, ALPHA, STRENGTH = 2, 3.0, 0.7


def low_rank(weights: dict[str, Tensor], size: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Two factors ``[out, rank, ...]`` and ``[rank, in, ...]`` for each weight."""
    draw = torch.manual_seed(3)
    factors = {}
    for name, weight in weights.items():
        up = torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=draw)
        down = torch.randn(RANK, *weight.shape[1:], generator=draw)
        factors[name] = size * up * weight.float().std(), down
    return factors


def added(weight: Tensor, up: Tensor, down: Tensor, strength: float) -> Tensor:
    """``W + strength * B A``."""
    return weight.float() + strength * (up.flatten(1) @ down.flatten(1)).view_as(weight)


def unet_matrices(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every weight of the UNet that has a matrix's two sides, by its name there without ``.weight``."""
    prefix, end = "model.diffusion_model.", ".weight"
    found = {name: value for name, value in weights.items() if name.startswith(prefix) and name.endswith(end) and value.ndim > 1}
    return {name[len(prefix) : -len(end)]: value for name, value in found.items()}


def write_lora(bench: Bench, name: str, tensors: dict[str, Tensor]) -> str:
    """A file in the server's folder of LoRAs."""
    folder = bench.comfyui.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f"{bench.name}_{name}.safetensors")
    return f"{bench.name}_{name}.safetensors"


@row(
    LORA, "LoraLoader, kohya's names (lora_unet_..., lora_te_...)",
    "every matrix of UNet and text encoder, at strength s the weights W + s alpha / rank B A, at 0 the identity", T2V, T2V_V1,
)  # fmt: skip
def kohya_lora(bench: Bench) -> Check:
    weights = dict(goldens.weights(bench.name))
    lora: dict[str, Tensor] = {}
    for name, (up, down) in low_rank(unet_matrices(weights), 0.1).items():
        stem, full = "lora_unet_" + name.replace(".", "_"), f"model.diffusion_model.{name}.weight"
        lora |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down, f"{stem}.alpha": torch.tensor(ALPHA)}
        weights[full] = added(weights[full], up, down, STRENGTH * ALPHA / RANK)
    tower = "cond_stage_model.model.transformer.resblocks.0"
    width = weights[f"{tower}.attn.out_proj.weight"].shape[0]
    # kohya's names are those of transformers, which has apart what OpenCLIP keeps in one matrix.
    places = {"self_attn_out_proj": ("attn.out_proj.weight", 0), "mlp_fc1": ("mlp.c_fc.weight", 0), "mlp_fc2": ("mlp.c_proj.weight", 0)}
    places |= {f"self_attn_{part}_proj": ("attn.in_proj_weight", width * index) for index, part in enumerate("qkv")}
    for name, (stored, start) in places.items():
        matrix = weights[f"{tower}.{stored}"].float()
        rows = slice(start, start + width) if "in_proj" in stored else slice(None)
        ((up, down),) = low_rank({name: matrix[rows]}, 0.3).values()
        lora |= {f"lora_te_text_model_encoder_layers_0_{name}.lora_{side}.weight": part for side, part in (("up", up), ("down", down))}
        matrix[rows] = added(matrix[rows], up, down, STRENGTH)
        weights[f"{tower}.{stored}"] = matrix
    changed = bench.checkpoint(f"{bench.name}_changed", weights)
    file = write_lora(bench, "kohya", lora)
    bench.keep("plain", latent=bench.authors())
    for strength in (0.0, STRENGTH):
        loaded = bench.add(
            "LoraLoader", model=bench.model, clip=bench.clip, lora_name=file, strength_model=strength, strength_clip=strength
        )
        told = bench.tell(bench.encode(SWAN, out(loaded, 1)))
        bench.keep(f"{strength:g}", latent=bench.authors(model=out(loaded), positive=told))

    def check(seen: dict[str, Tensor]) -> None:
        assert torch.equal(seen["0"], seen["plain"])
        same(seen[f"{STRENGTH:g}"], core_latent(changed))
        assert apart(seen[f"{STRENGTH:g}"], seen["plain"]) > 0.05

    return check


@row(
    LORA,
    "LoraLoaderModelOnly, plain names (diffusion_model....)",
    "with lora_up and lora_down, or lora_A and lora_B",
    T2V,
    I2V,
    DYNAMICRAFTER,
)
def plain_lora(bench: Bench) -> Check:
    weights = dict(goldens.weights(bench.name))
    styles = {"updown": ("lora_up", "lora_down"), "ab": ("lora_B", "lora_A")}
    loras: dict[str, dict[str, Tensor]] = {style: {} for style in styles}
    for name, (up, down) in low_rank(unet_matrices(weights), 0.1).items():
        for style, sides in styles.items():
            loras[style] |= {f"diffusion_model.{name}.{side}.weight": part for side, part in zip(sides, (up, down), strict=True)}
        weights[f"model.diffusion_model.{name}.weight"] = added(weights[f"model.diffusion_model.{name}.weight"], up, down, STRENGTH)
    bench.keep("plain", latent=bench.authors())
    bench.keep("expected", latent=bench.authors(model=out(bench.load(f"{bench.name}_changed_plain", weights))))
    for style, lora in loras.items():
        file = write_lora(bench, style, lora)
        loaded = bench.add("LoraLoaderModelOnly", model=bench.model, lora_name=file, strength_model=STRENGTH)
        bench.keep(style, latent=bench.authors(model=out(loaded)))

    def check(seen: dict[str, Tensor]) -> None:
        for style in styles:
            same(seen[style], seen["expected"])
        assert apart(seen["expected"], seen["plain"]) > 0.05

    return check


@row(
    LORA, "CreateHookLora, CreateHookKeyframe, SetHookKeyframes, PairConditioningSetProperties",
    "as LoraLoaderModelOnly; a keyframe in the middle switches it on from there", T2V, DYNAMICRAFTER,
)  # fmt: skip
def lora_hooks(bench: Bench) -> Check:
    factors = low_rank(unet_matrices(goldens.weights(bench.name)), 0.1)
    lora = {
        f"diffusion_model.{name}.lora_{side}.weight": part
        for name, pair in factors.items()
        for side, part in zip(("up", "down"), pair, strict=True)
    }
    file = write_lora(bench, "hooked", lora)
    patched = out(bench.add("LoraLoaderModelOnly", model=bench.model, lora_name=file, strength_model=STRENGTH))

    def hooked(*keyframes: tuple[float, float]) -> Link:
        hooks = bench.add("CreateHookLora", lora_name=file, strength_model=STRENGTH, strength_clip=0.0)
        if keyframes:
            earlier: dict[str, Link] = {}
            for start, strength in keyframes:
                earlier = {"prev_hook_kf": out(bench.add("CreateHookKeyframe", start_percent=start, strength_mult=strength, **earlier))}
            hooks = bench.add("SetHookKeyframes", hooks=out(hooks), hook_kf=earlier["prev_hook_kf"])
        both = bench.add(
            "PairConditioningSetProperties", positive_NEW=bench.positive, negative_NEW=bench.negative, strength=1.0,
            set_cond_area="default", hooks=out(hooks),
        )  # fmt: skip
        return bench.ksampler(steps=4, cfg=2.0, positive=out(both), negative=out(both, 1))

    bench.keep("plain", latent=bench.ksampler(steps=4, cfg=2.0))
    bench.keep("loaded", latent=bench.ksampler(steps=4, cfg=2.0, model=patched))
    bench.keep("hooked", latent=hooked())
    # Four steps of the normal scheduler stand at the timesteps 999, 666, 333 and 0: the third is the first past the middle.
    bench.keep("switched", latent=hooked((0.0, 0.0), (0.5, 1.0)))
    bench.keep("halves", latent=bench.part(2, 4, cfg=2.0, model=patched, latent_image=bench.part(0, 2, cfg=2.0)))

    def check(seen: dict[str, Tensor]) -> None:
        same(seen["hooked"], seen["loaded"])
        same(seen["switched"], seen["halves"])
        assert min(apart(seen["loaded"], seen["plain"]), apart(seen["switched"], seen["loaded"])) > 0.02

    return check


@row(
    LORA, "ModelMergeSimple", "the UNet's weights are the weighted mean; an image model keeps the first one's projector", T2V, DYNAMICRAFTER
)
def merging(bench: Bench) -> Check:
    first = goldens.weights(bench.name)
    draw = torch.manual_seed(5)
    second = {
        name: value.float() + 0.1 * value.float().std() * torch.randn(value.shape, generator=draw)
        if name.startswith("model.diffusion_model.") and value.ndim > 1 else value
        for name, value in first.items()
    }  # fmt: skip
    mean = {name: 0.25 * value.float() + 0.75 * second[name].float() for name, value in first.items()}
    other = out(bench.load(f"{bench.name}_second", second))
    bench.keep("plain", latent=bench.authors())
    bench.keep("merged", latent=bench.authors(model=out(bench.add("ModelMergeSimple", model1=bench.model, model2=other, ratio=0.25))))
    bench.keep("mean", latent=bench.authors(model=out(bench.load(f"{bench.name}_mean", mean))))

    def check(seen: dict[str, Tensor]) -> None:
        same(seen["merged"], seen["mean"])
        assert apart(seen["merged"], seen["plain"]) > 0.02

    return check


@row(
    LORA, "CheckpointSave",
    "the file loads again and makes the same video, with projector and sample scale; like all files of this node it has no image encoder",
    T2V, T2V_V1, I2V, DYNAMICRAFTER, BUNDLED,
)  # fmt: skip
def saving(bench: Bench) -> Check:
    name = f"saved {TITLES[bench.name]}"  # tells nothing of the model
    bench.add("CheckpointSave", model=bench.model, clip=bench.clip, vae=bench.vae, filename_prefix=name)
    bench.comfyui.run(bench.prompt)
    written = max(bench.comfyui.base.glob(f"output/{name}_*.safetensors"))
    loader = bench.add(
        "VideoCrafterLoader", ckpt_name=written.replace(bench.comfyui.checkpoints / written.name).name, weight_dtype="default"
    )
    sampled = bench.authors(cfg=2.0)
    bench.keep("latent", latent=sampled)
    bench.keep("latent again", latent=bench.authors(cfg=2.0, model=out(loader)))
    bench.keep("text", conditioning=bench.text)
    bench.keep("text again", conditioning=bench.encode(bench.prompts[0], out(loader, 1)))
    bench.keep("frames", image=bench.decode(sampled))
    bench.vae = out(loader, 2)
    bench.keep("frames again", image=bench.decode(sampled))

    def check(seen: dict[str, Tensor]) -> None:
        for kind in ("latent", "text", "frames"):
            same(seen[f"{kind} again"], seen[kind])

    return check


# --- Conditioning ---


def first_prediction(bench: Bench, context: Tensor) -> Tensor:
    """What one step of KSampler comes to, by the reference's tables and the core's UNet, with text ``[1, n, width]``."""
    noise = torch.randn(4, 4, 8, 8, generator=torch.manual_seed(0))
    golden = goldens.read(bench.name, "schedule")
    alpha, scale = golden["alphas_cumprod"][999], golden["scale_arr"][999]
    video = noise.transpose(0, 1)[None]
    with torch.no_grad():
        eps = vc_core.load(bench.path).unet(video, torch.tensor([999]), context, fps=torch.tensor([8.0]))
    return ((video - (1 - alpha).sqrt() * eps) / alpha.sqrt() / scale)[0].transpose(0, 1) / SCALE


def core_texts(bench: Bench, *prompts: str) -> list[Tensor]:
    """The core's text features, ``[1, 77, width]`` of each."""
    return list(vc_core.load(bench.path).encode_text(list(prompts)).split(1))


@row(CONDITIONING, "ConditioningSetTimestepRange", "another prompt for each part of the steps", T2V, DYNAMICRAFTER)
def timestep_ranges(bench: Bench) -> Check:
    def ranged(conditioning: Link, start: float, end: float) -> Link:
        return out(bench.add("ConditioningSetTimestepRange", conditioning=conditioning, start=start, end=end))

    early, late = bench.positive, bench.other
    both = bench.add("ConditioningCombine", conditioning_1=ranged(early, 0.0, 0.5), conditioning_2=ranged(late, 0.5, 1.0))
    bench.keep("ranged", latent=bench.ksampler(steps=4, positive=out(both)))
    bench.keep("halves", latent=bench.part(2, 4, positive=late, latent_image=bench.part(0, 2, positive=early)))
    bench.keep("late", latent=bench.ksampler(steps=4, positive=late))

    def check(seen: dict[str, Tensor]) -> None:
        same(seen["ranged"], seen["halves"])
        assert apart(seen["ranged"], seen["late"]) > APART

    return check


def by_mask(bench: Bench, mask: Tensor) -> Check:
    """One prompt where a mask ``[n, 8, 8]`` is 1 and another where it is 0, in one step of prediction."""
    one, other = bench.positive, bench.other

    def where(conditioning: Link, area: Tensor) -> Link:
        mask = bench.given("TestMask", "mask", area)
        return out(bench.add("ConditioningSetMask", conditioning=conditioning, mask=mask, strength=1.0, set_cond_area="default"))

    both = bench.add("ConditioningCombine", conditioning_1=where(one, mask), conditioning_2=where(other, 1 - mask))
    for name, conditioning in (("both", out(both)), ("one", one), ("other", other)):
        bench.keep(name, latent=bench.one_step(positive=conditioning))

    def check(seen: dict[str, Tensor]) -> None:
        same(seen["both"], torch.where(mask[:, None] > 0, seen["one"], seen["other"]))
        assert apart(seen["one"], seen["other"]) > APART

    return check


@row(CONDITIONING, "ConditioningSetMask, a mask of space", "a prompt for a part of the picture", T2V, DYNAMICRAFTER)
def masks_of_space(bench: Bench) -> Check:
    mask = torch.zeros(1, 8, 8)
    mask[:, :, 4:] = 1
    return by_mask(bench, mask)


@row(
    CONDITIONING,
    "ConditioningSetMask, a mask a frame",
    "a prompt for some of the frames: prompts can change along the video",
    T2V,
    DYNAMICRAFTER,
)
def masks_of_time(bench: Bench) -> Check:
    mask = torch.zeros(4, 8, 8)
    mask[1:3] = 1
    return by_mask(bench, mask)


@row(
    CONDITIONING,
    "ConditioningSetArea, ConditioningSetAreaPercentage",
    "a prompt for a rectangle, which the network sees alone; outside of it nothing changes",
    T2V,
    DYNAMICRAFTER,
)
def areas(bench: Bench) -> Check:
    area = bench.add("ConditioningSetAreaPercentage", conditioning=bench.other, width=0.5, height=1.0, x=0.5, y=0.0, strength=1.0)
    both = bench.add("ConditioningCombine", conditioning_1=bench.positive, conditioning_2=out(area))
    bench.keep("both", latent=bench.one_step(positive=out(both)))
    bench.keep("plain", latent=bench.one_step())

    def check(seen: dict[str, Tensor]) -> None:
        same(seen["both"][..., :4], seen["plain"][..., :4])
        assert apart(seen["both"][..., 4:], seen["plain"][..., 4:]) > APART

    return check


@row(CONDITIONING, "ConditioningCombine", "the mean of both prompts' predictions", T2V, DYNAMICRAFTER)
def combining(bench: Bench) -> Check:
    both = bench.add("ConditioningCombine", conditioning_1=bench.positive, conditioning_2=bench.other)
    for name, conditioning in (("both", out(both)), ("one", bench.positive), ("other", bench.other)):
        bench.keep(name, latent=bench.one_step(positive=conditioning))

    def check(seen: dict[str, Tensor]) -> None:
        same(seen["both"], (seen["one"] + seen["other"]) / 2)
        assert apart(seen["one"], seen["other"]) > APART

    return check


@row(CONDITIONING, "ConditioningConcat", "both prompts' tokens, one after the other", T2V)
def concatenating(bench: Bench) -> Check:
    both = bench.add("ConditioningConcat", conditioning_to=bench.encode(SWAN), conditioning_from=bench.encode(SHIP))
    bench.keep("both", latent=bench.ksampler(steps=1, positive=bench.tell(out(both))))
    return lambda seen: same(seen["both"], first_prediction(bench, torch.cat(core_texts(bench, SWAN, SHIP), dim=1)))


@row(CONDITIONING, "ConditioningAverage", "the weighted mean of both prompts' tokens", T2V)
def averaging(bench: Bench) -> Check:
    texts = {"conditioning_to": bench.encode(SWAN), "conditioning_from": bench.encode(SHIP)}
    bench.keep(
        "mean",
        latent=bench.ksampler(steps=1, positive=bench.tell(out(bench.add("ConditioningAverage", conditioning_to_strength=0.25, **texts)))),
    )

    def check(seen: dict[str, Tensor]) -> None:
        swan, ship = core_texts(bench, SWAN, SHIP)
        same(seen["mean"], first_prediction(bench, 0.25 * swan + 0.75 * ship))

    return check


@row(CONDITIONING, "prompt weights, (word:1.3)", "the word's token is moved away from the empty prompt's, as in core", T2V)
def prompt_weights(bench: Bench) -> Check:
    bench.keep("weighted", latent=bench.ksampler(steps=1, positive=bench.tell(bench.encode(SWAN.replace("swan", "(swan:1.3)")))))

    def check(seen: dict[str, Tensor]) -> None:
        swan, nothing = (text.clone() for text in core_texts(bench, SWAN, NOTHING))
        place = 3  # after the start, "a" and "black"
        swan[:, place] = nothing[:, place] + 1.3 * (swan[:, place] - nothing[:, place])
        same(seen["weighted"], first_prediction(bench, swan))

    return check


@row(CONDITIONING, "textual inversion, embedding:name", "vectors of the text encoder's own width; those of words are the words", T2V)
def textual_inversion(bench: Bench) -> Check:
    black_swan = [1449, 12530]  # in CLIP's vocabulary
    folder = bench.comfyui.base / "models" / "embeddings"
    folder.mkdir(exist_ok=True)
    table = goldens.weights(bench.name)["cond_stage_model.model.token_embedding.weight"]
    save_file({"emb_params": table[black_swan].float()}, folder / "bird.safetensors")
    bench.keep("inverted", conditioning=bench.encode(SWAN.replace("black swan", "embedding:bird")))
    return lambda seen: same(seen["inverted"], core_texts(bench, SWAN)[0])


@row(
    CONDITIONING,
    "positive and negative of different lengths",
    "77 tokens beside 154, and beside 462, give what they give in the core",
    T2V,
    T2V_V1,
)
def uneven_lengths(bench: Bench) -> Check:
    lengths = {"154": " ".join(["swan"] * 100), "462": " ".join(["swan"] * 400)}
    for name, negative in lengths.items():
        bench.keep(name, latent=bench.authors(cfg=3.0, negative=bench.tell(bench.encode(negative))))

    def check(seen: dict[str, Tensor]) -> None:
        for name, negative in lengths.items():
            assert core_texts(bench, negative)[0].shape[1] == int(name)
            same(seen[name], core_latent(bench.path, negative=negative, guidance_scale=3.0))

    return check


# --- Any length ---


def windowed(
    bench: Bench, length: int, overlap: int, schedule: str = "standard_static", fuse: str = "pyramid", closed: bool = False, dim: int = 0
) -> Link:
    """The model with ContextWindowsManual; what is not said is as the node has it."""
    inputs = {
        "context_length": length,
        "context_overlap": overlap,
        "context_schedule": schedule,
        "fuse_method": fuse,
        "closed_loop": closed,
    }
    later = {"freenoise": False, "cond_retain_index_list": "", "split_conds_to_windows": False, "latent_retain_index_list": ""}
    rest = {"context_stride": 1, "dim": dim, "causal_window_fix": True}
    return out(bench.add("ContextWindowsManual", model=bench.model, **inputs, **rest, **later))


@row(LENGTH, "ContextWindowsManual, a window as long as the video", "the identity", T2V, DYNAMICRAFTER)
def a_window_of_all(bench: Bench) -> Check:
    bench.keep("plain", latent=bench.ksampler(cfg=2.0))
    bench.keep("windowed", latent=bench.ksampler(cfg=2.0, model=windowed(bench, 4, 2)))
    return lambda seen: same(seen["windowed"], seen["plain"])


def fuse_weights(fuse: str, place: int, length: int, overlap: int, first: bool, last: bool) -> float:
    """How much a window says of the frame at a place in it, as the fuse methods are described."""
    if fuse == "pyramid":
        return min(place + 1, length - place)
    if fuse == "relative":
        return max(1e-2, 1 - abs(place - (length - 1) / 2) / ((length - 1 + 1e-2) / 2))
    if fuse == "overlap-linear":
        rising = 1 if first or place >= overlap else place / (overlap - 1)
        falling = 1 if last or place < length - overlap else (length - 1 - place) / (overlap - 1)
        return rising * falling
    return 1.0


@row(
    LENGTH, "ContextWindowsManual, every schedule and fuse method",
    "the windows' predictions, each as if sampled alone, weighted; the latents of pictures and the image tokens go with the window", T2V,
    frames=8,
)  # fmt: skip
@row(LENGTH, "ContextWindowsManual, every schedule and fuse method", "as above, with a picture's latent a frame", DYNAMICRAFTER, frames=16)
def windows(bench: Bench) -> Check:
    pictured = bench.name == DYNAMICRAFTER
    total = 16 if pictured else 8
    length, overlap = total // 2, total // 4  # DynamiCrafter's is the number of frames that have image tokens of their own

    def run_of(start: int, count: int = length) -> list[int]:
        return [frame % total for frame in range(start, start + count)]

    overlapping = [run_of(start) for start in range(0, total - overlap, overlap)]
    cases = [("standard_static", fuse, False, length, overlap, overlapping) for fuse in ("pyramid", "relative", "flat", "overlap-linear")]
    cases += [
        ("standard_uniform", "pyramid", False, length, overlap, overlapping),
        ("looped_uniform", "pyramid", False, length, overlap, overlapping),
        ("looped_uniform", "pyramid", True, length, overlap, [*overlapping, run_of(total - overlap)]),
        ("batched", "flat", False, length, 0, [run_of(0), run_of(length)]),
        ("batched", "flat", False, length - 1, 0, [run_of(0, length - 1), run_of(length - 1, length - 1), run_of(2 * length - 2, 2)]),
    ]
    concat = torch.randn(total, 4, 8, 8, generator=torch.manual_seed(4))
    if pictured:
        bench.positive = bench.given_concat(concat)
    for number, (schedule, fuse, closed, size, shared, _) in enumerate(cases):
        bench.keep(f"case {number}", latent=bench.one_step(model=windowed(bench, size, shared, schedule, fuse, closed)))

    blank = bench.given("TestLatent", "latent", torch.zeros(total, 4, 8, 8))
    for frames in {tuple(window) for case in cases for window in case[-1]}:
        before = [frame for frame in frames if frame >= frames[0]]
        part = bench.frames_of(blank, frames[0], len(before))
        if len(before) < len(frames):  # it goes round
            part = out(bench.add("LatentBatch", samples1=part, samples2=bench.frames_of(blank, 0, len(frames) - len(before))))
        alone = bench.alone(len(frames), concat[list(frames)] if pictured else None)
        bench.keep(f"window {frames}", latent=bench.one_step(latent_image=part, positive=alone, negative=alone))

    def check(seen: dict[str, Tensor]) -> None:
        for number, (_, fuse, _, _, shared, chosen) in enumerate(cases):
            fused, weight = torch.zeros(total, 4, 8, 8), torch.zeros(total, 1, 1, 1)
            for frames in chosen:
                said = seen[f"window {tuple(frames)}"]
                for place, frame in enumerate(frames):
                    part = fuse_weights(fuse, place, len(frames), shared, 0 in frames, total - 1 in frames)
                    fused[frame] += part * said[place]
                    weight[frame] += part
            same(seen[f"case {number}"], fused / weight)

    return check


@row(
    LENGTH,
    "ContextWindowsManual as it is set at first",
    "32 frames of a model of 16, each with the red circle that was asked for",
    BUNDLED,
    frames=32,
)
def a_long_video(bench: Bench) -> Check:
    bench.keep("frames", image=bench.decode(bench.ksampler(steps=8, cfg=4.0, model=windowed(bench, 16, 4))))

    def check(seen: dict[str, Tensor]) -> None:
        red, green, blue = seen["frames"].unbind(-1)
        shown = (red > 0.5) & (green < 0.4) & (blue < 0.4)
        area = shown.float().mean(dim=(1, 2))
        assert len(area) == 32 and area.min() > 0.01 and area.max() < 0.3, area

    return check


# --- Several videos at once ---


@row(
    BATCHES,
    "Empty VideoCrafter Latent's batch_size, KSampler",
    "each video of the batch is what it is alone",
    T2V,
    T2V_V1,
    DYNAMICRAFTER,
    videos=2,
)
def a_batch(bench: Bench) -> Check:
    blank = bench.given("TestLatent", "latent", torch.zeros(8, 4, 8, 8))
    alone = bench.alone(4, None)
    for start in (0, 4):
        part = bench.frames_of(blank, start, 4)
        bench.keep(f"from {start}", latent=bench.ksampler(latent_image=part, positive=alone, negative=alone))
    bench.keep("batch", latent=bench.ksampler())

    def check(seen: dict[str, Tensor]) -> None:
        same(seen["batch"], torch.cat([seen["from 0"], seen["from 4"]]))
        assert apart(seen["from 0"], seen["from 4"]) > APART

    return check


@row(
    BATCHES, "ConditioningSetMask with a mask a frame, ConditioningCombine", "another prompt for each video of a batch", T2V, DYNAMICRAFTER,
    videos=2,
)  # fmt: skip
def prompts_of_a_batch(bench: Bench) -> Check:
    first = torch.zeros(8, 8, 8)
    first[:4] = 1
    masks = [bench.given("TestMask", "mask", mask) for mask in (first, 1 - first)]
    both = [
        out(bench.add("ConditioningSetMask", conditioning=conditioning, mask=mask, strength=1.0, set_cond_area="default"))
        for conditioning, mask in zip((bench.positive, bench.other), masks, strict=True)
    ]
    combined = bench.add("ConditioningCombine", conditioning_1=both[0], conditioning_2=both[1])
    for name, conditioning in (("both", out(combined)), ("one", bench.positive), ("other", bench.other)):
        bench.keep(name, latent=bench.ksampler(positive=conditioning))

    def check(seen: dict[str, Tensor]) -> None:
        same(seen["both"], torch.cat([seen["one"][:4], seen["other"][4:]]))
        assert apart(seen["one"], seen["other"]) > APART

    return check


@row(
    BATCHES,
    "LatentBatch, RepeatLatentBatch, LatentFromBatch",
    "videos of the same length are put together, repeated and taken out whole",
    T2V,
)
def core_s_batches(bench: Bench) -> Check:
    joined = out(bench.add("LatentBatch", samples1=bench.latent, samples2=bench.latent))
    repeated = out(bench.add("RepeatLatentBatch", samples=bench.latent, amount=2))
    untold = bench.tell(bench.text)
    sampled = bench.authors(latent_image=joined, positive=untold, negative=untold)
    bench.keep("joined", latent=sampled)
    bench.keep("repeated", latent=bench.authors(latent_image=repeated, positive=untold, negative=untold))
    second = bench.frames_of(sampled, 4, 4)
    bench.keep("taken", latent=second)
    bench.keep("whole again", latent=bench.authors(seed=7, denoise=0.5, latent_image=sampled, positive=untold, negative=untold))
    bench.keep("taken again", latent=bench.authors(seed=8, denoise=0.5, latent_image=second, positive=untold, negative=untold))

    def check(seen: dict[str, Tensor]) -> None:
        for name in ("joined", "repeated"):
            same(seen[name], torch.cat([core_latent(bench.path, seed=seed) for seed in (0, 1)]))
        assert torch.equal(seen["taken"], seen["joined"][4:])
        same(seen["taken again"], seen["whole again"][4:])

    return check


@row(BATCHES, "LatentFromBatch of parts of videos, LatentBatch of differing lengths", "refused, with the numbers", T2V, videos=2)
def parts_are_refused(bench: Bench) -> Check:
    longer = bench.add("EmptyVideoCrafterLatent", width=64, height=64, length=3, batch_size=1)
    wrong = (bench.frames_of(bench.latent, 0, 7), out(bench.add("LatentBatch", samples1=bench.latent, samples2=out(longer))))
    begun = dict(bench.prompt)
    for latent, frames in zip(wrong, (7, 11), strict=True):
        bench.add("TestSave", file="x", latent=bench.authors(latent_image=latent))
        assert_fails(bench.comfyui, bench, "VideoCrafterSampler", f"{frames} frames", "each of its videos has 4", "whole videos")
        bench.prompt = dict(begun)
    return lambda seen: None


@row(
    BATCHES, "ContextWindowsManual on a batch of videos",
    "windows of whole videos (batched, no overlap) are the plain batch; others, and those not over dim 0, are refused with the way out",
    T2V, videos=2,
)  # fmt: skip
def windows_of_a_batch(bench: Bench) -> Check:
    begun = dict(bench.prompt)
    bench.add("TestSave", file="x", latent=bench.ksampler(model=windowed(bench, 6, 2)))
    assert_fails(bench.comfyui, bench, "KSampler", "window of 6 frames", "videos of this batch", "set context_length to 4")
    bench.prompt = dict(begun)
    bench.add("TestSave", file="x", latent=bench.ksampler(model=windowed(bench, 4, 2, dim=2)))
    assert_fails(bench.comfyui, bench, "KSampler", "over dim 2", "set dim to 0")
    bench.prompt = begun
    bench.keep("plain", latent=bench.ksampler())
    bench.keep("windowed", latent=bench.ksampler(model=windowed(bench, 4, 0, "batched", "flat")))
    return lambda seen: same(seen["windowed"], seen["plain"])


# --- Previews and cancelling ---


@row(
    WATCHING, "previews (latent2rgb), progress", "a picture of the first frame at each step; steps and decoded frames are counted",
    BUNDLED, DYNAMICRAFTER, flags=("--preview-method", "latent2rgb"),
)  # fmt: skip
def previews(bench: Bench) -> Check:
    core, own = bench.ksampler(steps=5), bench.authors(steps=4, seed=1)
    decoded = bench.decode(own)
    bench.keep("core", latent=core)
    bench.keep("own", image=decoded)

    def check(seen: dict[str, Tensor]) -> None:
        counted = {node: [told.value for told in bench.progress if told.node_id == node] for node in (core[0], own[0], decoded[0])}
        assert counted[core[0]] == [1, 2, 3, 4, 5] and counted[own[0]] == [1, 2, 3, 4]
        assert counted[decoded[0]][-1] == 4 == next(told.maximum for told in bench.progress if told.node_id == decoded[0])
        pictures = [Image.open(io.BytesIO(preview)) for preview in bench.previews]
        assert len(pictures) == 5 + 4 and all(picture.width == picture.height for picture in pictures), pictures
        assert min(np.asarray(picture).std() for picture in pictures) > 1

    return check


@row(WATCHING, "Cancel", "ends a run within the step that is under way", BUNDLED, frames=16)
def cancelling(bench: Bench) -> Check:
    sampler = bench.ksampler(steps=60)
    bench.add("TestSave", file="x", latent=sampler)
    told: list[int] = []
    at: list[int] = []

    def watch(progress: Progress) -> None:
        told.append(progress.value)
        if progress.value == 2:
            bench.comfyui.interrupt()
            at.append(len(told))

    with pytest.raises(Interrupted) as stopped:
        bench.comfyui.run(bench.prompt, on_progress=watch)
    assert stopped.value.node_id == sampler[0]
    # A message that was under way when the server took the order may still come.
    assert len(told) - at[0] <= 1, told
    return lambda seen: None


# --- Options of ComfyUI's command line ---


@dataclass(frozen=True)
class Flag:
    """An option, and how far a video made under it may be from float32's, in its deviations."""

    option: str
    bound: float
    needs_gpu: bool = False


#: Rounding a number is off by ``u`` of it at most, by half of that in the mean. Some 60 layers stand one behind the other, and
#: independent errors add as squares: sqrt(60) / 2 is about 4.
FLOAT16, BFLOAT16, FP8_E4M3 = (4 * u for u in (2**-11, 2**-8, 2**-4))
FLAGS = (
    Flag("--cpu", goldens.TOLERANCE),
    Flag("--lowvram", BFLOAT16, needs_gpu=True),
    Flag("--novram", BFLOAT16, needs_gpu=True),
    Flag("--fp16-unet", FLOAT16),
    Flag("--bf16-unet", BFLOAT16),
    Flag("--fp8_e4m3fn-unet", FP8_E4M3),
    Flag("--force-channels-last", goldens.TOLERANCE),
    Flag("--use-split-cross-attention", goldens.TOLERANCE),
    Flag("--use-quad-cross-attention", goldens.TOLERANCE),
)

#: What can't be had, and why.
LIMITS = (
    (
        "KSampler on several videos whose conditioning was made without the latent",
        "KSampler passes on only the numbers of a LATENT, so they are taken for one long video. Connect the latent to VideoCrafter "
        "Conditioning (or Image to Video); VideoCrafter Sampler knows by itself.",
    ),
    (
        "LatentBatch of videos from VAEEncode",
        "Only Empty VideoCrafter Latent says how many frames a video has; a batch of anything else is one video. The same for "
        "RebatchLatents, which drops what a LATENT says.",
    ),
    (
        "LatentBatch of videos of different lengths",
        "Refused where the sum does not divide into videos as long as the first; where it does (8 frames and 16), it is taken for such.",
    ),
    ("LoRA for the image projector", "ComfyUI looks for LoRA keys in the UNet and the text encoder only."),
    ("LoRA for relative position tables (VideoCrafter1)", "They are no matrices of weights; ComfyUI's names don't reach them."),
    (
        "ContextWindowsManual's causal_window_fix",
        "Without effect, whatever it is set to: these models see as many frames as they were trained on.",
    ),
    (
        "A steady motion over context windows",
        "Windows are made apart and only averaged where they overlap, so a motion may jump there.",
    ),
    ("Latent previews", "ComfyUI shows the first frame of a batch."),
    (
        "heun and dpm_2_ancestral in four steps of the normal scheduler with DynamiCrafter",
        "Its schedule begins without any signal, and their extrapolation over that first step makes numbers 80 and 20 times too large.",
    ),
)
