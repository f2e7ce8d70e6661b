"""Each measure against a value that follows from its definition, and that it falls or rises with the strength of a damage."""

from __future__ import annotations

import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from skimage.filters import laplace
from torchvision.models.optical_flow import raft_large

from harness.comfyui import REPOSITORY
from tests.evaluation_clips import noisy, panning, texture
from vc_core.checkpoint.errors import CheckpointError
from vc_core.errors import InputError
from vc_core.evaluation.brisque import Brisque, brisque
from vc_core.evaluation.clip import Clip
from vc_core.evaluation.evaluator import evaluate
from vc_core.evaluation.flicker import flickering
from vc_core.evaluation.flow import DisFlow, RaftFlow
from vc_core.evaluation.measures import MEASURES, chosen
from vc_core.evaluation.motion import dynamic_degree, flow_score, motion_speed
from vc_core.evaluation.plain_shapes import colour, count
from vc_core.evaluation.score import NotMeasured
from vc_core.evaluation.sharpness import laplacian, sharpness
from vc_core.evaluation.smoothness import motion_smoothness
from vc_core.evaluation.text_alignment import text_alignment
from vc_core.evaluation.text_rendering import Reader, edit_distance, quoted, text_rendering
from vc_core.evaluation.tools import Tools, make_tools
from vc_core.evaluation.towers import Tower
from vc_core.evaluation.warping import pair_error, warping_error


def still(frames: int = 6) -> np.ndarray:
    return np.repeat(texture(64, 96)[None], frames, 0)


@pytest.fixture(scope="module")
def flow() -> DisFlow:
    return DisFlow()


# Clips


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(6, 16, 16, 3), r"\[3, T, H, W\]"), (torch.zeros(3, 16, 16, 3), "3x16; measures need"),
        (torch.full((3, 4, 16, 16), 200.0), "must be in"), (torch.full((3, 4, 16, 16), math.nan), "no numbers"),
        (torch.zeros(3, 0, 16, 16), "expected"), (torch.zeros(3, 2, 16, 16, dtype=torch.uint8), "floats"),
    ],
)
def test_frames_of_another_form_are_refused(frames, message):
    with pytest.raises(InputError, match=message):
        Clip.of(frames)


def test_frames_come_back_as_they_are():
    pixels = texture(16, 24)[None].repeat(3, 0)
    frames = torch.from_numpy(pixels).permute(3, 0, 1, 2) / 127.5 - 1
    clip = Clip.of(frames)
    assert (clip.pixels == pixels).all() and torch.allclose(clip.images().transpose(0, 1), frames, atol=1e-6)


# Without a network


def test_flickering_of_alternating_frames():
    """Frames of 100 and 151 in turn differ by 51, a fifth of 255."""
    pixels = np.stack([np.full([16, 16, 3], value, np.uint8) for value in (100, 151, 100, 151)])
    score = flickering(Clip(pixels))
    assert score.value == pytest.approx(0.8) and len(score.curve) == 3 and score.first == 1
    assert flickering(Clip(still())).value == 1


def test_sharpness_of_a_checkerboard():
    """Each pixel of a board of 0 and 255 differs from all four neighbours by 255: its Laplacian is 1020 or -1020."""
    board = (np.indices([32, 32]).sum(0) % 2 * 255).astype(np.uint8)
    assert sharpness(Clip(np.repeat(board[None, ..., None], 3, -1))).value == pytest.approx(1020**2, rel=1e-5)
    assert sharpness(Clip(np.full([1, 16, 16, 3], 70, np.uint8))).value == pytest.approx(0, abs=1e-3)


def test_the_laplacian_is_opencv_s_and_scikit_image_s():
    grey = texture(40, 30)[..., 0].astype(np.float32)
    assert np.allclose(laplacian(grey), cv2.Laplacian(grey, cv2.CV_32F, ksize=1)[1:-1, 1:-1], atol=1e-3)
    assert np.allclose(laplacian(grey), -laplace(grey)[1:-1, 1:-1], atol=1e-3)


