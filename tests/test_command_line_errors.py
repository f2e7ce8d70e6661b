"""Wrong options, outputs and surroundings of the command line: a message in its own words, said before any work is done."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
import torch
from PIL import Image

import vc_core
from harness.comfyui import REPOSITORY
from vc_core import console, files
from vc_core.__main__ import main, parser
from vc_core.checkpoint import CheckpointError
from vc_core.console import INTERRUPTED, READER_GONE, finish
from vc_core.errors import printable
from vc_core.family.bundled import bundled_models
from vc_core.generating import in_options, sampling_options
from vc_core.media.video import read_video, save_video
from vc_core.memory import is_out_of_memory

T2V, I2V, DYNAMICRAFTER = "videocrafter_tiny_t2v", "videocrafter_tiny_i2v", "videocrafter_tiny_dynamicrafter"
QUICK = ["--frames", "3", "--height", "32", "--width", "32", "--steps", "2"]
DEPTH = "videocrafter_tiny_depth"
VIEWS = ["--config", "viewcrafter_25_512_v1"]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and special files are POSIX's")


@pytest.fixture
def no_work(monkeypatch):
    """Fails a test in which a model's weights are loaded."""
    for place in ("vc_core.generating.load", "vc_core.__main__.load"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("the model was loaded before this was said"))


@pytest.fixture
def picture(tmp_path) -> str:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


@pytest.fixture
def video(tmp_path) -> str:
    save_video(torch.zeros(3, 3, 20, 36), tmp_path / "odd.webp", 8)
    return str(tmp_path / "odd.webp")


def refused(capsys, *arguments: str) -> str:
    """The last line of the error with which a command ends."""
    try:
        code = main(arguments)
    except SystemExit as left:
        code = left.code
    err = capsys.readouterr().err
    assert code in (1, 2) and "Traceback" not in err
    return err.splitlines()[-1]


NUMBERS = ["nan", "inf", "-inf", "1e40", "-1e40"]
ODD = {
    "frames": ["0", "-4", "9" * 30, "2.5", "nan", "inf"], "height": ["0", "-8", "9" * 30, "x"], "width": ["0", "-8", "9" * 30, "1e3"],
    "steps": ["0", "-1", "1001", "9" * 30, "2.5"], "eta": [*NUMBERS, "5", "-0.1"], "guidance_scale": NUMBERS,
    "guidance_rescale": [*NUMBERS, "7", "-0.5"], "image_guidance_scale": NUMBERS,
    "style_guidance_scale": NUMBERS, "temporal_guidance_scale": NUMBERS, "camera_guidance_scale": NUMBERS,
    "camera_guidance_schedule": ["linear", ""],
    "fps": [*NUMBERS, "0", "-8", "fast"], "sampler": ["lcm", ""], "spacing": ["karras", ""],
    "original_steps": ["0", "-1", "1001", "9" * 30, "2.5"], "distilled_guidance": [*NUMBERS, "-1"],
    "motion_guidance": [*NUMBERS, "-2", "1.5"], "motion_share": [*NUMBERS, "-0.1", "1.5"], "denoise": [*NUMBERS, "0", "-1", "1.5"],
    "start_timestep": ["0", "-1", "1001", "9" * 30, "2.5", "nan"],
    "seed": [str(2**64), str(-(2**63) - 1), "9" * 30, "nan", "1.5"], "deep_cache_interval": ["0", "-3", "nan"],
    "deep_cache_blocks": ["0", "-3", "nan"],
    "freeinit_iterations": ["0", "-1", "101", "2.5", "nan"], "freeinit_filter": ["bilinear", ""], "freeinit_order": ["0", "101", "nan"],
    "freeinit_spatial_stop": [*NUMBERS, "-0.1", "1.1"], "freeinit_temporal_stop": [*NUMBERS, "-0.1", "1.1"],
    "freeinit_fast": ["yes"],
    "playback_fps": [*NUMBERS, "0", "-8", "0.5", "1001"],
}


