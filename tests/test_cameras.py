"""Camera paths: moves in words, pose files, and other numbers of frames."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from vc_core.control.cameras import EASINGS, MOVES, RADIUS, CameraPath, camera_path, compose, inverse, rotation
from vc_core.control.pose_files import read_poses
from vc_core.errors import InputError


def seen(path: CameraPath, point: tuple[float, float, float]) -> Tensor:
    """Where a point of the scene is in the pictures, ``[T, 2]``: x / z and y / z."""
    position = (path.poses[:, :, :3] @ torch.tensor(point, dtype=torch.float64)) + path.poses[:, :, 3]
    return position[:, :2] / position[:, 2:]


def centres(path: CameraPath) -> Tensor:
    return inverse(path.poses)[:, :, 3]


#: How what is straight ahead moves in the picture: right, down.
DRIFTS = {
    "pan left": (1, 0), "pan right": (-1, 0), "pan up": (0, 1), "pan down": (0, -1), "tilt up": (0, 1), "tilt down": (0, -1),
    "turn left": (1, 0), "turn right": (-1, 0),
}


@pytest.mark.parametrize("move", DRIFTS)
def test_what_a_move_shows(move):
    drift = seen(camera_path(move, 16), (0, 0, 20))[-1]
    assert torch.equal(drift.abs() > 0.01, torch.tensor(DRIFTS[move]) != 0)
    assert (drift.sign() * (drift.abs() > 0.01)).tolist() == list(DRIFTS[move])


def test_zooms_and_rolls():
    assert seen(camera_path("zoom in", 16), (1, 0, 20))[-1, 0] > 1 / 20 > seen(camera_path("zoom out", 16), (1, 0, 20))[-1, 0]
    # The camera rolls to the left, so the picture turns clockwise: what is on the right goes down.
    assert seen(camera_path("roll left", 16), (1, 0, 20))[-1, 1] > 0 > seen(camera_path("roll right", 16), (1, 0, 20))[-1, 1]


@pytest.mark.parametrize(("move", "side", "axis"), [("left", -1, 0), ("right", 1, 0), ("up", -1, 1), ("down", 1, 1)])
def test_an_orbit_keeps_its_distance_and_its_view(move, side, axis):
    path = camera_path(f"orbit {move}", 16)
    pivot = torch.tensor([0, 0, RADIUS], dtype=torch.float64)
    assert (centres(path) - pivot).norm(dim=1) == pytest.approx(torch.full([16], RADIUS).tolist())
    assert seen(path, (0, 0, RADIUS)).abs().max() < 1e-12
    assert centres(path)[-1, axis] * side > 0.5


def test_a_move_goes_its_whole_way_in_any_number_of_frames():
    """The rule: in frame i of n it is at i / n."""
    short, long = (camera_path("pan left", frames) for frames in (16, 32))
    assert torch.equal(short.poses, long.poses[::2])
    assert long.poses[16, 0, 3] == pytest.approx(0.75)


def test_moves_one_after_the_other_join():
    path = camera_path("pan left then zoom in", 16)
    steps = (path.poses[1:] - path.poses[:-1]).abs().amax((1, 2))
    assert steps[7] <= max(steps[:7].max(), steps[8:].max())
    uneven = camera_path("pan left, then zoom in; roll left -> orbit up", 18)
    lengths = [len(list(group)) for group in ((0,) * 5, (0,) * 5, (0,) * 4, (0,) * 4)]
    assert len(uneven) == sum(lengths) == 18
    assert torch.equal(uneven.poses[5], uneven.poses[4])  # the second move begins where the first was


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Pan Left, ZOOM in", "zoom in and pan left"), ("pan-left + zoom_in", "pan left & zoom in"), ("pan left 1", "pan left"),
        ("ACW", "roll left"), ("ClockWise (CW)", "roll right"), ("Anti Clockwise (ACW)", "roll left"), ("dolly in", "zoom in"),
        ("pan left x0.5, pan left 0.5", "pan left"), ("pan left;\n zoom in.", "pan left then zoom in"), ("Static", "still"),
    ],
)
def test_other_words(text, same):
    assert torch.allclose(camera_path(text, 16).poses, camera_path(same, 16).poses, atol=1e-15)


def test_a_move_s_own_speed():
    assert torch.allclose(camera_path("pan left 0.5", 16).poses, camera_path("pan left", 16, speed=0.5).poses)
    assert camera_path("still", 4).is_still and camera_path("pan left 0", 4).is_still and not camera_path("pan left", 4).is_still


@pytest.mark.parametrize("easing", EASINGS)
def test_easing(easing):
    steps = camera_path("pan left", 64, easing=easing).poses[:, 0, 3].diff()
    first, last, middle = steps[0], steps[-1], steps[31]
    ends = {  # of u, u^2, 2 u - u^2 and 3 u^2 - 2 u^3 in 64 parts
        "linear": (1, 1), "ease in": (1 / 64, 125 / 64), "ease out": (127 / 64, 3 / 64), "ease in and out": (0.0464, 0.1372),
    }
    assert (float(first * 64 / 1.5), float(last * 64 / 1.5)) == pytest.approx(ends[easing], abs=1e-4)
    assert middle > 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "There is no move"), (" , ;\n", "There is no move"), ("fly away", "'fly away' is not known"), ("pan", "'pan' is not known"),
        ("pan left -1", "is -1; it can be 0 to 10"), ("pan left 11", "is 11"), ("pan left 1e9", "not known"),
        (", ".join(["pan left"] * 17), "at most 16"), ("x" * 10_001, "10001 characters"), ("pan left" + " then still" * 3, "4 moves"),
    ],
)
def test_moves_that_can_t_be_read(text, what):
    with pytest.raises(InputError, match=what):
        camera_path(text, 3)


def test_other_wrong_values():
    for speed in (-1.0, math.nan, math.inf, 10.1):
        with pytest.raises(InputError, match="speed is"):
            camera_path("pan left", 16, speed=speed)
    with pytest.raises(InputError, match="easing is 'fast'"):
        camera_path("pan left", 16, easing="fast")
    for frames in (0, -1, 10**6):
        with pytest.raises(InputError, match="1 to 100000 frames"):
            camera_path("pan left", frames)
    for shape in ([0, 3, 4], [4, 4, 4], [3, 4]):
        with pytest.raises(InputError, match="must be"):
            CameraPath(torch.zeros(shape))
    with pytest.raises(InputError, match="Pose 1"):
        CameraPath(torch.tensor([0.0, math.nan])[:, None, None].expand(2, 3, 4))
    with pytest.raises(InputError, match="fx and fy above 0"):
        CameraPath(torch.eye(3, 4)[None], torch.zeros(1, 4))


def random_path(frames: int) -> CameraPath:
    generator = torch.Generator().manual_seed(3)
    turns = rotation(torch.rand(frames, 3, generator=generator, dtype=torch.float64) * 4)
    return CameraPath(torch.cat([turns, torch.randn(frames, 3, 1, generator=generator, dtype=torch.float64)], 2))


def test_poses_in_another_number_of_frames():
    path = random_path(3)
    longer = path.resampled(17)
    assert torch.equal(longer.poses[[0, 8, 16]], path.poses)
    assert (longer.poses[:, :, :3] @ longer.poses[:, :, :3].mT - torch.eye(3)).abs().max() < 1e-12
    assert torch.allclose(centres(longer)[4], centres(path)[:2].mean(0))  # halfway, along a line
    quarter = longer.poses[4, :, :3] @ path.poses[0, :, :3].T
    assert torch.allclose(quarter @ quarter, path.poses[1, :, :3] @ path.poses[0, :, :3].T)  # half of the turn
    sixteen = path.resampled(16)  # the camera file with 3 poses for 16 frames
    assert len(sixteen) == 16 and torch.equal(sixteen.poses[0], path.poses[0]) and torch.equal(sixteen.poses[-1], path.poses[2])
    assert torch.equal(path.resampled(1).poses, path.poses[:1])
    assert torch.equal(CameraPath(path.poses[:1]).resampled(5).poses, path.poses[:1].expand(5, 3, 4))


def test_half_a_turn_has_an_axis():
    half = rotation(torch.tensor([[0.0, 0, 0], [0, math.pi, 0]], dtype=torch.float64))
    path = CameraPath(torch.cat([half, torch.zeros(2, 3, 1)], 2)).resampled(3)
    assert torch.allclose(path.poses[1, :, :3].abs(), rotation(torch.tensor([0, math.pi / 2, 0], dtype=torch.float64)).abs(), atol=1e-6)


def test_coordinates_of_another_camera():
    path = random_path(4)
    relative = path.relative_to(2)
    assert torch.allclose(relative.poses[2], torch.eye(3, 4, dtype=torch.float64))
    assert torch.allclose(compose(relative.poses, path.poses[2].expand(4, 3, 4)), path.poses)
    with pytest.raises(InputError, match="no frame 4"):
        path.relative_to(4)


LINE = "0 0.5 0.9 0.5 0.5 0 0 1 0 0 7 0 1 0 8 0 0 1 9"
URL = "https://www.youtube.com/watch?v=abc"


@pytest.mark.parametrize(
    "text",
    [
        LINE, f"{URL}\n{LINE}", f"{URL}\r\n{LINE}\r\n\r\n", f"\ufeff{LINE}\n", LINE.replace(" ", ", "), f"\n{LINE}\n",
        LINE.replace(" ", "\t"),
    ],
)
def test_a_line_of_a_pose_file(text):
    """Time, fx, fy, cx, cy, two unused, and the matrix row by row."""
    path = read_poses(text)
    assert path.poses.tolist() == [[[1, 0, 0, 7], [0, 1, 0, 8], [0, 0, 1, 9]]]
    assert path.intrinsics.tolist() == [[0.5, 0.9, 0.5, 0.5]]


@pytest.mark.parametrize("count", [13, 18, 20])
def test_lines_of_other_lengths_are_refused_by_their_number(count):
    line = " ".join((LINE.split() * 2)[:count])
    with pytest.raises(InputError, match=f"Line 3 of the camera file has {count} numbers"):
        read_poses(f"{URL}\n{LINE}\n{line}\n")


def test_a_damaged_first_line_is_no_address():
    good = "0 1 1 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"
    with pytest.raises(InputError, match="line 1|Line 1"):
        read_poses("x" + good + "\n" + good)
    assert len(read_poses("https://example.org/clip\n" + good).poses) == 1


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: [*m, [0, 0, 0, 1]], lambda m: sum(m, []), lambda m: [*sum(m, []), 0, 0, 0, 1]])
def test_poses_in_json(wrap):
    matrix = [[1, 0, 0, 7], [0, 1, 0, 8], [0, 0, 1, 9]]
    assert read_poses(json.dumps([wrap(matrix)] * 3)).poses.tolist() == [matrix] * 3
    assert read_poses(json.dumps([[float(n) for n in LINE.split()]])).intrinsics is not None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"), (" \n", "is empty"), ("[", "can't be read"), ("{}", "must be a list"), ("[]", "has 0 poses"),
        (URL, "has 0 poses"),
        ("[1]", "pose 0 is no list"), ("[[1, 2]]", "has 2 numbers"), ('[["a"]]', "'a' where a number"), ("[[true]]", "True where a number"),
        (LINE.replace("0.9", "x"), "line 1 has 'x'"), (LINE.replace("0.9", "nan"), "line 1 has 'nan'"),
        (LINE.replace("1 0 0 7", "2 0 0 7"), "line 1 has no rotation"), (LINE.replace("1 0 0 7", "-1 0 0 7"), "line 1 has no rotation"),
        (json.dumps([[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1]]), "last row"), ("[" * 100_000, "can't be read"),
        (json.dumps([[float(n) for n in LINE.split()], [1, 0, 0, 7, 0, 1, 0, 8, 0, 0, 1, 9]]), "one form"),
    ],
)
def test_files_that_can_t_be_read(text, what):
    with pytest.raises(InputError, match=what):
        read_poses(text)


def test_all_moves_are_rotations():
    for move in MOVES:
        poses = camera_path(f"{move} 3", 16).poses
        assert (torch.linalg.det(poses[:, :, :3]) - 1).abs().max() < 1e-12, move
