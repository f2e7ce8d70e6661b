"""The formats that clips are saved in: what is in the file, with sound and metadata, and how far the frames are from those given."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vc_core.__main__ import main
from vc_core.errors import FileWriteError, InputError
from vc_core.media.clip import Clip
from vc_core.media.formats import BY_SUFFIX, FORMATS, VideoFileError, check_encoder
from vc_core.media.sound import Sound, read_audio
from vc_core.media.video import check_target, read_video, save_video, write_clip

#: Codec, profile, pixel format and the four letters of each format in FFmpeg's words, and the sound's codec.
STREAMS = {
    "h264": ("h264", "High", "yuv420p", "avc1", "aac"), "h265": ("hevc", "Main 10", "yuv420p10le", "hvc1", "aac"),
    "vp9": ("vp9", "Profile 0", "yuv420p", None, "opus"), "av1": ("av1", "Main", "yuv420p10le", None, "opus"),
    "prores": ("prores", "HQ", "yuv422p10le", "apch", "pcm_s16le"), "ffv1": ("ffv1", None, "gbrp16le", None, "flac"),
}
ANIMATIONS = ("webp", "gif", "apng")
#: A graph with what texts can hold; half a character is one that UTF-8 doesn't have.
GRAPH = {"nodes": [{"text": "one\ntwo; # = \\ \" '{ }} \0 🎬 红色的圆 \u202e"}], "filler": ["{x" * 50] * 3000}
TAGS = {"workflow": json.dumps(GRAPH), "prompt": json.dumps({"1": GRAPH})}


def gradient(count: int = 5, width: int = 80, height: int = 64) -> torch.Tensor:
    """Smooth frames ``[T, H, W, 3]`` that differ in brightness, as videos are."""
    down, right = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    frame = torch.stack([down.expand(height, width), right.expand(height, width), (down + right) / 2], -1)
    return torch.stack([frame * (index + 1) / count for index in range(count)])


def tone(seconds: float, rate: int = 44100, channels: int = 2) -> Sound:
    """A tone of 440 Hz."""
    return Sound((torch.arange(round(seconds * rate)) * (2 * math.pi * 440 / rate)).sin().mul(0.5).expand(channels, -1), rate)


def written(clip: Clip, name: str, folder: Path, **options: object) -> Path:
    path = folder / f"clip{FORMATS[name].suffix}"
    if not FORMATS[name].suffix:
        path.mkdir()
    write_clip(clip, path, name, **options)
    return path


def shown(path: Path, name: str) -> torch.Tensor:
    """The frames of a file ``[T, H, W, 3]`` in [0, 1]."""
    if name == "png":
        return torch.cat([(read_video(each) + 1) / 2 for each in sorted(path.iterdir())], 1).movedim(0, -1)
    return ((read_video(path) + 1) / 2).movedim(0, -1)


def tags_of(path: Path, name: str) -> dict[str, object]:
    """The metadata ``prompt`` and ``workflow`` of a file, read by another way than it was written."""
    if FORMATS[name].encoder:
        with av.open(str(path)) as file:
            texts = {key.lower(): text for key, text in file.metadata.items()}
    else:
        with Image.open(next(iter(sorted(path.iterdir()))) if name == "png" else path) as image:
            if name == "gif":
                return json.loads(image.info["comment"])
            texts = image.text if name in ("png", "apng") else dict(each.split(":", 1) for each in image.getexif().values())
    return {key: json.loads(text) for key, text in texts.items() if key in ("prompt", "workflow")}


@pytest.mark.parametrize("name", STREAMS)
def test_what_players_look_at(name, tmp_path):
    path = written(Clip(gradient(), 8, sound=tone(1)), name, tmp_path)
    codec, profile, pixels, tag, sound = STREAMS[name]
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.codec.canonical_name == codec and (stream.profile, stream.pix_fmt) == (profile, pixels)
        assert tag in (None, stream.codec_context.codec_tag) and stream.average_rate == 8
        assert [each.codec.canonical_name for each in file.streams.audio] == [sound]
        if name != "ffv1":  # which is RGB
            context = stream.codec_context
            assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
    if FORMATS[name].container in ("mp4", "mov"):
        assert 0 < path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")  # the index is first


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(max((one - other).square().mean().item(), 1e-12))


def bound_of_quality(crf: float) -> float:
    """The PSNR in RGB of a decoder's frames, by the definition of the quality.

    H.264's step doubles every 6 and is 1 at 4, so that a coefficient, brightness or colour, has an error of step**2 / 12 in the limited
    range. The rows of BT.709's matrix back to RGB (1.164 for brightness; 1.793, 0.213 and 0.533, 2.112 for colour) carry it over.
    """
    step = 2 ** ((crf - 4) / 6)
    gains = [1.164**2 + 1.793**2, 1.164**2 + 0.213**2 + 0.533**2, 1.164**2 + 2.112**2]
    return 10 * math.log10(255**2 / (step**2 / 12 * sum(gains) / 3))


@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_those_given(name, tmp_path):
    """Lossless formats to the rounding of their bits, others as well as their quality says."""
    frames = gradient()
    found = shown(written(Clip(frames, 8), name, tmp_path), name)
    assert found.shape == frames.shape
    if name in ("webp", "apng", "png"):
        assert (found - frames).abs().max() <= 0.5 / 255 + 1e-6
    elif name == "ffv1":
        assert (found - frames).abs().max() <= 0.5 / 65535 + 1e-7  # of numbers in [-1, 1] of float32
    elif name == "gif":  # 256 colours in a plane, 16 along each side: an error of 1/16/sqrt(12)
        assert psnr(found, frames) > 20 * math.log10(16 * math.sqrt(12))
    else:
        assert psnr(found, frames) > bound_of_quality(17)


@pytest.mark.parametrize("crf", [0, 10, 30, 51])
@pytest.mark.parametrize("name", ["h264", "h265", "vp9", "av1", "webp"])
def test_a_lower_crf_is_better_and_larger(name, crf, tmp_path):
    noise = torch.rand(3, 64, 64, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, -1, 3)  # grey: half colour loses most
    sizes, errors = [], []
    for each in (crf, min(51, crf + 8)):
        path = written(Clip(noise, 8), name, tmp_path, crf=each)
        sizes.append(path.stat().st_size)
        errors.append((shown(path, name) - noise).square().mean())
    if crf < 51:
        assert sizes[0] > sizes[1] and errors[0] < errors[1]
    if name == "webp" and crf == 0:
        assert errors[0] < (0.3 / 255) ** 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_frames_of_h265_have_their_times(count, tmp_path):
    """x265 reads memory that it has not set for the time of the first of two frames, if it may reorder them."""
    with av.open(str(written(Clip(gradient(count), 8), "h265", tmp_path))) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    times = [[round(float(time * packet.time_base) * 8) for time in (packet.pts, packet.dts)] for packet in packets]
    assert sorted(shown for shown, _ in times) == list(range(count))
    assert count > 2 or [decoded for _, decoded in times] == list(range(count))


@pytest.mark.parametrize(("width", "height"), [(257, 193), (1, 1)])
@pytest.mark.parametrize("name", FORMATS)
def test_odd_sizes(name, width, height, tmp_path, caplog):
    form, clip = FORMATS[name], Clip(gradient(2, width, height) * 0.5 + torch.tensor([0.1, 0.4])[:, None, None, None], 8)
    if width + width % 2 < form.smallest:
        with pytest.raises(InputError, match=f"The video is 1x1; the sides of .* have at least {form.smallest} pixels"):
            check_target(tmp_path / f"clip{form.suffix}", width, height, format=name)
        return
    found = shown(written(clip, name, tmp_path), name)
    assert found.shape == (2, height + height % 2 * form.even, width + width % 2 * form.even, 3)
    assert ("has even sides: saved as" in caplog.text) == form.even
    if form.even and width > 1:  # the last row and column are there twice
        assert (found[:, -1] - found[:, -2]).abs().max() < 0.08 and (found[:, :, -1] - found[:, :, -2]).abs().max() < 0.08
        assert psnr(found[:, :height, :width], clip.frames) > 38


@pytest.mark.parametrize("seconds", [2.6, 2.76, 2.9])
@pytest.mark.parametrize("name", [*STREAMS, "webp", "gif"])
def test_sound_does_not_change_the_number_of_frames(name, seconds, tmp_path, caplog):
    """138 frames at 50 a second last 2.76 seconds, whatever the sound lasts."""
    clip = Clip(gradient(138, 128, 64), 50, sound=tone(seconds))
    path = written(clip, name, tmp_path)
    assert len(shown(path, name)) == 138
    if name in STREAMS:
        with av.open(str(path)) as file:
            assert abs(file.duration / av.time_base - 2.76) <= 0.021  # a WebM counts the sound's packets, of 20 ms
            rate = file.streams.audio[0].rate
            count = sum(each.samples for each in file.decode(audio=0))
        filled = 1024 if STREAMS[name][4] == "aac" else 0  # decoders give AAC's last block whole; the file says where it ends
        assert 0 <= count - round(2.76 * rate) < filled + 1
    else:
        assert "has no sound: saved without it" in caplog.text


@pytest.mark.parametrize("name", ["prores", "ffv1"])
def test_sound_is_kept_or_filled_with_silence(name, tmp_path):
    """To the 16 or 24 bits of the formats that lose nothing."""
    sound = tone(0.5, 48000)
    path = written(Clip(gradient(8), 8, sound=sound), name, tmp_path)
    with av.open(str(path)) as file:
        frames = [each.to_ndarray() for each in file.decode(audio=0)]
    white = 2.0 ** (15 if frames[0].dtype == np.int16 else 31)
    found = np.concatenate([each.reshape(-1, 2).T for each in frames], 1) / white
    assert found.shape == (2, 48000) and not found[:, 24000:].any()
    assert np.abs(found[:, :24000] - sound.samples.numpy()).max() <= (1 / 32768 if name == "prores" else 1 / 2**23)


def sound_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.concatenate([each.to_ndarray() for each in file.decode(audio=0)], 1)


class LazyAudio(Mapping):
    """VideoHelperSuite's AUDIO is no dict: it reads the file when it is asked."""

    def __init__(self, **values: object) -> None:
        self._values = values

    def __getitem__(self, key: str) -> object:
        return self._values[key]

    def __iter__(self):
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