def test_every_option_that_is_a_setting_is_tried():
    assert list(ODD) == [each.name for each in sampling_options()]


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_refused_in_the_words_of_the_option(name, capsys, no_work, tmp_path):
    flag = "--" + name.replace("_", "-")
    for value in ODD[name]:
        line = refused(capsys, "generate", T2V, "a cat", "--output", f"{tmp_path}/clip.mp4", f"{flag}={value}")
        assert flag in line and "---" not in line, line
        assert "_" not in line.replace("python -m vc_core", "").replace("uniform_trailing", ""), line
    assert list(tmp_path.iterdir()) == []


def test_values_at_the_bounds_are_taken():
    for arguments in (["--seed", str(2**64 - 1)], ["--seed", str(-(2**63))], ["--playback-fps", "29.97"], ["--guidance-scale", "-2.5"]):
        given = vars(parser().parse_args(["generate", T2V, "a cat", *arguments]))
        settings = {each.name: given.get(each.name) for each in sampling_options()}
        vc_core.Sampling().changed(**settings)


def test_names_of_settings_become_options():
    assert in_options("fps is nan; guidance_rescale is 3, --eta is 2, my steps") == (
        "--fps is nan; --guidance-rescale is 3, --eta is 2, my steps"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([T2V, "--loop"], "--end-image and --loop need a first image"),
        ([T2V, "--end-image", "{picture}"], "--end-image and --loop need a first image"),
        ([DYNAMICRAFTER, "--image", "{picture}", "--end-image", "{picture}", "--loop"], "give --loop or --end-image, not both"),
        ([T2V, "--keep-last-frame"], "--keep-last-frame is for --loop"),
        ([T2V, "--denoise", "0.5"], "give --video, or leave --denoise out"),
        ([T2V, "--video", "{video}"], "--video needs --denoise below 1"),
        ([T2V, "--video", "{video}", "--denoise", "0.5"], "--video is 36x20 pixels; both sides must be multiples of 8"),
        ([T2V, "--video", "{video}", "--denoise", "0.5", "--frames", "3"], "leave --frames, --height and --width out"),
        ([T2V, "--frame-images", "{video}"], "takes no image for every frame|takes no image: leave --image out"),
        ([DYNAMICRAFTER, "--frame-images", "{video}"], "takes no image for every frame: .*viewcrafter_25_v1"),
        ([DYNAMICRAFTER, *VIEWS, "--frame-images", "{video}", "--frames", "7"], "--frame-images has 1 frame, but --frames is 7"),
        ([DYNAMICRAFTER, *VIEWS, "--image", "{picture}"], "takes an image for every frame: give them as --frame-images"),
        ([DYNAMICRAFTER, *VIEWS, "--image", "{picture}", "--frame-images", "{video}"], "leave --image out"),
        ([DYNAMICRAFTER, "--image", "{picture}", "--initial-noise", "{picture}"], "picture.png"),
        ([T2V, "--steps", "300", "--start-timestep", "200"], "--steps is 300; it can be 1 to 200"),
        ([T2V, "--video", "{video}", "--denoise", "0.5", "--freeinit-iterations", "2"], "--denoise is 0.5, but FreeInit is for runs"),
        ([DYNAMICRAFTER, "--image", "{picture}", "--freeinit-iterations", "2"], "set --start-timestep below 1000, such as 940"),
        ([T2V, "--image", "{picture}"], "takes no image: leave --image out"),
        ([T2V, "--image-guidance-scale", "3"], "takes no image: leave --image-guidance-scale out"),
        ([I2V], "makes videos from an image: give --image"),
        ([I2V, "--image", "{picture}", "--loop"], "leave --end-image and --loop out"),
        ([I2V, "--image", "{picture}", "--end-image", "{picture}"], "leave --end-image and --loop out"),
        ([DYNAMICRAFTER, "--image", "{picture}", "--loop", "--frames", "1"], "--frames is 1; .* at least 2"),
        ([T2V, "--height", "20"], "--height is 20; it must be a multiple of 8, such as 16 or 24"),
        ([T2V, "--width", "7"], "--width is 7; it must be a multiple of 8, such as 8 or 16"),
        ([T2V, "--width", "20000"], "20000x64; the sides of a .mp4 have at most"),
        ([T2V, "--steps", "1001"], "--steps is 1001; it can be 1 to 1000"),
        ([T2V, "--device", "abacus"], "argument --device: 'abacus' can't be used here; there is .*cpu"),
        ([T2V, "--dtype", "float8"], "argument --dtype: invalid choice: 'float8'"),
        ([T2V, "--negative-prompt", "caf\udce9"], "argument --negative-prompt: it is not text in UTF-8"),
        ([T2V, "--nonsense"], "unrecognized arguments: --nonsense"),
        (["tiny_t2w"], "no such file, nor a bundled model of that name. Did you mean videocrafter_tiny_t2v"),
        (["videocrafter_tiny_i2"], "Did you mean videocrafter_tiny_i2v"),
        (["t2v_512_v2"], "python -m vc_core fetch t2v_512_v2"),
        (["nonsense"], f"Bundled are {', '.join(bundled_models())}"),
        ([T2V, "--config", "none"], "no configuration 'none'"),
        ([T2V, "--subject", "cat"], "--subject and --trajectory-steps are of a path: give --trajectory"),
        ([T2V, "--trajectory-steps", "3"], "--subject and --trajectory-steps are of a path: give --trajectory"),
        ([T2V, "--trajectory", "{picture}", "--trajectory-steps", "-1"], "--trajectory-steps is -1; it must be 0 to 1000"),
        ([T2V, "--camera-guidance-scale", "3"], "--camera-guidance-scale is of a camera's path: give --camera"),
        ([T2V, "--style-strength", "0.5"], "--style-strength is of a style: give --style"),
        ([T2V, "--camera", "none.txt"], "none.txt is no file that exists: give a file of poses, or moves"),
        ([DEPTH, "--depth", "{video}", "--depth-strength", "0.5,0.6"], "--depth-strength is '0.5,0.6', which is neither a number nor a"),
        ([T2V, "--adapter", "none.safetensors"], "none.safetensors: no such file"),
    ],
)
def test_options_that_do_not_fit(arguments, message, capsys, no_work, picture, video, tmp_path):
    model, *options = (each.format(picture=picture, video=video) for each in arguments)
    line = refused(capsys, "generate", model, "a cat", "--output", f"{tmp_path}/clip.mp4", *options)
    assert re.search(message, line), line
    assert not (tmp_path / "clip.mp4").exists()


