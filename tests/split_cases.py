"""Run by torchrun in ``test_split.py``: recorded runs in one process and shared by all, whose differences go into a file."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from harness import golden_contents, golden_runs, goldens
from vc_core.diffusion.deep_cache import DeepCache
from vc_core.diffusion.denoiser import GuidedDenoiser
from vc_core.diffusion.guidance import Guidance
from vc_core.parallel.split import SPLITS, Split
from vc_core.parallel.world import World, joined

#: With a clip's run, and how the processes share it.
MODELS = ("t2v_512_v2", "t2v_512_v1", "dynamicrafter_512_v1")
TEMPORAL = Guidance(scale=4.0, rescale=0.5, temporal_scale=0.7)


def recorded_run(name: str, kind: str, world: World) -> dict[str, float | bool]:
    """A recorded run and its decoding, shared and in one process."""
    model, recorded = goldens.load(name), goldens.recording(name)
    run, golden = golden_contents.runs(recorded)[0], recorded.read("sampling")
    model.split = Split.of(kind, world, model.unet)
    shared = golden_runs.run_sampling(model, recorded, run)
    model.split = None  # its norms stay ready for shared frames
    alone = golden_runs.run_sampling(model, recorded, run)
    return {
        "latent equal": torch.equal(shared.latent, alone.latent), "latent": goldens.error(shared.latent, alone.latent),
        "video equal": torch.equal(shared.video, alone.video), "video": goldens.error(shared.video, alone.video),
        "recorded": goldens.error(shared.latent, golden[f"{run}.latent"]),
    }


def odd_steps(name: str, kind: str, world: World) -> dict[str, float | bool]:
    """Two steps with DeepCache, temporal guidance and rescaling, of 5 frames of 3x5 positions, which divide by no number of processes.

    Image tokens are for each frame where the model has such.
    """
    model, recorded = goldens.load(name), goldens.recording(name)
    generator = torch.Generator().manual_seed(0)
    x, times = torch.randn(1, model.config.unet.out_channels, 5, 3, 5, generator=generator), torch.tensor([500])
    both = []
    for each in golden_runs.conditionings(model, recorded, golden_contents.runs(recorded)[0]):
        changes: dict[str, torch.Tensor] = {"text": each.text[:1]}
        if each.concat is not None and each.image_tokens is not None:
            count = 5 * model.config.unet.image_tokens_per_frame
            changes["image_tokens"] = torch.randn(1, count, each.image_tokens.shape[2], generator=generator)
            changes["concat"] = torch.randn(1, each.concat.shape[1], *x.shape[2:], generator=generator)
        both.append(replace(each, **changes))

    def steps(split: Split | None) -> torch.Tensor:
        denoiser = GuidedDenoiser(model.unet, *both, TEMPORAL, deep_cache=DeepCache(2, 1), split=split)
        with torch.inference_mode():
            return torch.stack([denoiser(x, times), denoiser(x + 1, times - 20)])

    several, one = steps(Split.of(kind, world, model.unet)), steps(None)
    return {"equal": torch.equal(several, one), "error": goldens.error(several, one)}


def main(target: str) -> None:
    with joined() as world:
        found = {f"run {kind}": recorded_run(MODELS[0], kind, world) for kind in ("guidance", "frames")}
        found |= {f"{name} {kind}": odd_steps(name, kind, world) for name in MODELS for kind in SPLITS}
        every = [None] * world.size
        torch.distributed.all_gather_object(every, found)
        if world.leads:
            Path(target).write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
