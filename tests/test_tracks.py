"""Trajectories: their forms in text, other sizes and lengths, masks and boxes."""

from __future__ import annotations

import json
import math

import pytest
import torch

from vc_core.control.drawn import read_tracks, write_points
from vc_core.control.tracks import Tracks, join_tracks, tracks_from_core, tracks_from_masks
from vc_core.errors import InputError

SIZE = (512, 320)
NONE = "There is no trajectory"
ONE = '[{"x": 10, "y": 20}, {"x": 60, "y": 20}]'


def read(text, frames=2, size=SIZE):
    return read_tracks(text, size, frames)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (ONE, 1), (f"[{ONE}, {ONE}]", 2), ([ONE, ONE], 2), (f"{ONE}\n{ONE}", 2), (f"{ONE}\r\n\r\n{ONE}\n", 2), (json.dumps([ONE, ONE]), 2),
        (ONE.replace('"', "'"), 1), ("[[10, 20], [60, 20]]", 1), ("[[[10, 20], [60, 20]]]", 1), ("[[(10, 20), (60, 20)]]", 1),
        (ONE.replace('"', "'") + "\n" + ONE, 2), (f'[{{"points": {ONE}}}]', 1), (f'{{"points": {ONE}}}', 1), (repr([ONE, ONE]), 2),
        (f'[{{"points": {ONE}, "color": "#1f77b4", "name": "Spline 1"}}, {{"points": {ONE}, "isSinglePoint": false}}]', 2),
        (json.dumps(json.loads(ONE), indent=2), 1),
    ],
)
def test_forms_of_trajectories(text, count):
    assert read(text).points.tolist() == [[[10, 20], [60, 20]]] * count


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", NONE), (" \n ", NONE), ("[]", NONE), ([], NONE), ("[[]]", NONE), ('[{"points": []}]', NONE), ("{", "can't be read"),
        ("hello", "can't be read"), (None, "A trajectory is NoneType"), (3, "A trajectory is int"), ([3], "A trajectory is int"),
        (f"{ONE}\nhello", "can't be read"), ("[" * 100_000, "nested too deeply"), ("3", "is no trajectory"), ("{}", "is no trajectory"),
        ('[{"x": 1}]', r"Point 0 of a path is \{'x': 1\}"), ('[{"x": 1, "y": NaN}]', "Point 0"), ('[{"x": 1, "y": 1e9}]', "Point 0"),
        ("[[1, 2], [3]]", "Point 1"), ("[[1, 2, 3]]", "Point 0"), ('[{"x": true, "y": 1}]', "Point 0"), ("[[[1, 2], null]]", "Point 1"),
        (f"[[1, {10**400}]]", "Point 0"), (f'[{ONE}, "x"]', "can't be read"), (json.dumps([[[1, 2]]] * 10_001), "10001 trajectories"),
        ('[{"points": [{"x": 1, "y": 2, "frame": -1}]}]', "frame -1"),
        ('[{"points": [{"x": 1, "y": 2, "ease": "fast"}]}]', "easing 'fast'"),
        ('[{"points": [[1, 2]], "curve": "zigzag"}]', "curve 'zigzag'"), ('[{"points": [[1, 2]], "box": [1]}]', r"box \[1\]"),
        ('[{"points": [[1, 2]], "canvas": {"width": 0}}]', "canvas"),
        ('[{"points": [{"x": 1, "y": 2, "frame": 5}, {"x": 1, "y": 3, "frame": 4}]}]', "the frames must rise"),
    ],
)
def test_texts_that_can_t_be_read(text, what):
    with pytest.raises(InputError, match=what):
        read(text)


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 49, 1000])
def test_another_number_of_points_than_frames(count):
    """Evenly in time; the first and the last point stay exactly."""
    sampled = torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(count)) * 300
    tracks = read(json.dumps(sampled.tolist()), 16)
    assert tracks.frames == 16 and tracks.visible.all()
    assert torch.equal(tracks.points[0, [0, -1]], sampled[[0, -1]].float())
    place = 5 * (count - 1) / 15
    below = math.floor(place)
    expected = torch.lerp(sampled[below], sampled[min(below + 1, count - 1)], torch.tensor(place - below, dtype=torch.float64))
    assert torch.allclose(tracks.points[0, 5], expected.float())


def test_points_outside_the_picture_stay_outside():
    tracks = read('[{"x":-20,"y":600},{"x":531,"y":160}]', 16)
    assert tracks.points[0, 0].tolist() == [-20, 600] and tracks.points[0, -1].tolist() == [531, 160]
    assert tracks.masks().sum() == 0


