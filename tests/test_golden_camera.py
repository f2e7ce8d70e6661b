"""Camera paths from words, against those of MotionCtrl's authors."""

from __future__ import annotations

import pytest

from harness import goldens
from harness.goldens import FOLDER
from vc_core.control.cameras import CameraPath, camera_path
from vc_core.control.pose_files import MOTIONCTRL_SCALE

FILE = FOLDER / "motionctrl_vc" / "poses.safetensors"
pytestmark = [pytest.mark.golden, pytest.mark.skipif(not FILE.exists(), reason="not recorded")]


def test_presets():
    """Each move, at once and one after the other; the names are the authors'."""
    poses = goldens.read("motionctrl_vc", "poses")
    compared = 0
    for name in poses:
        words, _, speed = name.partition(".")
        if words != "raw":
            ours = camera_path(words, len(poses[name]), speed=float(speed))
            assert (ours.poses - poses[name]).abs().max() <= 1e-12, name
            compared += 1
    assert compared >= 30


def test_poses_of_files_in_the_authors_scale():
    poses = goldens.read("motionctrl_vc", "poses")
    scaled = CameraPath(poses["raw.in"]).scaled(MOTIONCTRL_SCALE).scaled(0.8)
    assert (scaled.poses - poses["raw.0.8"]).abs().max() <= 1e-12
