"""MP4 files that play everywhere: profile, colours, sides, speed."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vc_core.media.clip import Clip
from vc_core.media.video import read_video, write_clip

COLOURS = [(200, 30, 90), (20, 160, 40), (255, 255, 255), (0, 0, 0), (10, 60, 240), (128, 128, 128), (250, 200, 0)]
CLIP = np.array(COLOURS, np.uint8)[:, None, None].repeat(32, 1).repeat(32, 2)


def save_mp4(pixels: np.ndarray, path: Path, fps: float, crf: float = 17) -> None:
    """Save frames ``[T, H, W, 3]`` of 8 bits."""
    write_clip(Clip(torch.from_numpy(pixels).float() / 255, fps), path, "h264", crf)


def test_an_mp4_s_colours_are_those_of_its_tags(tmp_path):
    """BT.709 in the limited range, by its definition: Y' = 16 + 219 (0.2126 R' + 0.7152 G' + 0.0722 B')."""
    save_mp4(CLIP, tmp_path / "clip.mp4", 8)
    with av.open(str(tmp_path / "clip.mp4")) as file:
        stream = file.streams.video[0]
        frames = list(file.decode(stream))
        context = stream.codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert (stream.profile, stream.pix_fmt) == ("High", "yuv420p")
    assert b"colrnclx" + struct.pack(">HHHB", 1, 1, 1, 0) in (tmp_path / "clip.mp4").read_bytes()
    for frame, (red, green, blue) in zip(frames, COLOURS, strict=True):
        luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        expected = (16 + 219 * luma / 255, 128 + 224 * (blue - luma) / 1.8556 / 255, 128 + 224 * (red - luma) / 1.5748 / 255)
        planes = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size) for plane in frame.planes]
        found = [plane[plane.shape[0] // 2, 4] for plane in planes]
        assert np.abs(np.array(found, float) - expected).max() <= 1.5


@pytest.mark.parametrize(("height", "width"), [(33, 48), (32, 47), (33, 47), (1, 1)])
def test_odd_sides_repeat_a_row_or_column_and_say_so(height, width, tmp_path, caplog):
    frames = np.full((3, height, width, 3), 100, np.uint8)
    frames[:, -1, :, 0] = frames[:, :, -1, 0] = 180
    save_mp4(frames, tmp_path / "clip.mp4", 8, 1)
    read = ((read_video(tmp_path / "clip.mp4") + 1) * 127.5).numpy()
    assert read.shape == (3, 3, height + height % 2, width + width % 2)
    with av.open(str(tmp_path / "clip.mp4")) as file:
        assert (file.streams.video[0].profile, file.streams.video[0].pix_fmt) == ("High", "yuv420p")
    if height % 2 and height > 1:
        assert np.abs(read[0, :, -2:, : width - 1] - 180).max() <= 12  # chroma is halved
    assert f"The frames are {width}x{height}" in caplog.text and f"saved as {read.shape[3]}x{read.shape[2]}" in caplog.text


@pytest.mark.parametrize(("crf", "written"), [(0, "1.0"), (0.5, "1.0"), (1, "1.0"), (17, "17.0"), (51, "51.0")])
def test_the_best_quality_still_plays_in_browsers(crf, written, tmp_path, caplog):
    pixels = (np.random.default_rng(0).random((2, 32, 32, 3)) * 255).astype(np.uint8)
    save_mp4(pixels, tmp_path / "clip.mp4", 8, crf)
    with av.open(str(tmp_path / "clip.mp4")) as file:
        assert (file.streams.video[0].profile, file.streams.video[0].pix_fmt) == ("High", "yuv420p")
    assert re.search(rb"crf=([\d.]+)", (tmp_path / "clip.mp4").read_bytes())[1] == written.encode()
    assert ("would be lossless, which browsers don't play" in caplog.text) == (crf < 1)


@pytest.mark.parametrize("fps", [0.5, 7.5, 8, 23.976, 24, 29.97, 60, 1000])
def test_an_mp4_plays_at_any_speed(fps, tmp_path):
    save_mp4(CLIP, tmp_path / "clip.mp4", fps)
    with av.open(str(tmp_path / "clip.mp4")) as file:
        assert float(file.streams.video[0].average_rate) == pytest.approx(fps, rel=1e-6)