def test_pairs_are_x_and_y_in_portraits_too():
    for size in ((320, 576), (576, 320)):
        assert read("[[[288,342],[300,100]]]", 2, size).points.tolist() == [[[288, 342], [300, 100]]]


def test_another_size():
    tracks = Tracks(torch.tensor([[[10.0, 20.0]]]), torch.ones(1, 1), (100, 50), torch.tensor([[4.0, 4.0]])).scaled(200, 200)
    assert tracks.points.tolist() == [[[20, 80]]] and tracks.boxes.tolist() == [[8, 16]] and tracks.size == (200, 200)
    unknown = Tracks(torch.tensor([[[10.0, 20.0]]]), torch.ones(1, 1))
    assert unknown.scaled(200, 200).points.tolist() == [[[10, 20]]]
    assert unknown.scaled(200, 200, source=(20, 20)).points.tolist() == [[[100, 200]]]
    with pytest.raises(InputError, match="0x5"):
        unknown.scaled(0, 5)


def drawn(points, **values):
    return json.dumps([{"points": points, **values}])


def test_a_drawn_path_is_gone_at_an_even_pace():
    """10 px and 30 px: after a quarter of the time the corner is reached."""
    points = [{"x": 0, "y": 0}, {"x": 10, "y": 0}, {"x": 10, "y": 30}]
    assert read(drawn(points), 5).points[0].tolist() == [[0, 0], [10, 0], [10, 10], [10, 20], [10, 30]]


def test_frames_of_drawn_points():
    points = [{"x": 0, "y": 0, "frame": 2}, {"x": 20, "y": 0, "frame": 4}, {"x": 20, "y": 40}]
    assert read(drawn(points), 7).points[0].tolist() == [[0, 0], [0, 0], [0, 0], [10, 0], [20, 0], [20, 20], [20, 40]]
    held = [{"x": 0, "y": 0}, {"x": 20, "y": 0, "frame": 2}]
    assert read(drawn(held), 4).points[0, :, 0].tolist() == [0, 10, 20, 20]
    turned = [{"x": 0, "y": 0, "frame": 1}, {"x": 20, "y": 0, "frame": 1}]  # a jump
    assert read(drawn(turned), 3).points[0, :, 0].tolist() == [0, 0, 20]
    late = [{"x": 0, "y": 0, "frame": 9}]
    assert read(drawn(late), 3).points[0].tolist() == [[0, 0]] * 3


def test_easing_of_drawn_points():
    points = [{"x": 0, "y": 0, "ease": "ease in"}, {"x": 100, "y": 0}]
    assert read(drawn(points), 5).points[0, :, 0].tolist() == [0, 6.25, 25, 56.25, 100]


def test_a_drawn_path_scales_with_its_canvas():
    points = [{"x": 50, "y": 50, "frame": 0}, {"x": 100, "y": 100, "frame": 8}]
    tracks = read(drawn(points, canvas={"width": 100, "height": 100, "frames": 16}, box=[10, 20]), 31, (200, 400))
    assert tracks.points[0, 0].tolist() == [100, 200] and tracks.points[0, 16].tolist() == [200, 400] == tracks.points[0, 30].tolist()
    assert tracks.boxes.tolist() == [[20, 80]]


def test_a_smooth_path_goes_through_its_points():
    points = [{"x": 0, "y": 0, "frame": 0}, {"x": 50, "y": 50, "frame": 5}, {"x": 100, "y": 0, "frame": 10}]
    smooth, line = (read(drawn(points, curve=curve), 11).points[0] for curve in ("smooth", "line"))
    assert torch.allclose(smooth[[0, 5, 10]], line[[0, 5, 10]], atol=1e-4)
    assert (smooth[2] - line[2]).abs().max() > 1  # not straight
    assert torch.allclose(smooth[:, 0] + smooth.flip(0)[:, 0], torch.full([11], 100.0), atol=1e-3)  # as symmetric as the points


def test_a_thousand_points():
    points = [{"x": number / 2, "y": 100} for number in range(1000)]
    assert torch.allclose(read(drawn(points), 16).points[0, :, 0], torch.linspace(0, 499.5, 16), atol=1e-3)
    assert len(read(json.dumps([[point] for point in points]), 16)) == 1000


def test_points_are_written_as_they_are_read():
    tracks = read(f"[{ONE}, {ONE}]", 16)
    assert torch.allclose(read(write_points(tracks), 16).points, tracks.points, atol=1e-3)
    assert json.loads(write_points(tracks))[1][-1] == {"x": 60.0, "y": 20.0}


