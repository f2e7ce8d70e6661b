"""Pictures of motion: what is drawn where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vc_core.control.cameras import camera_path
from vc_core.control.pictures import CAMERA, COLOURS, CameraPlot, MotionPicture
from vc_core.control.tracks import Tracks
from vc_core.errors import InputError

SIZE, FRAMES = 64, 4
GREY = torch.full((FRAMES, SIZE, SIZE, 3), 0.5)


def moving(visible: Tensor | None = None, boxes: Tensor | None = None) -> Tracks:
    """From (8, 32) to (56, 32)."""
    points = torch.stack([torch.linspace(8, 56, FRAMES), torch.full([FRAMES], 32.0)], -1)[None]
    return Tracks(points, torch.ones(1, FRAMES) if visible is None else visible, (SIZE, SIZE), boxes)


def changed(picture: MotionPicture, frames: Tensor = GREY) -> Tensor:
    """Which pixels differ from the frames, ``[T, H, W]``."""
    return (picture.over(frames) - frames).abs().amax(-1) > 1e-3


def test_a_track_and_its_trail():
    drawn = MotionPicture(moving()).over(GREY)
    first = torch.tensor(COLOURS[0]) / 255
    for frame, x in enumerate((8, 24, 40, 56)):
        assert torch.allclose(drawn[frame, 32, x - 1 : x + 1], first.expand(2, 3), atol=0.01)
    places = changed(MotionPicture(moving()))
    assert not places[:, :26].any() and not places[:, 39:].any()
    assert places[3, 32, 8:56].all() and not places[0, 32, 16:].any()
    assert not changed(MotionPicture(moving(), trail=1))[3, 32, 8:32].any()


def test_a_track_of_another_size_and_length():
    large = moving().scaled(640, 640).resampled(7)
    assert torch.allclose(MotionPicture(large).over(GREY), MotionPicture(moving()).over(GREY), atol=1e-5)
    assert MotionPicture(moving()).over(GREY[:1]).shape == (1, SIZE, SIZE, 3)


def test_invisible_points_and_points_outside_are_not_drawn():
    hidden = moving(visible=torch.tensor([[1, 0, 1, 1]]))
    assert not changed(MotionPicture(hidden))[1, 32, 12:].any()
    outside = Tracks(torch.full((1, FRAMES, 2), -500.0), torch.ones(1, FRAMES), (SIZE, SIZE))
    assert not changed(MotionPicture(outside)).any()


def test_boxes():
    places = changed(MotionPicture(moving(boxes=torch.tensor([[20.0, 12.0]]))))
    assert places[1, 27:37, 15:33].all() and not places[1, :24].any() and not places[1, 41:].any() and not places[1, :, 37:].any()


def test_opacity():
    assert torch.equal(MotionPicture(moving(), opacity=0.0).over(GREY), GREY)
    whole, half = (MotionPicture(moving(), opacity=opacity).over(GREY) for opacity in (1.0, 0.5))
    assert torch.allclose(half - GREY, (whole - GREY) / 2, atol=1e-6)


def test_a_camera_goes_up_and_right_in_its_plot():
    """Seen from behind, the left and above: forward is up and to the right; the plot lies in a corner where there are tracks."""
    places = CameraPlot(camera_path("zoom in", 16)).points[:, 0]
    assert (places[1:, 0] > places[:-1, 0]).all() and (places[1:, 1] < places[:-1, 1]).all() and places.abs().max() <= 1
    right = CameraPlot(camera_path("pan right", 16)).points[:, 0]
    assert (right[1:, 0] > right[:-1, 0]).all()
    up = CameraPlot(camera_path("pan up", 16)).points[:, 0]
    assert (up[1:, 1] < up[:-1, 1]).all()
    camera = camera_path("orbit left", 16)
    assert changed(MotionPicture(camera=camera)).all()
    corner = changed(MotionPicture(moving(), camera))[0]
    assert corner[42:, 42:].all() and not corner[:20].any()
    yellow = ((MotionPicture(camera=camera).over(GREY) * 255 - torch.tensor(CAMERA)).abs().amax(-1) < 8).flatten(1)
    assert yellow.any(1).all() and not torch.equal(yellow[0], yellow[-1])


def test_a_still_camera_is_drawn():
    assert CameraPlot(camera_path("still", 16)).points.isfinite().all()


def test_nothing_to_draw():
    with pytest.raises(InputError, match="nothing to draw"):
        MotionPicture().over(GREY)
    for frames in (GREY[:0], GREY[..., :1], GREY[0]):
        with pytest.raises(InputError, match="The frames are"):
            MotionPicture(moving()).over(frames)
