"""Decoding under a limit of memory, and of latents that overflow in half precision."""

from __future__ import annotations

import pytest
import torch

from benchmarks.models import random_model
from harness.goldens import error
from vc_core.choices import choose
from vc_core.config import load_config
from vc_core.decoding import in_float32_where_broken, in_pieces, in_tiles
from vc_core.pipeline import VideoModel


@pytest.fixture
def model() -> VideoModel:
    torch.manual_seed(0)
    return random_model(load_config("tiny_t2v"), ["autoencoder"], "cpu", torch.float32)


def limited(model: VideoModel, monkeypatch, positions: int, seen: list[tuple[int, ...]]) -> None:
    """From now on the model's decoder has the memory for so many positions of latents."""
    decode = model.networks["autoencoder"].decode

    def run(z: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(z.shape))
        if z.shape[0] * z.shape[2] * z.shape[3] > positions:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return decode(z)

    monkeypatch.setattr(model.networks["autoencoder"], "decode", run)


@pytest.mark.parametrize("fits", [4, 1])
def test_pieces_shrink_until_they_fit(model, monkeypatch, fits):
    """64 frames, all at once by the estimate, with memory for 4 or for 1."""
    latents, seen = torch.randn(1, 4, 64, 3, 4), []
    expected = model.decode(latents)
    limited(model, monkeypatch, fits * 12, seen)
    with choose(frames_at_once=64):
        assert error(model.decode(latents), expected) <= 1e-5
    assert max(shape[0] for shape in seen) == 64 and seen[-1][0] == fits
    assert len(seen) < 64 + 7, "nothing is decoded twice, and a size that didn't fit is not tried again"


def test_a_frame_that_does_not_fit_is_decoded_in_tiles(model, monkeypatch):
    latents, seen = torch.randn(1, 4, 2, 40, 52) * 0.2, []
    whole = model.decode(latents)
    limited(model, monkeypatch, 32 * 32, seen)
    tiled = model.decode(latents)
    assert tiled.shape == whole.shape
    # The norms see a tile instead of the frame; seams would be as large as the frame's own differences.
    assert (tiled - whole).abs().mean() < 0.1 * whole.std()
    assert max(shape[2] * shape[3] for shape in seen[2:]) == 32 * 32


def test_memory_for_nothing_is_an_error_and_the_latents_are_the_caller_s(model, monkeypatch):
    latents = torch.randn(1, 4, 2, 3, 4)
    before = latents.clone()
    with monkeypatch.context() as without:
        limited(model, without, 0, [])
        with pytest.raises(torch.cuda.OutOfMemoryError):
            model.decode(latents)
    assert torch.equal(latents, before)
    assert model.decode(latents).isfinite().all()


def test_other_errors_are_not_tried_again():
    calls = []

    def run(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        in_pieces(run, torch.zeros(4, 1), 4, last_resort=run)
    assert calls == [4]


@pytest.mark.parametrize("size", [(5, 7), (32, 32), (33, 70), (100, 8)])
def test_tiles_are_the_whole_of_what_needs_no_surroundings(size):
    """Nearest neighbours, three times as large; every pixel once, with any number of tiles."""
    z = torch.randn(2, 3, *size)

    def decode(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(z, scale_factor=3.0, mode="nearest")

    assert error(in_tiles(decode, z), decode(z)) <= 1e-6


class Overflowing(torch.nn.Module):
    """Multiplies by its weight twice and divides again, which half precision can't hold for large inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1000.0), requires_grad=False)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z * self.weight * self.weight / self.weight / self.weight


def test_a_frame_that_overflows_is_decoded_again_in_float32():
    """One of 16; the others are as they were, and so is the network."""
    torch.manual_seed(0)
    network, z = Overflowing().half(), (torch.rand(16, 3, 4, 5) * 0.01).half()
    z[5] = 0.5
    frames = network.decode(z)
    assert not frames[5].isfinite().any() and frames[[*range(5), *range(6, 16)]].isfinite().all()
    again = in_float32_where_broken(network, lambda network, z: network.decode(z), z, frames)
    assert torch.equal(again[5], z[5]) and again.dtype == torch.float16
    others = [index for index in range(16) if index != 5]
    assert torch.equal(again[others], frames[others]) and not frames[5].isfinite().any()
    assert network.weight.dtype == torch.float16


def test_a_latent_that_holds_no_numbers_stays_one():
    """To be found by who writes the file; it is not made black."""
    network, z = Overflowing().half(), torch.full((1, 3, 4, 5), float("nan")).half()
    frames = network.decode(z)
    assert in_float32_where_broken(network, lambda network, z: network.decode(z), z, frames).isnan().all()