def test_core_s_tracks():
    tracks = Tracks(torch.rand(3, 5, 2), torch.rand(3, 5) > 0.5, (64, 32), torch.rand(3, 2))
    core = tracks.as_core()
    assert core["track_path"].shape == (5, 3, 2) and core["track_visibility"].shape == (5, 3)
    back = tracks_from_core(core)
    assert torch.equal(back.points, tracks.points) and torch.equal(back.visible, tracks.visible)
    assert back.size == (64, 32) and torch.equal(back.boxes, tracks.boxes)
    plain = tracks_from_core({"track_path": core["track_path"], "track_visibility": torch.tensor([[True]] * 4 + [[False]])})
    assert plain.size is None and plain.boxes is None and plain.visible[:, :4].all() and not plain.visible[:, 4].any()


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "NoneType"), ({}, "without track_path"), ({"track_path": torch.zeros(2, 2)}, r"is \[2, 2\]"),
        ({"track_path": torch.zeros(2, 3, 2), "track_visibility": torch.zeros(3, 3)}, r"is \[3, 3\]"),
        ({"track_path": torch.zeros(0, 3, 2)}, "must be"), ({"track_path": torch.full((2, 1, 2), math.nan)}, "Track 0"),
    ],
)
def test_tracks_that_are_none(value, what):
    with pytest.raises(InputError, match=what):
        tracks_from_core(value)


def test_invisible_points_pull_at_no_others():
    """As other programs pad them: 0, 0."""
    points = torch.tensor([[[10.0, 10], [20, 20], [0, 0], [0, 0]], [[0, 0], [10, 0], [0, 0], [30, 0]], [[0, 0]] * 4])
    visible = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]])
    filled = Tracks(points, visible).filled().points
    assert filled[0].tolist() == [[10, 10], [20, 20], [20, 20], [20, 20]]
    assert filled[1].tolist() == [[10, 0], [10, 0], [20, 0], [30, 0]]
    longer = Tracks(points, visible).resampled(7)
    assert longer.points[0, 3].tolist() == [20, 20] and longer.visible[0].tolist() == [True, True, True, False, False, False, False]


def test_masks_to_tracks():
    masks = torch.zeros(4, 20, 30)
    masks[0, 2:6, 4:10] = 1
    masks[1, 3:7, 8:14] = 1
    masks[3, 5:9, 16:22] = 1
    tracks = tracks_from_masks(masks)
    assert tracks.points[0, [0, 1, 3]].tolist() == [[7, 4], [11, 5], [19, 7]]
    assert tracks.visible[0].tolist() == [True, True, False, True] and tracks.points[0, 2].tolist() == [15, 6]
    assert tracks.boxes.tolist() == [[6, 4]] and tracks.size == (30, 20)
    assert torch.equal(tracks.masks(), masks)
    assert tracks_from_masks(masks[0]).frames == 1
    with pytest.raises(InputError, match="empty in all frames"):
        tracks_from_masks(masks[2])
    with pytest.raises(InputError, match="The mask is NoneType"):
        tracks_from_masks(None)
    with pytest.raises(InputError, match=r"is \[1, 1, 1, 1\]"):
        tracks_from_masks(torch.zeros(1, 1, 1, 1))


def test_the_path_of_a_box():
    """Top, bottom, left, right, as FreeTraj has them; not cut at the picture's edge."""
    tracks = Tracks(torch.tensor([[[50.0, 25.0], [0, 0]]]), torch.ones(1, 2), (100, 50), torch.tensor([[20.0, 10.0]]))
    expected = torch.tensor([[0.4, 0.6, 0.4, 0.6], [-0.1, 0.1, -0.1, 0.1]], dtype=torch.float64)
    assert torch.allclose(tracks.box_path(), expected)
    with pytest.raises(InputError, match="no track 1"):
        tracks.box_path(1)
    with pytest.raises(InputError, match="no box"):
        Tracks(tracks.points, tracks.visible, (100, 50)).box_path()


def test_tracks_of_several_sources():
    first = Tracks(torch.zeros(1, 4, 2), torch.ones(1, 4), (100, 100))
    second = Tracks(torch.full((2, 2, 2), 10.0), torch.ones(2, 2), (50, 50), torch.ones(2, 2))
    joined = join_tracks([first, second])
    assert joined.points.shape == (3, 4, 2) and joined.points[1, 0].tolist() == [20, 20]
    assert joined.boxes.tolist() == [[0, 0], [2, 2], [2, 2]]
