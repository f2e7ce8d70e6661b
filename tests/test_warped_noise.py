"""Noise that moves with a clip: what it is made of, how it is distributed, and optical flow."""

from __future__ import annotations

import builtins

import pytest
import torch
from torch import Tensor

from vc_core.diffusion.noise import SeededNoise
from vc_core.diffusion.warped_noise import WarpedNoise, coarse, follow
from vc_core.errors import InputError
from vc_core.media.flow import dis_flow

FINE = 8


def constant(x: float, y: float, frames: int = 5, height: int = 64, width: int = 96) -> Tensor:
    """The flow of a clip that moves by (-x, -y) in each frame."""
    return torch.tensor([x, y])[None, :, None, None].expand(frames - 1, 2, height, width)


def turning(degrees: float, frames: int = 6, side: int = 96) -> Tensor:
    """The flow of a clip that turns around its middle."""
    axis = torch.arange(side) - side / 2 + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = torch.deg2rad(torch.tensor(degrees))
    flow = torch.stack([x * angle.cos() - y * angle.sin() - x, x * angle.sin() + y * angle.cos() - y])
    return flow.expand(frames - 1, -1, -1, -1)


def warped(flow: Tensor, strength: float = 1.0, seed: int = 3, videos: int = 1) -> Tensor:
    frames, height, width = len(flow) + 1, flow.shape[2] // FINE, flow.shape[3] // FINE
    return WarpedNoise(SeededNoise((videos, 4, frames, height, width), seed), flow, strength).start


class TestWhatMoves:
    def test_a_still_clip_has_the_same_noise_in_all_frames(self):
        start = warped(constant(0, 0))[0]
        assert torch.allclose(start, start[:, :1].expand_as(start), atol=1e-5)

    def test_by_whole_latent_pixels(self):
        """The clip moves right by 8 pixels a frame: what was in a column is in the next one."""
        start = warped(constant(-8, 0))[0]
        for frame in range(1, 5):
            assert torch.allclose(start[:, frame, :, 1:], start[:, frame - 1, :, :-1], atol=1e-5)
            assert not torch.allclose(start[:, frame, :, 0], start[:, frame - 1, :, 0], atol=0.1)

    def test_slow_motion_adds_up(self):
        """A quarter of a pixel a frame: after 32 frames a whole latent pixel, though each step rounds to none."""
        start = warped(constant(0, -0.25, frames=33))[0]
        assert torch.allclose(start[:, 32, 1:], start[:, 0, :-1], atol=1e-5)

    def test_the_strength_is_the_correlation_along_the_motion(self):
        flow = constant(-8, 0, height=256, width=256)
        for strength in (0.25, 0.7):
            start = warped(flow, strength)[0]
            pairs = torch.stack([start[:, 4, :, 4:].flatten(), start[:, 0, :, :-4].flatten()])
            assert torch.corrcoef(pairs)[0, 1] == pytest.approx(strength, abs=0.05)  # 3,584 pairs: two standard errors are 0.03

    def test_without_strength_it_is_the_noise_of_the_seed(self):
        noise = SeededNoise((2, 4, 6, 12, 12), 5)
        assert torch.allclose(WarpedNoise(noise, turning(5), 0.0).start, noise.start, atol=1e-5)

    def test_first_frame_and_steps_are_those_of_the_seed(self):
        noise = SeededNoise((1, 4, 6, 12, 12), 5)
        moving = WarpedNoise(noise, turning(5))
        assert torch.allclose(moving.start[:, :, 0], noise.start[:, :, 0], atol=1e-5)
        assert torch.equal(next(moving.steps()), next(noise.steps()))

    def test_each_video_of_a_batch_has_its_own(self):
        both, flow = warped(turning(5), 0.5, seed=3, videos=2), turning(5)
        assert torch.equal(both[0], warped(flow, 0.5, seed=3)[0]) and torch.equal(both[1], warped(flow, 0.5, seed=4)[0])


