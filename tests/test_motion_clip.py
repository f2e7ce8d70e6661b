"""``vc-core generate --motion-from``: the noise of a run moves with a clip, and what is refused before a model is loaded."""

from __future__ import annotations

import pytest
import torch

import vc_core
from vc_core.__main__ import main, parser
from vc_core.config import load_config
from vc_core.diffusion.noise import SeededNoise
from vc_core.diffusion.warped_noise import WarpedNoise
from vc_core.errors import InputError
from vc_core.media.clip import Clip
from vc_core.media.flow import dis_flow
from vc_core.media.images import fit_image
from vc_core.media.video import read_video, write_clip
from vc_core.motion_clip import with_clip_motion

MODEL = "videocrafter_tiny_t2v"
SMALL = ["--frames", "3", "--width", "64", "--height", "64", "--steps", "1", "--eta", "0", "--seed", "5"]


@pytest.fixture
def clip(tmp_path):
    """Four frames of a texture that moves, wider than the video, as lossless file."""
    texture = torch.nn.functional.interpolate(torch.rand(1, 3, 20, 40, generator=torch.manual_seed(1)), scale_factor=4, mode="bicubic")
    wide = texture.clamp(0, 1)[0].movedim(0, -1)
    write_clip(Clip(torch.stack([wide[:, 4 * index : 4 * index + 120] for index in range(4)]), 8), tmp_path / "clip.mkv", "ffv1")
    return tmp_path / "clip.mkv"


def expected(clip, strength: float) -> WarpedNoise:
    frames = fit_image(read_video(clip, 3).movedim(1, 0), 64, 64)
    return WarpedNoise(SeededNoise((1, 4, 3, 8, 8), 5), dis_flow(frames), strength)


@pytest.mark.parametrize("strength", [None, 0.5])
def test_the_noise_is_that_of_python(clip, strength):
    options = ["--motion-from", str(clip), *([] if strength is None else ["--motion-strength", str(strength)])]
    arguments = parser().parse_args(["generate", MODEL, "a red circle", *options])
    config = load_config("tiny_t2v")
    settings = vc_core.Sampling.of(config, frames=3, width=64, height=64, seed=5)
    noise = with_clip_motion(arguments, settings, config, None).noise
    assert torch.equal(noise.start, expected(clip, 1.0 if strength is None else strength).start)
    assert not torch.allclose(noise.start, SeededNoise((1, 4, 3, 8, 8), 5).start, atol=0.1)


def test_a_run(clip, tmp_path):
    target = tmp_path / "made.mkv"
    saved = ["--format", "ffv1", "--output", str(target)]
    assert main(["generate", MODEL, "a red circle", *SMALL, "--motion-from", str(clip), *saved]) == 0
    settings = {"frames": 3, "width": 64, "height": 64, "steps": 1, "eta": 0.0, "seed": 5}
    video = vc_core.load(MODEL).text_to_video("a red circle", noise=expected(clip, 1.0), **settings)
    assert (read_video(target) - video[0]).abs().max() < 2 / 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--motion-strength", "0.5"], "--motion-strength is for the motion of a clip: give --motion-from"),
        (["--motion-from", "{clip}", "--frames", "9"], "--motion-from has 4 frames, but the video has 9"),
        (["--motion-from", "{clip}", "--frames", "3", "--motion-strength", "2"], "strength of the motion is 2.0; it must be 0 to 1"),
    ],
)
def test_refused(clip, options, message):
    config = load_config("tiny_t2v")
    arguments = parser().parse_args(["generate", MODEL, "x", *(option.format(clip=clip) for option in options)])
    settings = vc_core.Sampling.of(config, frames=getattr(arguments, "frames", None), width=64, height=64)
    with pytest.raises(InputError, match=message):
        with_clip_motion(arguments, settings, config, None)