WAVE = tone(1).samples[None]
SOUNDS = {
    "one NaN": ({"waveform": WAVE.clone().index_fill_(2, torch.tensor([700]), math.nan), "sample_rate": 44100}, "2 of the audio's 88200"),
    "infinity": ({"waveform": WAVE.clone().index_fill_(2, torch.tensor([700]), math.inf), "sample_rate": 44100}, "are silent"),
    "no samples": ({"waveform": WAVE[:, :, :0], "sample_rate": 44100}, "has no samples"),
    "3 channels": ({"waveform": WAVE[:, :1].expand(1, 3, -1), "sample_rate": 44100}, "has 3 channels: they are mixed into one"),
    "without a batch": ({"waveform": WAVE[0], "sample_rate": 44100}, ""),
    "one row": ({"waveform": WAVE[0, 0], "sample_rate": 44100}, ""),
    "2 in the batch": ({"waveform": WAVE.repeat(2, 1, 1), "sample_rate": 44100}, "There are 2 sounds in the audio: the first one is used"),
    "half": ({"waveform": WAVE.half(), "sample_rate": 44100}, ""),
    "whole numbers": ({"waveform": (WAVE * 32767).short(), "sample_rate": 44100}, ""),
    "an odd rate": ({"waveform": WAVE, "sample_rate": 44101}, ""),
    "VideoHelperSuite's": (LazyAudio(waveform=WAVE, sample_rate=44100), ""),
}