def test_sharpness_falls_as_a_blur_s_sigma_says():
    """The Laplacian's variance of blurred white noise is that of the noise times a sum over the blur's frequencies."""
    noise = np.random.default_rng(0).normal(128, 20, [256, 256])
    frequencies = 2 * np.pi * np.fft.fftfreq(256)
    response = 2 * np.cos(frequencies)[:, None] + 2 * np.cos(frequencies)[None] - 4
    for sigma in (0.8, 1.5, 3.0):
        blurred = np.real(np.fft.ifft2(np.fft.fft2(noise) * np.exp(-(sigma**2) * (frequencies[:, None] ** 2 + frequencies**2) / 2)))
        gain = np.exp(-(sigma**2) * (frequencies[:, None] ** 2 + frequencies**2))
        expected = 400 * (response**2 * gain).mean()
        assert laplacian(blurred).var() == pytest.approx(expected, rel=0.05), sigma


# By optical flow


@pytest.mark.parametrize("step", [1.0, 3.0, -3.0, 5.5])
def test_the_flow_score_of_a_translation_is_its_length(flow, step):
    assert flow_score(Clip(panning(step)), flow).value == pytest.approx(abs(step), rel=0.05)


def test_a_still_clip_has_no_motion(flow):
    clip = Clip(still())
    assert flow_score(clip, flow).value == motion_speed(clip, flow).value == dynamic_degree(clip, flow).value == 0
    assert warping_error(clip, flow).value == 0 and motion_smoothness(clip, flow).value == 1


def test_dynamic_degree_turns_at_6_pixels_of_256(flow):
    """Of 96 pixels these are 2.25; below 8 frames a second more is asked for."""
    assert dynamic_degree(Clip(panning(3.0)), flow).value == 1
    assert dynamic_degree(Clip(panning(1.5)), flow).value == 0
    score = dynamic_degree(Clip(panning(3.0), fps=4.0), flow)
    assert score.value == 0 and score.curve[0] == pytest.approx(3 / 4.5, rel=0.1)
    moves_once = np.concatenate([panning(3.0, 2), np.repeat(panning(3.0, 2)[-1:], 14, 0)])
    assert dynamic_degree(Clip(moves_once), flow).value == 0


@pytest.mark.parametrize(("fps", "frames"), [(8.0, 16), (16.0, 16), (16.0, 160), (29.97, 30), (29.97, 160)])
def test_motion_hardly_depends_on_the_rate(flow, fps, frames):
    """24 pixels a second on frames of 64: 0.375 of a side, told within a tenth at any rate and length."""
    size = (64, 64)
    clip = Clip(panning(24 / fps, frames, *size), fps)
    assert motion_speed(clip, flow).value == pytest.approx(0.375, rel=0.1)
    assert dynamic_degree(clip, flow).value == 1


def test_motion_hardly_depends_on_the_size(flow):
    values = [motion_speed(Clip(panning(side / 32, 8, side, side), 8.0), flow).value for side in (64, 128, 256)]
    assert values == pytest.approx([0.25] * 3, rel=0.1)


def test_the_warping_error_of_known_flows():
    """By hand: a shift of two pixels with its true flow has no error; with no flow, that of the frames."""
    frames = panning(2.0, 2)
    there = np.zeros([*frames[0].shape[:2], 2], np.float32)
    there[..., 0] = 2
    assert pair_error(frames[0], frames[1], there, -there) < 1e-5
    difference = np.square((frames[1].astype(float) - frames[0]) / 255).sum(-1).mean()
    assert pair_error(frames[0], frames[1], there * 0, there * 0) == pytest.approx(difference, rel=1e-5)
    # Flows that contradict each other everywhere: nothing is visible in both.
    assert pair_error(frames[0], frames[1], there, there) == pytest.approx(difference, rel=1e-5)


def test_what_is_covered_is_left_out():
    """A square in front of a moving ground, whose error is not that of the flow."""
    frames = panning(4.0, 2, 64, 96).copy()
    there = np.zeros([64, 96, 2], np.float32)
    there[..., 0] = 4
    back = -there
    frames[1, 20:40, 50:70] = 255
    back[20:40, 50:70] = 0  # the square stays; what was there is covered
    assert pair_error(frames[0], frames[1], there, back) < 1e-5
    assert pair_error(frames[0], frames[1], there, -there) > 0.01


