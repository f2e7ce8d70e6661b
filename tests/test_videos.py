"""Saving and reading videos: what plays everywhere, what is checked before the work, and what strangers' files may not do."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from harness.comfyui import REPOSITORY
from vc_core.errors import FileWriteError, InputError, VideoCrafterError
from vc_core.media.formats import VideoFileError
from vc_core.media.video import SUFFIXES, check_target, read_video, save_video, upright_pixels

COLOURS = [(200, 30, 90), (20, 160, 40), (255, 255, 255), (0, 0, 0), (10, 60, 240), (128, 128, 128), (250, 200, 0)]


def clip(colours: list[tuple[int, int, int]], size: int = 32) -> torch.Tensor:
    """A frame of each colour, ``[3, T, size, size]`` in [-1, 1]."""
    return (torch.tensor(colours).float() / 127.5 - 1).T[:, :, None, None].expand(-1, -1, size, size)


def middles(video: torch.Tensor) -> np.ndarray:
    """The colours in the middle of the frames ``[T, 3]``, from 0 to 255."""
    return ((video[:, :, video.shape[2] // 2, video.shape[3] // 2] + 1) * 127.5).T.numpy()


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif", ".png"])
def test_what_is_saved_is_read_again(suffix, tmp_path):
    save_video(clip(COLOURS), tmp_path / f"clip{suffix}", 8)
    read = read_video(tmp_path / f"clip{suffix}")
    assert read.shape == (3, len(COLOURS), 32, 32)
    assert np.abs(middles(read) - COLOURS).max() <= (2.01 if suffix == ".mp4" else 1.01)


CONTAINERS = {
    "mp4": ("libx264", "mp4", "yuv420p", 6), "mov": ("mpeg4", "mov", "yuv420p", 8), "fragments": ("libx264", "mp4", "yuv420p", 6),
    "vp9": ("libvpx-vp9", "webm", "yuv420p", 6), "vp8": ("libvpx", "webm", "yuv420p", 8), "mkv": ("ffv1", "matroska", "yuv444p", 3),
    "avi": ("mpeg4", "avi", "yuv420p", 8), "mjpeg": ("mjpeg", "avi", "yuvj420p", 8), "raw": ("rawvideo", "avi", "bgr24", 0),
    "flv": ("flv", "flv", "yuv420p", 8), "ts": ("mpeg2video", "mpegts", "yuv420p", 10), "mpg": ("mpeg2video", "mpeg", "yuv420p", 10),
    "wmv": ("wmv2", "asf", "yuv420p", 10), "10 bits": ("prores_ks", "mov", "yuv422p10le", 6),
}


def write(path: Path, codec: str, container: str, pixels: str, colours=COLOURS, size=(64, 64), **options: str) -> None:
    """A video as other programs make it: no colour tags, whatever container."""
    with av.open(f"file:{path}", "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=25)
        stream.pix_fmt, stream.bit_rate = pixels, 2_000_000
        stream.width, stream.height = size
        for colour in colours:
            frame = np.full((size[1], size[0], 3), colour, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


@pytest.mark.parametrize("kind", CONTAINERS)
def test_videos_of_other_programs_are_read(kind, tmp_path):
    codec, container, pixels, tolerance = CONTAINERS[kind]
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    options = {"movflags": "frag_keyframe+empty_moov"} if kind == "fragments" else {}
    write(tmp_path / "part1:intro", codec, container, pixels, **options)  # neither the colon nor the missing suffix matters
    assert np.abs(middles(read_video(tmp_path / "part1:intro")) - COLOURS).max() <= tolerance + 0.01


def test_animations_are_read_whatever_their_name(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in COLOURS]
    for form in ("WEBP", "GIF", "PNG", "TIFF"):
        lossless = {"lossless": True} if form == "WEBP" else {}
        frames[0].save(tmp_path / "clip.mp4", form, save_all=True, append_images=frames[1:], **lossless)
        assert np.abs(middles(read_video(tmp_path / "clip.mp4")) - COLOURS).max() <= 1.01
    frames[0].save(tmp_path / "clip.mp4", "JPEG", quality=100)
    assert np.abs(middles(read_video(tmp_path / "clip.mp4")) - COLOURS[:1]).max() <= 3.01


@pytest.mark.parametrize(("suffix", "unit"), [(".gif", 10), (".webp", 1), (".png", 1)])
@pytest.mark.parametrize("fps", [0.5, 7.5, 8, 12, 24, 30, 33, 45, 50])
@pytest.mark.parametrize("count", [1, 40])
def test_an_animation_lasts_as_long_as_it_should(suffix, unit, fps, count, tmp_path):
    frames = torch.rand(3, count, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_video(frames, tmp_path / f"clip{suffix}", fps)
    times = []
    with Image.open(tmp_path / f"clip{suffix}") as image:
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            times.append(image.info.get("duration", 0))
    assert len(times) == count
    if count > 1:
        assert sum(times) == pytest.approx(1000 * count / fps, abs=unit / 2 + 0.01)
        assert max(times) - min(times) <= unit and min(times) > 10  # browsers show 10 ms as 100


def test_a_frame_that_lasts_too_long_for_a_gif(tmp_path):
    """Equal frames become one, whose time is 655 seconds at most."""
    save_video(torch.zeros(3, 600, 8, 8), tmp_path / "clip.gif", 1)
    with Image.open(tmp_path / "clip.gif") as image:
        assert image.info["duration"] == 600_000
    with pytest.raises(VideoFileError, match="clip.gif can't be written as a .gif: .* Use an .mp4"):
        save_video(torch.zeros(3, 700, 8, 8), tmp_path / "clip.gif", 1)
    with Image.open(tmp_path / "clip.gif") as image:
        assert image.info["duration"] == 600_000


@pytest.mark.parametrize(
    ("suffix", "fps", "bounds"),
    [
        (".gif", 60, "0.01 to 50. Use an .mp4 for more"), (".webp", 120, "0.01 to 90"), (".png", 91, "0.01 to 90"),
        (".mp4", 1001, "0.01 to 1000"),
    ] + [(suffix, fps, "0.01 to") for suffix in (".gif", ".mp4") for fps in (0, -8, 0.001, float("nan"), float("inf"), -float("inf"))],
)
def test_speeds_that_a_form_does_not_have(suffix, fps, bounds, tmp_path):
    for call in (lambda path: save_video(clip(COLOURS), path, fps), lambda path: check_target(path, fps=fps)):
        with pytest.raises(InputError, match=f"{suffix} can have {re.escape(bounds)}"):
            call(tmp_path / f"clip{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "width", "height"),
    [(".mp4", 20000, 64), (".mp4", 64, 16385), (".webp", 16384, 64), (".gif", 65536, 1), (".png", 1, 65536)],
)
def test_sizes_that_a_form_does_not_have_are_known_before(suffix, width, height, tmp_path):
    with pytest.raises(InputError, match=f"The video is {width}x{height}; the sides of a {suffix} have at most"):
        check_target(tmp_path / f"clip{suffix}", width, height)


@pytest.mark.parametrize(("suffix", "width"), [(".mp4", 16384), (".webp", 16383), (".gif", 65535), (".png", 65535)])
def test_the_largest_sides_are_written(suffix, width, tmp_path):
    frames = torch.zeros(3, 2, 2, width)
    check_target(tmp_path / f"clip{suffix}", width, 2)
    save_video(frames, tmp_path / f"clip{suffix}", 8)
    assert read_video(tmp_path / f"clip{suffix}").shape[2:] == (2, width)


def test_targets_that_cannot_be_written_are_known_before(tmp_path, monkeypatch):
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "file").write_bytes(b"")
    for name, message in (
        ("clip.avi", "should end in one of .mp4"), ("none/clip.mp4", "there is no folder"), ("folder.mp4", "is a folder"),
        ("pipe.mp4", "is not an ordinary file"), ("file/clip.mp4", "there is no folder"), (f"{'x' * 260}.mp4", "can't be written"),
        ("tcp://127.0.0.1:1/clip.mp4", "there is no folder"), ("a\0b.mp4", "can't be written"),
    ):
        with pytest.raises(VideoCrafterError, match=message):
            check_target(tmp_path / name)
    (tmp_path / "clip.mp4").write_bytes(b"precious")
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: Path(path).name != "clip.mp4")
        with pytest.raises(FileWriteError, match="protected"):
            check_target(tmp_path / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoFileError, match="needs PyAV: pip install av, or use a .webp"):
        check_target(tmp_path / "clip.mp4")
    check_target(tmp_path / "clip.webp")
    assert (tmp_path / "clip.mp4").read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 4


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_read_only_targets_are_known_before(tmp_path):
    """By a process that isn't root, to whom permissions mean nothing."""
    (tmp_path / "protected").mkdir()
    for name in ("clip.mp4", "protected/clip.mp4"):
        (tmp_path / name).write_bytes(b"precious")
    (tmp_path / "clip.mp4").chmod(0o444)
    tmp_path.chmod(0o777)
    (tmp_path / "protected").chmod(0o555)
    program = f"""
import os, sys
from pathlib import Path
from vc_core.errors import FileWriteError
from vc_core.media.video import check_target
os.chdir({str(tmp_path)!r})  # the folders above may be for their owner only
if os.getuid() == 0:
    os.setuid(65534)
for name in ("clip.mp4", "protected/clip.mp4", "protected/new.mp4"):
    try:
        check_target(Path(name))
    except FileWriteError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.count("\n") == 3, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["take:1", "file:x", "tcp:1", "-y", "%03d", "concat:a|b", "a b'\"&;", "x" * 246, "ü\u3042"])
def test_names_are_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for suffix in (".mp4", ".webp"):
        save_video(clip(COLOURS), Path(name + suffix), 8)
        assert np.abs(middles(read_video(Path(name + suffix))) - COLOURS).max() <= 2.01
        assert sorted(os.listdir()) == [name + suffix]
        Path(name + suffix).unlink()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A limit on the size of files stands for the disk: the system refuses to write more, likewise."""
    paths = [tmp_path / f"clip{suffix}" for suffix in SUFFIXES]
    for path in paths:
        path.write_bytes(b"the old one")
    program = """
import resource, signal, sys, torch
from pathlib import Path
from vc_core.errors import FileWriteError
from vc_core.media.video import save_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
for path in map(Path, sys.argv[1:]):
    try:
        save_video(torch.rand(3, 8, 128, 128) * 2 - 1, path, 8)
    except FileWriteError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, *paths], cwd=REPOSITORY, capture_output=True, text=True)
    for path in paths:
        assert f"{path.name}: can't be written (File too large); nothing was changed" in done.stdout, done.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the old one"] * len(paths)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_frames_without_numbers_are_not_saved_in_silence(value, tmp_path):
    frames = torch.zeros(3, 5, 16, 16)
    frames[1, 3, 7, 2] = value
    with pytest.raises(InputError, match="1 of the frames, the first of them number 4, hold values that are no numbers"):
        save_video(frames, tmp_path / "clip.mp4", 8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(3, 0, 8, 8), (4, 2, 8, 8), (3, 8, 8), (3, 2, 0, 8)])
def test_frames_of_another_shape(shape, tmp_path):
    with pytest.raises(InputError, match=r"expected are \[3, T, H, W\]"):
        save_video(torch.zeros(shape), tmp_path / "clip.mp4", 8)


def test_files_that_name_other_files_are_refused(tmp_path, monkeypatch):
    """FFmpeg would follow playlists by itself."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "secret.ts", "mpeg2video", "mpegts", "yuv420p")
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]

        def listen() -> None:
            while not asked:
                try:
                    asked.append(server.accept())
                except TimeoutError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        for name, content in {
            "list.mp4": "ffconcat version 1.0\nfile secret.ts\n",
            "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
            "far.mkv": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
            "stream.mp4": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
            "asx.wmv": f"[Reference]\nRef1=http://127.0.0.1:{port}/\n",
        }.items():
            (tmp_path / name).write_text(content)
            with pytest.raises(VideoFileError, match=f"{name} can't be read as a video: it is damaged, or of a kind that isn't read"):
                read_video(Path(name))
        for address in (f"tcp://127.0.0.1:{port}", f"http://127.0.0.1:{port}/a.mp4", "concat:secret.ts|secret.ts", "subfile:secret.ts"):
            with pytest.raises(VideoFileError, match="There is no video"):
                read_video(Path(address))
        with pytest.raises(VideoFileError):
            save_video(clip(COLOURS), Path(f"tcp:127.0.0.1:{port}"), 8)
    thread.join()
    assert not asked


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", tmp_path, Path("/dev/zero")):
        with pytest.raises(VideoFileError, match="is no video: it is a folder, a pipe or a device"):
            read_video(path)


