"""Several videos at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..bench import APART, DYNAMICRAFTER, T2V, T2V_V1, Bench, apart, core_latent, same
from ..graphs import assert_fails, out
from .length import windowed
from .table import BATCHES, Check, row


@row(
    BATCHES,
    "Empty VideoCrafter Latent's batch_size, KSampler",
    "each video of the batch is the same as when it is sampled alone",
    T2V,
    T2V_V1,
    DYNAMICRAFTER,
    videos=2,
)
def a_batch(bench: Bench) -> Check:
    blank = bench.tensor_input("TestLatent", "latent", torch.zeros(8, 4, 8, 8))
    alone = bench.one_video(4, None)
    for start in (0, 4):
        part = bench.frames_of(blank, start, 4)
        bench.save(f"from {start}", latent=bench.one_step(latent_image=part, positive=alone, negative=alone))
    bench.save("batch", latent=bench.one_step())

    def check(results: dict[str, Tensor]) -> None:
        same(results["batch"], torch.cat([results["from 0"], results["from 4"]]))
        assert apart(results["from 0"], results["from 4"]) > APART

    return check


@row(
    BATCHES, "ConditioningSetMask with a mask a frame, ConditioningCombine", "another prompt for each video of a batch", T2V, DYNAMICRAFTER,
    videos=2,
)
def prompts_of_a_batch(bench: Bench) -> Check:
    first = torch.zeros(8, 8, 8)
    first[:4] = 1
    masks = [bench.tensor_input("TestMask", "mask", mask) for mask in (first, 1 - first)]
    both = [
        out(bench.add("ConditioningSetMask", conditioning=conditioning, mask=mask, strength=1.0, set_cond_area="default"))
        for conditioning, mask in zip((bench.positive, bench.other), masks, strict=True)
    ]
    combined = bench.add("ConditioningCombine", conditioning_1=both[0], conditioning_2=both[1])
    for name, conditioning in (("both", out(combined)), ("one", bench.positive), ("other", bench.other)):
        bench.save(name, latent=bench.ksampler(positive=conditioning))

    def check(results: dict[str, Tensor]) -> None:
        same(results["both"], torch.cat([results["one"][:4], results["other"][4:]]))
        assert apart(results["one"], results["other"]) > APART

    return check


@row(
    BATCHES,
    "LatentBatch, RepeatLatentBatch, LatentFromBatch",
    "complete videos of the same length can be joined, repeated and taken out",
    T2V,
)
def core_s_batches(bench: Bench) -> Check:
    joined = out(bench.add("LatentBatch", samples1=bench.latent, samples2=bench.latent))
    repeated = out(bench.add("RepeatLatentBatch", samples=bench.latent, amount=2))
    plain = bench.with_fps(bench.text)
    sampled = bench.authors(latent_image=joined, positive=plain, negative=plain)
    bench.save("joined", latent=sampled)
    bench.save("repeated", latent=bench.authors(latent_image=repeated, positive=plain, negative=plain))
    second = bench.frames_of(sampled, 4, 4)
    bench.save("taken", latent=second)
    bench.save("whole again", latent=bench.authors(seed=7, denoise=0.5, latent_image=sampled, positive=plain, negative=plain))
    bench.save("taken again", latent=bench.authors(seed=8, denoise=0.5, latent_image=second, positive=plain, negative=plain))

    def check(results: dict[str, Tensor]) -> None:
        for name in ("joined", "repeated"):
            same(results[name], torch.cat([core_latent(bench.path, seed=seed) for seed in (0, 1)]))
        assert torch.equal(results["taken"], results["joined"][4:])
        same(results["taken again"], results["whole again"][4:])

    return check


@row(BATCHES, "LatentFromBatch of unequal parts of videos, LatentBatch of differing lengths", "refused, with the numbers", T2V, videos=2)
def wrong_batches_are_refused(bench: Bench) -> Check:
    parts = bench.frames_of(bench.latent, 0, 7)
    # Of the sums 11 and 16 the second could be taken for four videos of 4.
    others = [bench.add("EmptyVideoCrafterLatent", width=64, height=64, length=length, batch_size=1) for length in (3, 8)]
    joined = [out(bench.add("LatentBatch", samples1=bench.latent, samples2=out(other))) for other in others]
    again = out(bench.add("LatentFromBatch", samples=joined[1], batch_index=4, length=12))
    start = dict(bench.prompt)
    wrong = {
        "4 and 3": (parts, "different lengths, 3 and 4 frames"),
        "4, 4 and 3": (joined[0], "different lengths, 3 and 4 frames"),
        "4, 4 and 8": (joined[1], "different lengths, 4 and 8 frames"),
        "4 and 8": (again, "different lengths, 4 and 8 frames"),
    }
    for latent, *parts in wrong.values():
        bench.add("TestSave", file="x", latent=bench.authors(latent_image=latent))
        assert_fails(bench.comfyui, bench, "VideoCrafterSampler", *parts)
        bench.prompt = dict(start)
    bench.add("TestSave", file="x", latent=bench.ksampler(positive=bench.with_fps(bench.text, joined[1])))
    assert_fails(bench.comfyui, bench, "VideoCrafterConditioning", *wrong["4, 4 and 8"][1:])
    return lambda results: None


@row(
    BATCHES, "ContextWindowsManual on a batch of videos",
    "windows of one video each (batched, no overlap) equal sampling without windows; other windows, and those not over dim 0, are refused "
    "with a remedy",
    T2V, videos=2,
)
def windows_of_a_batch(bench: Bench) -> Check:
    start = dict(bench.prompt)
    bench.add("TestSave", file="x", latent=bench.ksampler(model=windowed(bench, 6, 2)))
    assert_fails(bench.comfyui, bench, "KSampler", "window of 6 frames", "videos of this batch", "set context_length to 4")
    bench.prompt = dict(start)
    bench.add("TestSave", file="x", latent=bench.ksampler(model=windowed(bench, 4, 2, dim=2)))
    assert_fails(bench.comfyui, bench, "KSampler", "over dim 2", "set dim to 0")
    bench.prompt = start
    bench.save("plain", latent=bench.ksampler())
    bench.save("windowed", latent=bench.ksampler(model=windowed(bench, 4, 0, "batched", "flat")))
    return lambda results: same(results["windowed"], results["plain"])