def test_smoothness_of_even_and_uneven_motion(flow):
    """Even motion is interpolated up to rounding; where odd frames are held, the interpolation is off by half a double step."""
    even = panning(2.0, 9)
    held = even[np.arange(9) // 2 * 2]
    smooth, stutter = (motion_smoothness(Clip(each), flow).value for each in (even, held))
    off = np.mean([np.abs(even[index].astype(float) - even[index - 1]).mean() for index in (1, 3, 5, 7)]) / 255
    assert smooth > 0.99 and 1 - stutter == pytest.approx(off, rel=0.1)


def test_raft_is_torchvision_s(tmp_path):
    torch.manual_seed(0)
    network = raft_large(weights=None).eval()
    save_file(network.state_dict(), tmp_path / "raft.safetensors")
    frames = panning(3.0, 2, 128, 136)
    raft = RaftFlow.load(tmp_path / "raft.safetensors")
    with torch.inference_mode():
        pair = [torch.from_numpy(frame).permute(2, 0, 1)[None] / 127.5 - 1 for frame in frames]
        expected = network(*pair, num_flow_updates=20)[-1][0].permute(1, 2, 0).numpy()
    assert raft.tag == "RAFT" and np.allclose(raft(*frames), expected, atol=1e-3)
    assert raft(*panning(3.0, 2, 50, 70)).shape == (50, 70, 2)
    (tmp_path / "other.safetensors").write_bytes((tmp_path / "raft.safetensors").read_bytes()[:100])
    with pytest.raises(CheckpointError):
        RaftFlow.load(tmp_path / "other.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "wrong.safetensors")
    with pytest.raises(CheckpointError, match="raft_large"):
        RaftFlow.load(tmp_path / "wrong.safetensors")


# By other libraries


def test_brisque_is_the_package_s_and_rises_with_noise_and_blur():
    """The package's own bounds of a natural picture are not known here: its order is."""
    pytest.importorskip("brisque")
    pixels = np.stack([texture(160, 200, blur=4.0)] * 2)
    pixels = np.clip(pixels.astype(int) + texture(160, 200, 1, blur=0.8) // 4, 0, 255).astype(np.uint8)
    model, generator = Brisque(), np.random.default_rng(0)
    noise = [brisque(Clip(noisy(pixels, strength, generator)), model).value for strength in (0.2, 0.5, 1.0)]
    assert noise == sorted(noise) and noise[-1] - noise[0] > 10
    with pytest.raises(NotMeasured, match="texture"):
        brisque(Clip(np.full([2, 64, 64, 3], 128, np.uint8)), model)


def test_text_in_frames():
    pytest.importorskip("rapidocr")
    frames = []
    for text in ("HELLO WORLD", "HELLO WORLD", ""):
        image = Image.new("RGB", (512, 320), "navy")
        ImageDraw.Draw(image).text((60, 100), text, fill="white", font=ImageFont.load_default(60))
        frames.append(np.asarray(image))
    reader = Reader()
    clip = Clip(np.stack(frames), prompt='a sign that says "Hello World"')
    assert text_rendering(clip, reader).curve == (1, 1, 0)
    wrong = Clip(clip.pixels[:1], prompt="the word 'goodbye' on a wall")
    assert text_rendering(wrong, reader).value < 0.5
    with pytest.raises(NotMeasured, match="quotes"):
        text_rendering(Clip(clip.pixels, prompt="a dog that doesn't bark, it's asleep"), reader)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ('the sign "STOP" and "GO"', "STOP GO"), ("it says 'yes'", "yes"), ("don't say it's over", ""), ("“hi” there", "hi"),
        ("a dog", ""), ("‘one’ «two»", "one two"),
    ],
)
def test_words_in_quotes(prompt, text):
    assert quoted(prompt) == text


def test_edit_distances_by_hand():
    assert [edit_distance(*pair) for pair in (("kitten", "sitting"), ("", "abc"), ("abc", ""), ("same", "same"))] == [3, 3, 3, 0]


def test_colour_and_count_of_drawn_shapes():
    canvas = np.full([4, 64, 64, 3], 20, np.uint8)
    for frame, places in zip(canvas, [[16], [16, 46], [16, 46], []], strict=True):
        for place in places:
            cv2.circle(frame, (place, 32), 8, (255, 0, 0), -1)
    clip = Clip(canvas, prompt="two red circles moving left")
    assert count(clip).curve == (0, 1, 1, 0) and colour(clip).curve == (1, 1, 1, 0)
    assert colour(Clip(canvas, prompt="a blue circle")).value == 0 and count(Clip(canvas, prompt="a blue circle")).value == 0.25
    for prompt in ("a red car", "a circle"):
        with pytest.raises(NotMeasured):
            colour(Clip(canvas, prompt=prompt))


# All together


def test_what_is_missing_is_absent_with_its_reason():
    """Neither 0 nor 1 stands for a measure that could not be made."""
    tools = make_tools(chosen([]))
    scores = evaluate(Clip(still(1)), chosen([]), tools)
    assert set(scores.values) == {"sharpness", "brisque"}
    assert scores.skipped["flow_score"] == "needs at least 2 frames" and scores.skipped["motion_smoothness"] == "needs at least 3 frames"
    assert scores.skipped["text_alignment"] == scores.skipped["color"] == "needs a prompt"
    assert scores.skipped["image_fidelity"] == "needs the source image" and "--weights dino" in tools.missing["dino"]
    assert {name.partition(" (")[0] for name in (*scores.values, *scores.skipped)} == set(MEASURES)


def test_a_library_that_does_not_start_takes_one_measure_away(monkeypatch):
    import builtins

    own = builtins.__import__

    def broken(name, *args, **kwargs):
        if name.partition(".")[0] == "brisque":
            raise RuntimeError("built for another NumPy")
        return own(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    monkeypatch.setattr("importlib.import_module", lambda name: broken(name, fromlist=["x"]))
    names = ["brisque", "sharpness", "flow_score"]
    scores = evaluate(Clip(still()), chosen(names), make_tools(chosen(names)))
    assert set(scores.values) == {"sharpness", "flow_score (DIS)"}
    assert "pip install brisque" in scores.skipped["brisque"] and "another NumPy" in scores.skipped["brisque"]


def test_the_extra_s_libraries_leave_torch_alone():
    """Neither it nor what it needs asks for another torch or transformers, or for an old NumPy (VBench 1, 16, 73)."""
    from importlib.metadata import requires

    extra = next(line for line in (REPOSITORY / "pyproject.toml").read_text().splitlines() if line.startswith("evaluate = "))
    libraries = re.findall(r'"([\w-]+)', extra)
    needed = [Requirement(each) for library in libraries for each in requires(library) or ()]
    needed = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    assert len(libraries) == 4 and not {each.name for each in needed} & {"torch", "torchvision", "transformers"}
    assert all("2.4" in each.specifier for each in needed if each.name == "numpy")


def test_a_value_out_of_its_range_is_marked():
    tower = Tower("odd", lambda images: torch.ones(len(images), 2) * 0 + torch.tensor([1.0, 0.0]), lambda _: torch.tensor([1.0, 0.0]))
    measure = chosen(["text_alignment"])[0]
    from dataclasses import replace

    scaled = replace(measure, run=lambda clip, tool: replace(text_alignment(clip, tool), value=1.2))
    scores = evaluate(Clip(still(), prompt="x"), [scaled], Tools({"tower": [tower]}))
    assert scores.outside == ["text_alignment (odd)"] and scores.values["text_alignment (odd)"] == 1.2


@pytest.mark.parametrize(
    ("names", "message"), [(["sharpnes"], "did you mean sharpness"), (["flow_score,qqqq"], "There is no measure 'qqqq'")]
)
def test_measures_that_there_are_not(names, message):
    with pytest.raises(InputError, match=message):
        chosen(names)


@pytest.mark.parametrize(
    ("weights", "message"), [({"clip": Path("x")}, "no weights named 'clip'"), ({"aesthetic": Path("x")}, "clip-l14=FILE")]
)
def test_weights_that_there_are_not(weights, message):
    with pytest.raises(InputError, match=message):
        make_tools(chosen([]), weights=weights)