def test_blocks_of_the_deep_cache(capsys, tmp_path):
    line = refused(capsys, "generate", T2V, "a cat", "--output", f"{tmp_path}/clip.mp4", *QUICK, "--deep-cache=2", "--deep-cache-blocks=99")
    assert "--deep-cache-blocks is 99; this model has" in line


def test_a_typo_in_python():
    with pytest.raises(CheckpointError, match="Did you mean videocrafter_tiny_t2v"):
        vc_core.load("tiny_t2w")


def test_a_file_without_a_suffix_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="web page"):
        vc_core.load("model")
    (tmp_path / "mode1.ckpt").touch()
    with pytest.raises(CheckpointError, match="Did you mean mode1.ckpt"):
        vc_core.load("mode")


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none/clip", "folder", "x" * 300])
@pytest.mark.parametrize(
    ("command", "suffix"),
    [
        (["generate", T2V, "a cat", "--output", "{}"], ".mp4"), (["convert", T2V, "{}"], ".safetensors"),
        (["measure", I2V, "none.mp4", "none.png", "--plot", "{}"], ".png"),
    ],
)
def test_outputs_are_checked_first(command, suffix, name, capsys, no_work, tmp_path):
    (tmp_path / f"folder{suffix}").mkdir()
    line = refused(capsys, *(each.format(tmp_path / f"{name}{suffix}") for each in command))
    assert any(words in line for words in ("there is no folder", "There is no folder", "is a folder", "File name too long")), line


