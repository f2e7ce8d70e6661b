"""Clips of other programs fitted to a model: which frames, at what rate and size, and which part of the sound."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vc_core.errors import InputError
from vc_core.media import fitting
from vc_core.media.clip import Clip
from vc_core.media.fitting import Wanted, choose, fit_file, fit_frames
from vc_core.media.formats import VideoFileError
from vc_core.media.sound import Sound
from vc_core.media.video import upright_pixels, write_clip


def counting(count: int, size: int = 16, steps: int = 100) -> torch.Tensor:
    """Frames ``[T, size, size, 3]``: frame k has the brightness k / steps."""
    return (torch.arange(count) / steps)[:, None, None, None].expand(-1, size, size, 3)


def ramp(seconds: float, rate: int = 8000) -> Sound:
    """A sound whose value is a thousandth of its sample's number."""
    return Sound((torch.arange(round(seconds * rate)) % 1000 / 1000)[None], rate)


def numbers(frames: torch.Tensor, steps: int = 100) -> list[int]:
    return [round(steps * value) for value in frames.mean((1, 2, 3)).tolist()]


@pytest.mark.parametrize(
    ("count", "source", "fps", "start", "expected", "rate"),
    [
        (48, 24, 8, 0, [0, 3, 6, 9], 8), (48, 24, 0, 0, [0, 1, 2, 3], 24), (48, 24, 24, 0.5, [12, 13, 14, 15], 24),
        (60, 30, 8, 0, [0, 4, 7, 11], 8),  # 3.75, 7.5 and 11.25 frames on: the last third of a frame counts for the next one
        (8, 8, 24, 0, [0, 0, 0, 1], 24),  # a third of a frame each
        (60, 29.97, 29.97, 1, [30, 31, 32, 33], 29.97),
        (6, 24, 8, 0, [0, 1, 3, 4], 16),  # a quarter of a second is too short for 4 frames at 8: at 0, 1.5, 3 and 4.5 frames
        (2, 8, 8, 0, [0, 0, 1, 1], 16), (1, 8, 8, 0, [0, 0, 0, 0], 32),
    ],
)
def test_frames_are_taken_by_their_time(count, source, fps, start, expected, rate):
    fitted = fit_frames(counting(count), source, Wanted(16, 16, 4, fps, start))
    assert numbers(fitted.frames) == expected and fitted.fps == pytest.approx(rate)
    assert ("spread over all of it" in fitted.told) == (count < 7) or (count, fps) == (8, 24)
    assert f"16x16 at {source:.4g} fps, from {start:.3g} to" in fitted.told and f"4 frames of 16x16 at {rate:.4g} fps" in fitted.told


def test_the_size_is_covered_and_cut_at_the_centre():
    images = torch.zeros(4, 30, 80, 3)
    images[:, :, 20:60] = 1  # the middle half, 40x30, of which a square is cut
    fitted = fit_frames(images, 8, Wanted(24, 24, 4))
    assert fitted.frames.shape == (4, 24, 24, 3) and fitted.frames.min() > 0.99 and "scaled, and cut at the centre" in fitted.told
    assert fit_frames(images, 8, Wanted(160, 60, 4)).told.endswith("; scaled")


def test_the_sound_is_that_of_the_frames():
    fitted = fit_frames(counting(48), 24, Wanted(16, 16, 4, 8, 0.5), ramp(0.8))
    samples = fitted.sound.samples
    assert samples.shape == (1, 4000) and fitted.seconds == 0.5
    assert torch.equal(samples[0, :2400], ramp(0.8).samples[0, 4000:6400]) and not samples[0, 2400:].any()  # silence after its end


def test_nothing_left_of_the_clip_is_said():
    with pytest.raises(InputError, match="The clip lasts 2 seconds, so that nothing is after start 3: use a smaller start"):
        fit_frames(counting(48), 24, Wanted(16, 16, 4, 8, 3))


def test_frames_of_changing_length():
    """As phones record: the frame that is shown at a time, wherever its number."""
    found: list[str] = []
    choose([(0.0, 0.1, "a"), (0.1, 0.9, "b"), (0.9, 1.0, "c")], [0.0, 0.25, 0.5, 0.95], found.append)
    assert found == ["a", "b", "b", "c"]


def saved(folder: Path, name: str = "ffv1", count: int = 50, fps: float = 25, sound: Sound | None = None, steps: int = 100) -> Path:
    path = folder / "clip"
    write_clip(Clip(counting(count, steps=steps), fps, sound=sound), path, name)
    return path