class TestDistribution:
    @pytest.mark.parametrize("flow", [turning(4), constant(0.3, -0.6, 6, 96, 96), 0.04 * turning(180), -0.03 * turning(180)])
    @pytest.mark.parametrize("strength", [1.0, 0.5])
    def test_each_frame_is_independent_normal_noise(self, flow, strength):
        """Of the last frame, after turning, moving, growing and shrinking: variance 1, and none between neighbours."""
        last = torch.cat([warped(flow, strength, seed) for seed in range(0, 90, 3)])[:, :, -1]  # 17,280 numbers
        error = 4 / last.numel() ** 0.5
        assert abs(last.mean()) < error and abs(last.var() - 1) < 1.5 * error
        neighbours = (last[..., 1:] * last[..., :-1]).mean(), (last[..., 1:, :] * last[..., :-1, :]).mean()
        assert max(map(abs, neighbours)) < 1.1 * error

    @pytest.mark.parametrize("flow", [turning(4)[0], 0.1 * turning(180)[0], 30 * torch.randn(2, 96, 96, generator=torch.manual_seed(0))])
    def test_no_particle_is_at_two_pixels(self, flow):
        source, offset = follow(flow, torch.zeros_like(flow))
        arrived = source[source >= 0]
        assert len(arrived.unique()) == len(arrived) > 0 and source.max() < source.numel()
        assert not offset[:, source < 0].any()

    def test_turning_loses_few_particles(self):
        """A rotation keeps areas: only the corners come from outside."""
        source, _ = follow(turning(4)[0], torch.zeros(2, 96, 96))
        assert (source[16:80, 16:80] >= 0).float().mean() > 0.99

    def test_coarse_noise_of_fine_noise(self):
        values = torch.arange(32.0).reshape(1, 4, 8)
        assert torch.equal(coarse(values, 2)[0, 0], torch.tensor([0 + 1 + 8 + 9, 2 + 3 + 10 + 11, 4 + 5 + 12 + 13, 6 + 7 + 14 + 15]) / 2)


class TestFlow:
    def test_a_moving_texture(self):
        """Right by 2 pixels and down by 1 in each frame: a pixel was 2 to the left and 1 up."""
        texture = torch.nn.functional.interpolate(torch.rand(1, 3, 40, 40, generator=torch.manual_seed(1)), scale_factor=4, mode="bicubic")
        texture = texture.clamp(0, 1)[0] * 2 - 1
        frames = torch.stack([texture[:, 40 - step : 136 - step, 40 - 2 * step : 136 - 2 * step] for step in range(4)])
        flow = dis_flow(frames)
        assert flow.shape == (3, 2, 96, 96)
        inside = flow[:, :, 12:-12, 12:-12]
        assert inside.mean((0, 2, 3)).tolist() == pytest.approx([-2, -1], abs=0.05) and inside.std((0, 2, 3)).max() < 0.15

    def test_small_frames_are_enlarged(self):
        texture = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12, generator=torch.manual_seed(1)), scale_factor=4, mode="bicubic")
        texture = texture.clamp(0, 1)[0] * 2 - 1
        flow = dis_flow(torch.stack([texture[:, 8:40, 9:41], texture[:, 8:40, 8:40]]))
        assert flow.shape == (1, 2, 32, 32) and flow[0, :, 6:-6, 6:-6].mean((1, 2)).tolist() == pytest.approx([-1, 0], abs=0.1)

    def test_one_frame_has_no_flow(self):
        assert dis_flow(torch.zeros(1, 3, 16, 16)).shape == (0, 2, 16, 16)

    def test_without_opencv(self, monkeypatch):
        usual = builtins.__import__

        def lacking(name, *args, **kwargs):
            if name == "cv2":
                raise ImportError("No module named 'cv2'")
            return usual(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", lacking)
        with pytest.raises(InputError, match="needs OpenCV.*pip install opencv-python-headless"):
            dis_flow(torch.zeros(2, 3, 16, 16))


@pytest.mark.parametrize(
    ("flow", "strength", "message"),
    [
        (constant(0, 0, 4), 1.0, "motion is of 4 frames, but the video has 5"),
        (constant(0, 0, 5, 64, 90), 1.0, "90x64 pixels, which is no multiple of the latent's 12x8"),
        (constant(0, 0, 5, 64, 192), 1.0, "192x64 pixels, which is no multiple of the latent's 12x8"),
        (constant(0, 0), 1.5, "strength of the motion is 1.5; it must be 0 to 1"),
        (constant(0, 0), float("nan"), "strength of the motion is nan"),
        (constant(float("nan"), 0), 1.0, "values that are no numbers"),
    ],
)
def test_refused(flow, strength, message):
    with pytest.raises(InputError, match=message):
        _ = WarpedNoise(SeededNoise((1, 4, 5, 8, 12), 0), flow, strength).start


def test_frames_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\[T, 3, H, W\]"):
        dis_flow(torch.zeros(1, 3, 2, 16, 16))
