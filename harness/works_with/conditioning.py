"""What is done to conditionings: ranges, masks, combinations, prompt weights."""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch import Tensor

import vc_core
from vc_core.models.conditioning import Conditioning

from .. import goldens
from ..bench import APART, DYNAMICRAFTER, NOTHING, SCALE, SHIP, SWAN, T2V, T2V_V1, Bench, Link, apart, core_latent, same
from ..graphs import out
from .table import CONDITIONING, Check, row


def first_prediction(bench: Bench, context: Tensor) -> Tensor:
    """What one step of KSampler comes to, by the reference's tables and the core's UNet, with text ``[1, n, width]``."""
    noise = torch.randn(4, 4, 8, 8, generator=torch.manual_seed(0))
    golden = goldens.read(bench.name, "schedule")
    alpha, scale = golden["alphas_cumprod"][999], golden["scale_arr"][999]
    video = noise.transpose(0, 1)[None]
    with torch.no_grad():
        eps = vc_core.load(bench.path).unet(video, torch.tensor([999]), Conditioning(context, fps=torch.tensor([8.0])))
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
    bench.save("ranged", latent=bench.ksampler(steps=4, positive=out(both)))
    bench.save("halves", latent=bench.part(2, 4, positive=late, latent_image=bench.part(0, 2, positive=early)))
    bench.save("late", latent=bench.ksampler(steps=4, positive=late))

    def check(results: dict[str, Tensor]) -> None:
        same(results["ranged"], results["halves"])
        assert apart(results["ranged"], results["late"]) > APART

    return check


def by_mask(bench: Bench, mask: Tensor) -> Check:
    """One prompt where a mask ``[n, 8, 8]`` is 1 and another where it is 0, in one step of prediction."""
    one, other = bench.positive, bench.other

    def where(conditioning: Link, area: Tensor) -> Link:
        mask = bench.tensor_input("TestMask", "mask", area)
        return out(bench.add("ConditioningSetMask", conditioning=conditioning, mask=mask, strength=1.0, set_cond_area="default"))

    both = bench.add("ConditioningCombine", conditioning_1=where(one, mask), conditioning_2=where(other, 1 - mask))
    for name, conditioning in (("both", out(both)), ("one", one), ("other", other)):
        bench.save(name, latent=bench.one_step(positive=conditioning))

    def check(results: dict[str, Tensor]) -> None:
        same(results["both"], torch.where(mask[:, None] > 0, results["one"], results["other"]))
        assert apart(results["one"], results["other"]) > APART

    return check


@row(CONDITIONING, "ConditioningSetMask, a mask of space", "a prompt for a part of the image", T2V, DYNAMICRAFTER)
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
    "a prompt for a rectangle, which is denoised on its own; nothing outside of it changes",
    T2V,
    DYNAMICRAFTER,
)
def areas(bench: Bench) -> Check:
    area = bench.add("ConditioningSetAreaPercentage", conditioning=bench.other, width=0.5, height=1.0, x=0.5, y=0.0, strength=1.0)
    both = bench.add("ConditioningCombine", conditioning_1=bench.positive, conditioning_2=out(area))
    bench.save("both", latent=bench.one_step(positive=out(both)))
    bench.save("plain", latent=bench.one_step())

    def check(results: dict[str, Tensor]) -> None:
        same(results["both"][..., :4], results["plain"][..., :4])
        assert apart(results["both"][..., 4:], results["plain"][..., 4:]) > APART

    return check


@row(CONDITIONING, "ConditioningCombine", "the mean of both prompts' predictions", T2V, DYNAMICRAFTER)
def combining(bench: Bench) -> Check:
    both = bench.add("ConditioningCombine", conditioning_1=bench.positive, conditioning_2=bench.other)
    for name, conditioning in (("both", out(both)), ("one", bench.positive), ("other", bench.other)):
        bench.save(name, latent=bench.one_step(positive=conditioning))

    def check(results: dict[str, Tensor]) -> None:
        same(results["both"], (results["one"] + results["other"]) / 2)
        assert apart(results["one"], results["other"]) > APART

    return check


@row(CONDITIONING, "ConditioningConcat", "both prompts' tokens, one after the other", T2V)
def concatenating(bench: Bench) -> Check:
    both = bench.add("ConditioningConcat", conditioning_to=bench.encode(SWAN), conditioning_from=bench.encode(SHIP))
    bench.save("both", latent=bench.ksampler(steps=1, positive=bench.with_fps(out(both))))
    return lambda results: same(results["both"], first_prediction(bench, torch.cat(core_texts(bench, SWAN, SHIP), dim=1)))


@row(CONDITIONING, "ConditioningAverage", "the weighted mean of both prompts' tokens", T2V)
def averaging(bench: Bench) -> Check:
    texts = {"conditioning_to": bench.encode(SWAN), "conditioning_from": bench.encode(SHIP)}
    mean = out(bench.add("ConditioningAverage", conditioning_to_strength=0.25, **texts))
    bench.save("mean", latent=bench.ksampler(steps=1, positive=bench.with_fps(mean)))

    def check(results: dict[str, Tensor]) -> None:
        swan, ship = core_texts(bench, SWAN, SHIP)
        same(results["mean"], first_prediction(bench, 0.25 * swan + 0.75 * ship))

    return check


@row(CONDITIONING, "prompt weights, (word:1.3)", "the word's token is moved away from the empty prompt's, as in core", T2V)
def prompt_weights(bench: Bench) -> Check:
    bench.save("weighted", latent=bench.ksampler(steps=1, positive=bench.with_fps(bench.encode(SWAN.replace("swan", "(swan:1.3)")))))

    def check(results: dict[str, Tensor]) -> None:
        swan, nothing = (text.clone() for text in core_texts(bench, SWAN, NOTHING))
        place = 3  # after the start, "a" and "black"
        swan[:, place] = nothing[:, place] + 1.3 * (swan[:, place] - nothing[:, place])
        same(results["weighted"], first_prediction(bench, swan))

    return check


@row(CONDITIONING, "textual inversion, embedding:name", "vectors of the text encoder's own width; those of words are the words", T2V)
def textual_inversion(bench: Bench) -> Check:
    black_swan = [1449, 12530]  # in CLIP's vocabulary
    folder = bench.comfyui.base / "models" / "embeddings"
    folder.mkdir(exist_ok=True)
    table = goldens.weights(bench.name)["cond_stage_model.model.token_embedding.weight"]
    save_file({"emb_params": table[black_swan].float()}, folder / "bird.safetensors")
    bench.save("inverted", conditioning=bench.encode(SWAN.replace("black swan", "embedding:bird")))
    return lambda results: same(results["inverted"], core_texts(bench, SWAN)[0])


@row(
    CONDITIONING,
    "positive and negative of different lengths",
    "77 tokens with 154, and with 462, give the same as in the core",
    T2V,
    T2V_V1,
)
def uneven_lengths(bench: Bench) -> Check:
    lengths = {"154": " ".join(["swan"] * 100), "462": " ".join(["swan"] * 400)}
    for name, negative in lengths.items():
        bench.save(name, latent=bench.authors(cfg=3.0, negative=bench.with_fps(bench.encode(negative))))

    def check(results: dict[str, Tensor]) -> None:
        for name, negative in lengths.items():
            assert core_texts(bench, negative)[0].shape[1] == int(name)
            same(results[name], core_latent(bench.path, negative=negative, guidance_scale=3.0))

    return check