def test_large_videos_are_refused_from_their_header(tmp_path):
    """8000x8000 pixels, and 15 frames of 7000x7000, the latter in 200 bytes."""
    with av.open(str(tmp_path / "large.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 8000, 8000, "yuv420p"
        file.mux(stream.encode(av.VideoFrame(8000, 8000, "yuv420p")))
        file.mux(stream.encode())
    with pytest.raises(VideoFileError, match="it is 8000x8000; at most 50 million pixels are possible"):
        read_video(tmp_path / "large.mp4")
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    (tmp_path / "long.gif").write_bytes(b"GIF89a" + struct.pack("<HHBBB", 7000, 7000, 0x80, 0, 0) + bytes(6) + frame * 15 + b";")
    with pytest.raises(VideoFileError, match="it has 15 frames or more of 7000x7000; of this size at most 14 are possible"):
        read_video(tmp_path / "long.gif")


def test_a_video_is_measured_while_it_is_decoded(tmp_path, monkeypatch):
    """A fragmented MP4 doesn't say how many frames it has."""
    monkeypatch.setattr("vc_core.media.opening.MAX_VIDEO_PIXELS", 5 * 64 * 64)
    write(tmp_path / "clip.mp4", "libx264", "mp4", "yuv420p", movflags="frag_keyframe+empty_moov")
    with pytest.raises(VideoFileError, match="it has 6 frames or more of 64x64; of this size at most 5 are possible"):
        read_video(tmp_path / "clip.mp4")


def test_a_change_of_size_is_refused(tmp_path):
    content = b""
    for size in ((64, 64), (96, 64)):
        write(tmp_path / "clip.ts", "mpeg2video", "mpegts", "yuv420p", size=size)
        content += (tmp_path / "clip.ts").read_bytes()
    (tmp_path / "clip.ts").write_bytes(content)
    with pytest.raises(VideoFileError, match="is 96x64 and the first 64x64"):
        read_video(tmp_path / "clip.ts")


@pytest.mark.parametrize("kind", ["mp4", "vp9", "mkv", "avi", ".gif", ".webp", ".png"])
def test_damaged_videos_give_our_error(kind, tmp_path):
    """Cut at any place: what there is of it, or an error of ours that names it."""
    path = tmp_path / f"clip{kind if kind[0] == '.' else ''}"
    if kind[0] == ".":
        save_video(torch.rand(3, 4, 16, 16) * 2 - 1, path, 8)
    else:
        write(path, *CONTAINERS[kind][:3])
    content = path.read_bytes()
    refused = 0
    for length in np.random.default_rng(0).integers(0, len(content), 30):
        path.write_bytes(content[:length])
        try:
            assert read_video(path).ndim == 4
        except VideoFileError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 3


def test_a_file_without_pictures(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with pytest.raises(VideoFileError, match="it has no pictures"):
        read_video(tmp_path / "sound.mp4")


def turned(path: Path, matrix: tuple[int, ...]) -> None:
    """Give an MP4's picture a matrix, as phones do: the first four numbers of its rotation."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version and flags, times, number and length, reserved, layer to volume
    a, b, c, d = (value * 65536 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("matrix", "turns"), [((1, 0, 0, 1), 0), ((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)], ids=["0", "90", "180", "270"]
)
def test_a_phone_s_video_is_upright(matrix, turns, tmp_path):
    """The matrix (0, 1, -1, 0) turns by 90 degrees clockwise (ISO 14496-12): a phone held upright writes it."""
    frame = np.zeros((1080, 1920, 3), np.uint8)
    frame[:540, :960], frame[540:, 960:] = (255, 0, 0), (0, 0, 255)
    with av.open(str(tmp_path / "clip.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    turned(tmp_path / "clip.mp4", matrix)
    read = ((read_video(tmp_path / "clip.mp4")[:, 0] + 1) * 127.5).permute(1, 2, 0).numpy()
    expected = np.rot90(frame, turns)
    assert read.shape == expected.shape == ((1920, 1080, 3) if turns in (1, -1) else (1080, 1920, 3))
    assert np.abs(read - expected).mean() < 4


def test_a_cap_stops_the_decoder(tmp_path, monkeypatch):
    """16 frames of a clip of 3 minutes: the file is hardly read."""
    with av.open(str(tmp_path / "long.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(180 * 25):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode())
    converted = []
    own = "vc_core.media.video.upright_pixels"
    monkeypatch.setattr(own, lambda frame, original=upright_pixels: converted.append(frame.pts) or original(frame))
    assert read_video(tmp_path / "long.mp4", max_frames=16).shape == (3, 16, 64, 64)
    assert len(converted) == 16