@pytest.mark.parametrize("name", ["h264", "vp9", "ffv1"])
@pytest.mark.parametrize("fps", [23.976, 25, 29.97, 50])
def test_a_file_s_own_rate_takes_every_frame_once(name, fps, tmp_path):
    """Also where the file rounds times to milliseconds."""
    fitted = fit_file(saved(tmp_path, name, 40, fps, steps=40), Wanted(16, 16, 40))
    assert numbers(fitted.frames, 40) == list(range(40)) and fitted.fps == pytest.approx(fps, rel=1e-3)


def test_a_file_and_its_sound(tmp_path):
    path = saved(tmp_path, "ffv1", sound=ramp(2))
    fitted = fit_file(path, Wanted(16, 16, 4, 5, 1))
    assert numbers(fitted.frames) == [25, 30, 35, 40] and fitted.fps == 5
    assert fitted.sound.samples.shape == (1, 6400)
    assert (fitted.sound.samples - ramp(2).samples[:, 8000:14400]).abs().max() < 1e-4
    assert fit_file(saved(tmp_path, "ffv1"), Wanted(16, 16, 4)).sound is None


def test_nothing_past_the_last_used_frame_is_decoded(tmp_path, monkeypatch):
    """16 frames at 8 from 3 minutes at 25: the last one is number 46 (1.875 s), and only 16 are converted."""
    path = saved(tmp_path, "h264", 180 * 25)
    seen, converted = [], []
    monkeypatch.setattr(fitting, "decoded", lambda *args, original=fitting.decoded: (seen.append(1) or each for each in original(*args)))
    monkeypatch.setattr(fitting, "upright_pixels", lambda frame: converted.append(1) or upright_pixels(frame))
    fitted = fit_file(path, Wanted(16, 16, 16, 8))
    assert len(fitted.frames) == 16 and len(converted) == 16 and len(seen) <= 48


def test_what_is_no_video_is_said(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video at all")
    with pytest.raises(VideoFileError, match="clip.mp4 can't be read as a video: it is damaged, or of a kind that isn't read"):
        fit_file(tmp_path / "clip.mp4", Wanted(16, 16, 4))


def test_a_short_file_is_spread(tmp_path):
    fitted = fit_file(saved(tmp_path, "ffv1", 10), Wanted(16, 16, 20, 8))
    assert len(fitted.frames) == 20 and numbers(fitted.frames) == [index // 2 for index in range(20)]
    assert "the clip has only 0.4 s after 0 s, not 2.5 s: spread over all of it" in fitted.told and fitted.fps == pytest.approx(50)


def test_pixels_of_16_bits_are_kept(tmp_path):
    frames = torch.linspace(0, 1, 16 * 16).view(1, 16, 16, 1).expand(2, -1, -1, 3)
    write_clip(Clip(frames, 8), tmp_path / "clip", "ffv1")
    fitted = fit_file(tmp_path / "clip", Wanted(16, 16, 2))
    assert np.abs((fitted.frames - frames).numpy()).max() <= 0.5 / 65535 + 1e-7
    av.logging.set_level(av.logging.ERROR)


@pytest.mark.parametrize("count", [1, 15, 17, 49, 50])
def test_all_frames_of_a_clip(tmp_path, count):
    """In memory and of a file; nothing is dropped, and an image is said to be one."""
    for fitted in (fit_frames(counting(count), 25, Wanted(16, 16, 0)), fit_file(saved(tmp_path, "ffv1", count), Wanted(16, 16, 0))):
        assert numbers(fitted.frames) == list(range(count)) and f": {count} frame" in fitted.told
        assert ("a single image, not a clip" in fitted.told) == (count == 1) and "spread" not in fitted.told


def test_all_frames_after_a_start_at_another_rate():
    fitted = fit_frames(counting(48), 24, Wanted(16, 16, 0, 8, 0.5), ramp(2))
    assert numbers(fitted.frames) == list(range(12, 48, 3)) and fitted.fps == 8
    assert torch.equal(fitted.sound.samples[0], ramp(2).samples[0, 4000:])
    with pytest.raises(InputError, match="nothing is after start 3"):
        fit_frames(counting(48), 24, Wanted(16, 16, 0, 0, 3))


def test_more_frames_than_a_clip_may_have(monkeypatch):
    monkeypatch.setattr(fitting, "MOST_FRAMES", 5)
    fitted = fit_frames(counting(9), 8, Wanted(16, 16, 0))
    assert numbers(fitted.frames) == list(range(5)) and "only the first 5 frames" in fitted.told
