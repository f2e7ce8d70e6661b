"""What is refused must not take in what works: prompts of any length, 1 to 40 frames, sizes from 8 to 4096."""

from __future__ import annotations

import pytest

import vc_core
from harness import goldens

SMALL = {"frames": 1, "height": 16, "width": 16, "steps": 1, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> vc_core.VideoModel:
    return vc_core.load(goldens.write_checkpoint("t2v_512_v2", tmp_path_factory.mktemp("model") / "model.safetensors"))


def test_a_prompt_of_ten_thousand_words(model):
    """In windows of 75 tokens; a word is one token."""
    tokens = model.encode_text(["swan " * 10_000])
    assert tokens.shape[1] == 77 * -(-10_000 // 75) and tokens.isfinite().all()
    assert model.text_to_video("swan " * 10_000, **SMALL).isfinite().all()


def test_1_to_40_frames(model):
    for frames in range(1, 41):
        video = model.text_to_video("a swan", **SMALL | {"frames": frames})
        assert video.shape == (1, 3, frames, 16, 16) and video.isfinite().all()


@pytest.mark.parametrize("height, width", [(8, 8), (8, 4096), (4096, 8), (24, 40), (1000, 8), (8, 1192)])
def test_sizes_from_8_to_4096(model, height, width):
    video = model.text_to_video("a swan", **SMALL | {"height": height, "width": width})
    assert video.shape == (1, 3, 1, height, width) and video.isfinite().all()


def test_1_to_1000_steps(model):
    """As many timesteps as the rules give: steps of 1000 // steps for uniform, and the number asked for, ending at the last one."""
    for steps in range(1, 1001):
        uniform, trailing = (model.schedule.visited(steps, spacing, 1.0) for spacing in ("uniform", "uniform_trailing"))
        assert len(uniform) == -(-1000 // (1000 // steps)) and uniform[0] == 1 and (uniform.diff() >= 0).all() and uniform[-1] <= 999
        assert len(trailing) == steps and trailing[-1] == 999 and (trailing.diff() > 0).all() and trailing[0] >= 0