@pytest.mark.parametrize("name", ["h264", "vp9"])
@pytest.mark.parametrize("case", SOUNDS)
def test_bad_sound_is_mended_or_named(case, name, tmp_path, caplog):
    audio, message = SOUNDS[case]
    path = written(Clip(gradient(8), 8, sound=read_audio(audio)), name, tmp_path)
    assert message in caplog.text and (message or not caplog.text)
    assert len(shown(path, name)) == 8
    if case == "no samples":
        with av.open(str(path)) as file:
            assert not file.streams.audio
        return
    sound = sound_of(path)[:, 4000:40000]
    assert np.isfinite(sound).all() and abs(np.sqrt((sound**2).mean()) - 0.5 / math.sqrt(2)) < 0.02  # a sine's


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (None, "The audio is NoneType"), ({"sample_rate": 5}, "The audio is dict"), ({"waveform": WAVE}, "sample_rate is None"),
        ({"waveform": WAVE, "sample_rate": 0}, "sample_rate is 0; it must be a number of Hz from 1"),
        ({"waveform": WAVE, "sample_rate": math.nan}, "sample_rate is nan"),
        ({"waveform": WAVE[None], "sample_rate": 44100}, r"shape \[1, 1, 2, 44100\]"),
    ],
)
def test_what_is_no_sound_is_refused(audio, message):
    with pytest.raises(InputError, match=message):
        read_audio(audio)


@pytest.mark.parametrize("name", FORMATS)
def test_large_metadata_of_any_text_is_read_back(name, tmp_path):
    assert len(TAGS["workflow"]) > 300_000
    path = written(Clip(gradient(2), 8), name, tmp_path, tags=TAGS)
    assert tags_of(path, name) == {"workflow": GRAPH, "prompt": {"1": GRAPH}}
    assert len(shown(path, name)) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_ping_pong_and_plays(name, tmp_path):
    """Frames 0 1 2 3 go on with 2 1, and animated images count their plays themselves."""
    clip = Clip(gradient(4), 8, ping_pong=True, loop_count=2)
    path = written(clip, name, tmp_path)
    expected = [0, 1, 2, 3, 2, 1] * (1 if name in ANIMATIONS else 2)
    means = shown(path, name).mean((1, 2, 3))
    assert torch.allclose(means, clip.frames[expected].mean((1, 2, 3)), atol=0.01)


