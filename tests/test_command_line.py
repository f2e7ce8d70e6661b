"""``python -m vc_core``, run as its user does."""

from __future__ import annotations

import ast
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import vc_core
from harness import goldens
from harness.comfyui import REPOSITORY
from vc_core.__main__ import main
from vc_core.checkpoint import CheckpointError
from vc_core.errors import ConfigError, FileWriteError, InputError, VideoCrafterError
from vc_core.fetch import FetchError
from vc_core.media.images import ImageFileError, read_image
from vc_core.media.video import VideoFileError, read_video, save_video

SMALL = ["--frames", "3", "--height", "16", "--width", "16", "--steps", "2"]


@pytest.fixture(scope="module")
def i2v_path(tmp_path_factory):
    return goldens.write_checkpoint("i2v_512_v1", tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return goldens.write_checkpoint("t2v_512_v2", tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif", ".png"])
def test_generate(path, suffix, tmp_path, capsys):
    target = tmp_path / f"clip{suffix}"
    assert main(["generate", str(path), "a cat", "--output", str(target), *SMALL]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    if suffix == ".mp4":
        with av.open(str(target)) as container:
            assert [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)] == [(16, 16, 3)] * 3
    else:
        assert Image.open(target).n_frames == 3


@pytest.mark.parametrize("mode, value", [("RGB", (200, 30, 9)), ("L", 90), ("RGBA", (200, 30, 9, 50)), ("P", 3), ("I;16", 30000)])
def test_an_image_to_a_clip(i2v_path, mode, value, tmp_path):
    Image.new(mode, (50, 30), value).save(tmp_path / "image.png")
    target = tmp_path / "clip.webp"
    arguments = ["generate", str(i2v_path), "a cat", "--image", str(tmp_path / "image.png"), "--output", str(target), *SMALL]
    assert main(arguments) == 0
    assert Image.open(target).n_frames == 3


def test_a_clip_whose_subject_follows_a_path(tmp_path):
    """The path has the clip's own length and size, which are not the model's."""
    save_video(torch.rand(3, 4, 32, 64) * 2 - 1, tmp_path / "in.mp4", 8)
    (tmp_path / "path.json").write_text('[[{"x": 10, "y": 10}, {"x": 50, "y": 20}]]')
    options = ["--video", f"{tmp_path}/in.mp4", "--denoise", "0.5", "--steps", "2", "--trajectory", f"{tmp_path}/path.json"]
    subject = ["--subject", "red circle", "--output", f"{tmp_path}/out.mp4"]
    assert main(["generate", "videocrafter_tiny_t2v", "a red circle", *options, *subject]) == 0
    assert read_video(tmp_path / "out.mp4").shape == (3, 4, 32, 64)


def test_images_are_read_as_they_are(tmp_path):
    Image.new("I;16", (2, 3), 32768).save(tmp_path / "deep.png")
    assert torch.allclose(read_image(tmp_path / "deep.png"), torch.full((3, 3, 2), 32768 / 65535 * 2 - 1))
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "moving.gif")[:, 0, 0].tolist() == [1, -1, -1]


def test_saved_pixels_are_the_frames(tmp_path):
    frames = torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_video(frames, tmp_path / "clip.webp", fps=8)
    with Image.open(tmp_path / "clip.webp") as clip:
        for index in range(4):
            clip.seek(index)
            expected = (frames[:, index].permute(1, 2, 0) + 1) * 127.5
            assert np.abs(np.asarray(clip.convert("RGB")) - expected.numpy()).max() <= 0.51


def test_info(path, capsys):
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "A model of the form of t2v_512_v2" in out and "unet: 626 tensors" in out and "scale_end: 0.7" in out


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_convert(path, dtype, tmp_path):
    target = tmp_path / "converted.safetensors"
    assert main(["convert", str(path), str(target), "--dtype", dtype]) == 0
    with safe_open(target, "pt") as file:
        names = set(file.keys())
        assert names == {name for name in goldens.weights("t2v_512_v2") if "." in name}  # no schedule buffers
        assert file.get_tensor("model.diffusion_model.out.2.bias").dtype == getattr(torch, dtype)
        assert "scale_end: 0.7" in file.metadata()["vc_core.config"]
    assert vc_core.load(target).config == vc_core.load(path).config


def test_a_converted_file_makes_the_same_video(path, tmp_path):
    target = tmp_path / "converted.safetensors"
    main(["convert", str(path), str(target), "--dtype", "float32"])
    small = {"frames": 3, "height": 16, "width": 16, "steps": 2}
    videos = [vc_core.load(file).text_to_video("a cat", **small) for file in (path, target)]
    assert (videos[0] - videos[1]).abs().max() <= goldens.PIXEL_TOLERANCE


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["info", "missing.ckpt"], "no such file"),
        (["generate", "{path}", "a cat", "--output", "clip.avi"], "should end in one of .mp4"),
        (["generate", "{path}", "a cat", "--height", "20"], "multiple of 8, such as 16 or 24"),
        (["generate", "{path}", "a cat", "--frames", "0"], "at least 1"),
        (["generate", "{path}", "a cat", "--image", "none.png"], "There is no image none.png"),
        (["generate", "{path}", "a cat", "--image", "{path}"], "can't be read as an image"),
        (["generate", "{path}", "a cat", "--config", "nothing.yaml"], "no configuration 'nothing.yaml'"),
        (["generate", "{path}", "a cat", "--loop"], "need a first image"),
        (["convert", "{path}", "{path}"], "is the file to convert itself"),
        (["measure", "{path}", "{path}", "none.png"], "can't be read as a video"),
        (["measure", "{path}", "{path}", "none.png", "--plot", "plot.txt"], "such as plot.png"),
        (["measure", "{path}", "none.mp4", "none.png", "--plot", "none/plot.png"], "in a folder that exists"),
        (["measure", "{path}", "none.mp4", "none.png"], "There is no video none.mp4"),
    ],
)
def test_errors_are_one_line(path, arguments, message, capsys):
    assert main([argument.format(path=path) for argument in arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert not any(line.startswith(("Traceback", "error: ")) for line in lines[:-1])


def test_a_device_that_is_not_there(path, capsys):
    with pytest.raises(SystemExit):
        main(["generate", str(path), "a cat", "--device", "abacus"])
    assert "argument --device: 'abacus' can't be used here" in capsys.readouterr().err


BUG = """
import sys, vc_core.__main__ as command
def buggy(path, config, base):
    first, second = (1, 2, 3)
command.ModelFile.open = buggy
sys.exit(command.main(["info", "model.ckpt"]))
"""


def test_a_device_that_is_not_there_is_told_before_training(tmp_path, capsys):
    given = ["--model", "videocrafter_tiny_t2v", "--data", str(tmp_path), "--output", str(tmp_path / "run")]
    assert main(["train", *given, "--device", "x"]) == 1
    assert "'x' can't be used here; there is " in capsys.readouterr().err


def test_a_bug_keeps_its_traceback():
    """Python's own ValueError is no error of the user, though ours are ValueErrors too."""
    done = subprocess.run([sys.executable, "-c", BUG], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "error: too many values" not in done.stderr
    assert "Traceback" in done.stderr and "in buggy" in done.stderr and "ValueError: too many values" in done.stderr


def test_all_errors_for_users_have_one_base():
    for error in (CheckpointError, ConfigError, FetchError, VideoFileError, ImageFileError, InputError, FileWriteError):
        assert issubclass(error, VideoCrafterError) and issubclass(error, ValueError)


def test_no_bad_input_is_a_plain_value_error():
    """A ValueError that vc_core raises itself would be shown as a bug."""
    raised = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in sorted((REPOSITORY / "vc_core").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and getattr(node.exc.func, "id", "") == "ValueError"
    ]
    assert raised == []
