"""The bundled few-step model makes what it is asked for in four passes, judged by pixels alone."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from harness.judge import as_pixels, judge
from tests.bundled_cases import BATCH, COLOURS, DIRECTIONS, FEW_STEPS, SHAPES, TEXT_TO_VIDEO, model
from vc_core.config import SamplingConfig


def videos(prompts: list[str], **settings: float) -> list[np.ndarray]:
    """Clips ``[16, 64, 64, 3]`` of 0..255 with the model's own settings and one seed for all."""
    parts = (prompts[first : first + BATCH] for first in range(0, len(prompts), BATCH))
    return [as_pixels(video) for part in parts for video in model(FEW_STEPS).text_to_video(part, seed=0, **settings).numpy()]


def test_it_is_the_text_model_with_a_scale_of_guidance_and_few_steps() -> None:
    config, base = model(FEW_STEPS).config, model(TEXT_TO_VIDEO).config
    sampling: SamplingConfig = config.sampling
    assert (sampling.sampler, sampling.spacing, sampling.steps, sampling.guidance_scale) == ("consistency", "consistency", 4, 1.0)
    assert config.unet.guidance_embedding and not base.unet.guidance_embedding
    assert (config.autoencoder, config.text_encoder, config.schedule) == (base.autoencoder, base.text_encoder, base.schedule)


def test_four_prompts() -> None:
    wanted = [("red", "circle", "left"), ("green", "square", "right"), ("blue", "triangle", "up"), ("white", "circle", "down")]
    seen = [judge(video) for video in videos([f"a {colour} {shape} moving {direction}" for colour, shape, direction in wanted])]
    assert [(got.colour, got.direction) for got in seen] == [(colour, direction) for colour, _, direction in wanted]


@pytest.mark.full
def test_all_prompts() -> None:
    wanted = list(product(COLOURS, SHAPES, DIRECTIONS))
    seen = [judge(video) for video in videos([f"a {colour} {shape} moving {direction}" for colour, shape, direction in wanted])]
    found = [(got.colour, got.shape, got.direction) for got in seen]
    right = dict(zip(("colour", "shape", "direction"), (np.array(wanted) == np.array(found, dtype=object)).mean(0), strict=True))
    print(right)
    assert right["colour"] >= 0.95 and right["direction"] >= 0.90 and right["shape"] >= 0.80, right


@pytest.mark.full
def test_the_scale_of_guidance_matters() -> None:
    """It is an input of the network: other scales give other videos, without a second pass."""
    prompts = ["a green square moving left", "a purple triangle moving up"]
    low, high = (np.stack(videos(prompts, distilled_guidance=scale)).astype(float) for scale in (2.0, 6.0))
    assert np.abs(low - high).mean() > 0.3
    assert torch.isfinite(torch.from_numpy(high)).all()