@pytest.mark.parametrize("plot", ["plot.txt", "plot", "plot.psd", "plot.xbm", ".png"])
def test_plots_that_can_not_be_drawn(plot, capsys, no_work):
    assert "such as plot.png" in refused(capsys, "measure", I2V, "none.mp4", "none.png", "--plot", plot)


def test_a_plot_that_fails_leaves_the_one_before(picture, tmp_path, capsys, monkeypatch):
    save_video(torch.zeros(3, 2, 16, 16), tmp_path / "clip.webp", 8)
    (tmp_path / "plot.png").write_bytes(b"the plot before")
    command = ["measure", I2V, str(tmp_path / "clip.webp"), picture, "--plot", str(tmp_path / "plot.png")]
    whole = Image.Image.save

    def full(image: Image.Image, target: object, *rest: object) -> None:
        if isinstance(target, Path):
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        whole(image, target, *rest)

    monkeypatch.setattr(Image.Image, "save", full)
    assert "can't be written (No space left on device); nothing was changed" in refused(capsys, *command)
    assert (tmp_path / "plot.png").read_bytes() == b"the plot before"
    monkeypatch.undo()
    assert main(command) == 0
    with Image.open(tmp_path / "plot.png") as drawn:
        assert drawn.format == "PNG" and drawn.width > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.webp", "picture.png", "plot.png"]


def test_pyav_comes_with_the_install():
    listed = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").split("dependencies = [")[1].split("]")[0]
    assert '"av>=' in listed
    assert "av" not in {line.split(">")[0] for line in (REPOSITORY / "requirements.txt").read_text().splitlines()}  # ComfyUI's own


# --- a loop's last frame ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--loop"], [0, 1, 2]), (["--loop", "--keep-last-frame"], [0, 1, 2, 3]), (["--end-image", "{picture}"], [0, 1, 2, 3]),
        ([], [0, 1, 2, 3]),
    ],
)
def test_a_loop_does_not_repeat_its_first_frame(options, kept, picture, tmp_path, monkeypatch):
    """As the authors' scripts save it: without the last frame, which is the first image again. Other videos keep theirs."""
    shades = torch.tensor([0, 80, 160, 240])  # of the four frames that the model makes
    made = (shades / 127.5 - 1)[None, None, :, None, None].expand(1, 3, 4, 16, 16)
    model = SimpleNamespace(image_to_video=lambda *_, **__: made)
    monkeypatch.setattr("vc_core.generating.load", lambda *_, **__: model)
    target = tmp_path / "clip.webp"
    options = [each.format(picture=picture) for each in options]
    assert main(["generate", DYNAMICRAFTER, "round", "--image", picture, "--output", str(target), *options]) == 0
    saved = ((read_video(target)[0, :, 0, 0] + 1) * 127.5).round().int()
    assert saved.tolist() == shades[kept].tolist()


def test_a_fractional_playback_speed_is_the_files(tmp_path, monkeypatch):
    model = SimpleNamespace(text_to_video=lambda *_, **__: torch.zeros(1, 3, 4, 16, 16))
    monkeypatch.setattr("vc_core.generating.load", lambda *_, **__: model)
    target = str(tmp_path / "clip.mp4")
    assert main(["generate", T2V, "a cat", "--output", target, "--playback-fps", "7.5"]) == 0
    with av.open(target) as container:
        assert container.streams.video[0].average_rate == 7.5


# --- how a command ends -----------------------------------------------------------------------------------------------


def raising(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (BrokenPipeError(32, "Broken pipe"), READER_GONE, ""),
        (MemoryError(), 1, "too little memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), 1, "memory (20.00 GiB more were needed)"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), 1, "too little memory. Make"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1677721600 bytes."), 1, "(1677721600 bytes more"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (PermissionError(13, "Permission denied", "a\x1b[31m.png"), 1, r"a\x1b[31m.png: Permission denied"),
        (files.FileWriteError("it\x07 can't"), 1, r"it\x07 can't"),
    ],
)
def test_ends_without_a_traceback(error, code, message, capsys):
    assert finish(raising(error)) == code
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == (1 if message else 0)
    assert err == "" or err.startswith("error: ")