@pytest.mark.parametrize(("plays", "gif"), [(0, 0), (1, None), (2, 1), (7, 6)])
def test_animated_images_count_their_plays(plays, gif, tmp_path):
    """A GIF's number is that of repetitions after the first play."""
    for name in ANIMATIONS:
        with Image.open(written(Clip(gradient(3), 8, loop_count=plays), name, tmp_path)) as image:
            assert image.info.get("loop") == (gif if name == "gif" else plays)


def test_a_single_frame(tmp_path):
    for name in FORMATS:
        assert len(shown(written(Clip(gradient(1), 8, ping_pong=True, loop_count=0), name, tmp_path), name)) == 1


def test_a_missing_encoder_is_named_with_what_is_possible(monkeypatch, tmp_path):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264", "libsvtav1"})
    message = r"WebM \(AV1\) needs a PyAV with the encoder libsvtav1.*use one of MP4 \(H.265.*WebM \(VP9\)"
    with pytest.raises(VideoFileError, match=message) as error:
        check_encoder("av1")
    assert "MP4 (H.264)" not in str(error.value)
    with pytest.raises(VideoFileError, match=r"MP4 \(H.264\) needs a PyAV with the encoder libx264"):
        check_target(tmp_path / "clip.mp4")
    check_encoder("gif")


def test_a_folder_of_images_is_there_whole_or_not(tmp_path, monkeypatch):
    frames = gradient(3).movedim(-1, 0) * 2 - 1
    save_video(frames, tmp_path / "frames", 8, "png")
    assert sorted(each.name for each in (tmp_path / "frames").iterdir()) == ["00001.png", "00002.png", "00003.png"]
    with pytest.raises(FileWriteError, match="frames: is there already; give the name of a new folder"):
        save_video(frames, tmp_path / "frames", 8, "png")
    monkeypatch.setattr(Image.Image, "save", lambda *args, **options: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FileWriteError, match="other: can't be written"):
        save_video(frames, tmp_path / "other", 8, "png")
    assert [each.name for each in tmp_path.iterdir()] == ["frames"]


def test_names_and_formats_that_do_not_go_together(tmp_path):
    with pytest.raises(VideoFileError, match=r"clip.mp4 should end in .webm, as WebM \(AV1\) files do"):
        check_target(tmp_path / "clip.mp4", format="av1")
    with pytest.raises(InputError, match="The format is 'avi'; possible are h264, h265"):
        check_target(tmp_path / "clip.avi", format="avi")
    with pytest.raises(InputError, match="crf is 52; it must be 0 to 51"):
        check_target(tmp_path / "clip.mp4", crf=52)


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_line_writes_all_formats(name, tmp_path, capsys):
    """By the file name's ending, or by the option."""
    target = tmp_path / f"clip{FORMATS[name].suffix}"
    form = [] if BY_SUFFIX.get(FORMATS[name].suffix) == name else ["--format", name]
    size = ["--frames", "3", "--height", "64", "--width", "64", "--steps", "2"]
    arguments = ["generate", "videocrafter_tiny_t2v", "a cat", "--output", str(target), *size]
    assert main([*arguments, *form, "--crf", "20", "--ping-pong", "--loop-count", "1"]) == 0
    assert len(shown(target, name)) == 4 and capsys.readouterr().out.strip() == str(target)
    assert [each.name for each in tmp_path.iterdir()] == [target.name]


def test_frames_are_in_the_file_without_another_copy_of_all():
    """Only the frame that is being written is converted."""
    frames, asked = gradient(50), []
    clip = Clip(frames, 8)
    object.__setattr__(clip, "frames", Recording(frames, asked))
    list(zip(clip.shown(), range(3), strict=False))
    assert asked == [0, 1, 2, 3]


class Recording:
    """Frames that note which were asked for."""

    def __init__(self, frames: torch.Tensor, asked: list[int]) -> None:
        self._frames, self._asked = frames, asked

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        self._asked.append(index)
        return self._frames[index]


@pytest.fixture(autouse=True)
def quiet():
    av.logging.set_level(av.logging.ERROR)
    logging.getLogger("vc_core").setLevel(logging.WARNING)


def test_a_gif_of_few_colours_is_exact_and_holds_what_changes(tmp_path):
    """A square that moves over a still picture: each later frame is the square, the old place and the new."""
    frames = torch.zeros(6, 40, 60, 3)
    frames[..., 1] = 200 / 255
    for index in range(6):
        frames[index, 10:18, 5 + 4 * index : 13 + 4 * index, 0] = 1
    frames[4] = frames[3]  # which lasts longer then
    path = written(Clip(frames, 10), "gif", tmp_path)
    with Image.open(path) as image:
        times = []
        for index in range(image.n_frames):
            image.seek(index)
            times.append(image.info["duration"])
            assert torch.equal(torch.from_numpy(np.array(image.convert("RGB"))) / 255, frames[index if index < 4 else 5])
    assert times == [100, 100, 100, 200, 100] and path.stat().st_size < 1500
