"""Samplers and schedulers, denoising in part, and masks."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import goldens
from ..bench import BUNDLED, DYNAMICRAFTER, SCALE, T2V, T2V_V1, Bench, apart, same
from ..graphs import out
from .table import SAMPLERS, Check, row

#: They add no noise on the way, so they all solve the same equation.
DETERMINISTIC = (
    "euler", "heun", "heunpp2", "exp_heun_2_x0", "dpm_2", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2m", "ipndm", "ipndm_v", "deis",
    "res_multistep", "gradient_estimation", "ddim", "uni_pc", "uni_pc_bh2",
)
#: UniPC ends at this sigma in place of 0.
UNIPC_LAST_SIGMA = 0.001


@row(SAMPLERS, "KSampler, every sampler", "if the model predicts the same video at every step, the result is that video", BUNDLED, frames=2)
def every_sampler(bench: Bench) -> Check:
    """Whatever path a sampler takes, it ends at the prediction, up to the noise that is left where it does not go down to 0."""
    names, steps = bench.options("KSampler", "sampler_name"), 3
    predicted = torch.randn(2, 4, 8, 8, generator=torch.manual_seed(1))
    latent = bench.tensor_input("TestLatent", "latent", predicted)
    bench.patch("TestForeseen", latent=latent, seconds=0.0)
    for name in names:
        bench.save(name, latent=bench.ksampler(sampler_name=name, scheduler="karras", steps=steps))
    bench.save("sigmas", sigmas=out(bench.add("BasicScheduler", model=bench.model, scheduler="karras", steps=steps, denoise=1.0)))

    def check(results: dict[str, Tensor]) -> None:
        last = results["sigmas"][-2].item()
        left = {"dpm_fast": last, "dpm_adaptive": last, "uni_pc": UNIPC_LAST_SIGMA, "uni_pc_bh2": UNIPC_LAST_SIGMA}
        away = {name: (results[name] - predicted).mul(SCALE).std().item() for name in names}
        wrong = {name: value for name, value in away.items() if value > 1.1 * left.get(name, 0.0) + 1e-5}
        assert not wrong, wrong

    return check


@row(
    SAMPLERS, "KSampler, every sampler", "each ends in finite numbers from a schedule without signal at its end", DYNAMICRAFTER, frames=2,
    long=True,
)
def every_sampler_of_v(bench: Bench) -> Check:
    names = bench.options("KSampler", "sampler_name")
    for name in names:
        bench.save(name, latent=bench.ksampler(sampler_name=name, steps=2))

    def check(results: dict[str, Tensor]) -> None:
        assert not [name for name in names if not results[name].isfinite().all() or results[name].std() == 0]

    return check


@row(
    SAMPLERS, "KSampler, the deterministic samplers", "with more steps they meet in one video, all at least as fast as euler", T2V,
    frames=2, long=True,
)
def deterministic_samplers_agree(bench: Bench) -> Check:
    steps, known = 20, bench.options("KSampler", "sampler_name")
    names = [name for name in DETERMINISTIC if name in known]
    for name in names:
        bench.save(name, latent=bench.ksampler(sampler_name=name, scheduler="karras", steps=steps))
    bench.save("half as far", latent=bench.ksampler(sampler_name="euler", scheduler="karras", steps=2 * steps))
    bench.save("goal", latent=bench.ksampler(sampler_name="heun", scheduler="karras", steps=3 * steps))

    def check(results: dict[str, Tensor]) -> None:
        # Euler's error falls as 1 / steps: half of it lies between a run and one of twice the steps. A quarter more for what falls faster.
        bound = 1.25 * 2 * apart(results["half as far"], results["euler"])
        assert bound < 0.1
        away = {name: apart(results[name], results["goal"]) for name in names}
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
        bench.save(name, latent=bench.ksampler(scheduler=name))
        bench.save(f"{name} sigmas", sigmas=out(bench.add("BasicScheduler", model=bench.model, scheduler=name, steps=8, denoise=1.0)))

    def check(results: dict[str, Tensor]) -> None:
        # Of a schedule without signal at its end core's last sigma is the large one; any other is the reference's. Both scales end at 0.7.
        alpha = max(goldens.read(bench.name, "schedule")["alphas_cumprod"][-1].item(), 4.8973451890853435e-08)
        first = ((1 - alpha) / alpha) ** 0.5 / 0.7
        for name in names:
            sigmas = results[f"{name} sigmas"]
            assert sigmas[0] <= first * 1.0001 and sigmas[-1] == 0 and (sigmas.diff() < 0).all(), (name, sigmas, first)
            assert results[name].isfinite().all() and results[name].std() > 0.1

    return check


@row(
    SAMPLERS, "ddim with ddim_uniform, VideoCrafter DDIM at eta 0",
    "the same prediction if both have the same timesteps: in KSampler at every number of steps for which 1000 // steps doesn't divide "
    "999; BasicScheduler leaves out the first timestep if the spacing gives more than requested (7 gives 8)",
    T2V, T2V_V1, DYNAMICRAFTER,
)
def ddim_is_the_authors(bench: Bench) -> Check:
    counts = (2, 3, 4, 5, 7, 9, 10, 25, 27, 30, 50, 111, 200, 333)
    for steps in counts:
        bench.save(
            f"core {steps}", sigmas=out(bench.add("BasicScheduler", model=bench.model, scheduler="ddim_uniform", steps=steps, denoise=1.0))
        )
        bench.save(
            f"ours {steps}", sigmas=out(bench.add("VideoCrafterScheduler", model=bench.model, steps=steps, denoise=1.0, spacing="uniform"))
        )
    # From an empty latent the authors start with the noise itself; from any other both noise it to the first timestep.
    start = bench.tensor_input("TestLatent", "latent", torch.randn(4, 4, 8, 8, generator=torch.manual_seed(1)) / SCALE)
    for steps in (4, 7):
        bench.save(
            f"run {steps}", latent=bench.ksampler(sampler_name="ddim", scheduler="ddim_uniform", steps=steps, cfg=3.0, latent_image=start)
        )
        guider = bench.add("CFGGuider", model=bench.model, positive=bench.positive, negative=bench.negative, cfg=3.0)
        sampled = bench.add(
            "SamplerCustomAdvanced", noise=out(bench.add("RandomNoise", noise_seed=0)), guider=out(guider), latent_image=start,
            sampler=out(bench.add("VideoCrafterDDIM", eta=0.0)),
            sigmas=out(bench.add("VideoCrafterScheduler", model=bench.model, steps=steps, denoise=1.0, spacing="uniform")),
        )
        # The last prediction: the authors' own last step leaves the first timestep's noise in.
        bench.save(f"our run {steps}", latent=out(sampled, 1))

    def check(results: dict[str, Tensor]) -> None:
        for steps in counts:
            core, ours = results[f"core {steps}"], results[f"ours {steps}"]
            # Where a timestep would be 1000 the authors' code fails; ours takes the last one, core leaves it out.
            one_more = 999 % (1000 // steps) == 0
            visited = len(range(1, 1000, 1000 // steps)) + one_more
            assert len(ours) == visited + 1 and len(core) == min(steps, visited - one_more) + 1
            same(core, ours[-len(core) :])
        for steps in (4, 7):
            same(results[f"run {steps}"], results[f"our run {steps}"])

    return check


@row(
    SAMPLERS,
    "the sample scale",
    "at any timestep the network's input is sqrt(a) s x0 + sqrt(1 - a) noise, by the reference's tables",
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
        "TestNetworkInput", model=bench.model, positive=bench.positive, noise=bench.tensor_input("TestNoise", "noise", noise),
        latent=bench.tensor_input("TestLatent", "latent", clean / SCALE), timesteps=",".join(str(int(timestep)) for timestep in timesteps),
    )
    bench.save("inputs", latent=out(seen_by))
    bench.save("timesteps", sigmas=out(seen_by, 1))

    def check(results: dict[str, Tensor]) -> None:
        assert results["timesteps"].tolist() == timesteps.tolist()
        for got, alpha, scale in zip(results["inputs"].split(4), alphas, scales, strict=True):
            # Where nothing of the sample is to be left, core's large sigma leaves 2e-4 of it in.
            tolerance = goldens.TOLERANCE if alpha > 0 else 4e-4
            same(got, alpha.sqrt() * scale * clean + (1 - alpha).sqrt() * noise, tolerance)

    return check


@row(SAMPLERS, "KSamplerAdvanced", "a run split in two is one run", T2V, DYNAMICRAFTER)
def a_run_split_in_two(bench: Bench) -> Check:
    bench.save("whole", latent=bench.ksampler(steps=4, cfg=3.0))
    bench.save("parts", latent=bench.part(2, 4, cfg=3.0, latent_image=bench.part(0, 2, cfg=3.0)))
    return lambda results: same(results["parts"], results["whole"])


@row(SAMPLERS, "denoise below 1", "video to video: the lower, the closer to the input video", T2V, BUNDLED)
def the_lower_the_nearer(bench: Bench) -> Check:
    shares = (0.1, 0.3, 0.5, 0.7, 1.0)
    start = bench.ksampler(seed=1, steps=6)
    bench.save("start", latent=start)
    for share in shares:
        bench.save(f"k {share}", latent=bench.ksampler(steps=4, denoise=share, latent_image=start))
        bench.save(f"own {share}", latent=bench.authors(steps=4, eta=0.0, denoise=share, latent_image=start))

    def check(results: dict[str, Tensor]) -> None:
        for sampler in ("k", "own"):
            away = [apart(results[f"{sampler} {share}"], results["start"]) for share in shares]
            assert away == sorted(away) and away[0] < 0.7 * away[-1], away

    return check


def masked(bench: Bench, mask: Tensor) -> Check:
    """Sampling where a mask ``[n, H, W]`` is 1, with several samplers; the rest must stay as it was."""
    start = torch.randn(4, 4, 8, 8, generator=torch.manual_seed(1)) / SCALE
    samples, noise_mask = bench.tensor_input("TestLatent", "latent", start), bench.tensor_input("TestMask", "mask", mask)
    latent = bench.add("SetLatentNoiseMask", samples=samples, mask=noise_mask)
    for sampler in ("euler", "heun", "dpmpp_2m_sde"):
        bench.save(sampler, latent=bench.ksampler(sampler_name=sampler, steps=4, latent_image=out(latent)))
    for eta in (0.0, 1.0):
        bench.save(f"own {eta:g}", latent=bench.authors(eta=eta, latent_image=out(latent)))

    def check(results: dict[str, Tensor]) -> None:
        fixed = (mask[:, ::8, ::8] == 0)[:, None].expand(4, 4, 8, 8)
        for latent in results.values():
            same(latent[fixed], start[fixed])
            assert apart(latent[~fixed], start[~fixed]) > 0.3

    return check


@row(SAMPLERS, "SetLatentNoiseMask, a mask of space", "inpainting: nothing outside of the mask changes", T2V, DYNAMICRAFTER)
def inpainting(bench: Bench) -> Check:
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    return masked(bench, mask)


@row(
    SAMPLERS,
    "SetLatentNoiseMask, a mask a frame",
    "frames outside of the mask don't change, so a clip can be continued",
    T2V,
    DYNAMICRAFTER,
)
def continuing(bench: Bench) -> Check:
    mask = torch.zeros(4, 64, 64)
    mask[2:] = 1
    return masked(bench, mask)