def test_a_bug_is_no_error_of_the_user():
    for error in (RuntimeError("shapes differ"), KeyError("a"), ValueError("too many values")):
        with pytest.raises(type(error)):
            finish(raising(error))


def test_torch_s_own_words_for_too_little_memory_are_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value) and not is_out_of_memory(RuntimeError("shapes differ"))


def test_control_characters_become_escapes():
    assert printable("a\x1b[2Jb\r\n\x00\x7f\x9b\u202e") == r"a\x1b[2Jb\r\n\x00\x7f\x9b\u202e"
    assert printable("Schwäne 白鳥 🦢") == "Schwäne 白鳥 🦢"


@POSIX
def test_names_and_titles_with_control_characters(tmp_path, capsys):
    odd = tmp_path / "a\x1b]0;title\x07\n\r.safetensors"
    assert main(["convert", T2V, str(odd)]) == 0 and main(["info", str(odd)]) == 0
    (tmp_path / "titled.yaml").write_text('title: "a\\e[31m\\u202e red\\nerror: forged"')
    assert main(["info", T2V, "--config", str(tmp_path / "titled.yaml")]) in (0, 1)
    assert main(["info", str(tmp_path / "none\x1b[31m\nerror: forged.ckpt")]) == 1
    out, err = capsys.readouterr()
    for text in (out, err.replace("\r", "")):  # with which a progress bar goes back
        assert not [character for character in text if not character.isprintable() and character != "\n"]
        assert not any(line.startswith("error: forged") for line in text.splitlines())


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a shell, with ``$V`` for our own."""
    return subprocess.run(
        ["bash", "-c", command], cwd=REPOSITORY, env={**os.environ, "V": f"{sys.executable} -m vc_core", **environment},
        capture_output=True, encoding="utf-8", errors="replace", check=False,
    )


@POSIX
def test_a_reader_that_goes_away():
    done = run(f"set -o pipefail; $V info {T2V} | head -1")
    assert done.returncode == READER_GONE and done.stderr == "" and len(done.stdout.splitlines()) == 1


@POSIX
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.full
def test_an_output_that_is_full():
    done = run(f"$V info {T2V} > /dev/full")
    assert done.returncode == 1 and done.stderr.startswith("error: No space left") and done.stderr.count("\n") == 1


ASCII = "import sys; from vc_core.__main__ import main; main(['info', sys.argv[1]]); sys.exit(main(['info', sys.argv[1] + 'x']))"


@POSIX
@pytest.mark.full
def test_an_ascii_console(tmp_path):
    name = tmp_path / "schwäne.safetensors"
    main(["convert", T2V, str(name)])
    done = run(f'{sys.executable} -c "{ASCII}" "{name}"', LANG="C", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert r"schw\xe4ne.safetensors: Bundled" in done.stdout and r"schw\xe4ne.safetensorsx: no such file" in done.stderr


@POSIX
def test_ctrl_c(tmp_path):
    long = ["--steps", "1000", "--frames", "2"]
    command = [sys.executable, "-m", "vc_core", "generate", T2V, "a cat", "--output", tmp_path / "clip.webp", *long]

    def hear_ctrl_c() -> None:
        """A shell's background jobs, of which this test can be one, don't."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c) as process:
        read = ""
        while "1/1000" not in read and (more := process.stderr.read(1)):
            read += more
        process.send_signal(signal.SIGINT)
        read = process.stderr.read()
    assert process.returncode == INTERRUPTED and "Traceback" not in read and read.splitlines()[-1].startswith("error: interrupted")
    assert list(tmp_path.iterdir()) == []


def test_output_that_takes_no_settings_is_left_alone(monkeypatch):
    """Such as a closed one, or a notebook's."""
    monkeypatch.setattr("sys.stdout", None)
    console.accept_all_text()
    assert finish(lambda: None) == 0
