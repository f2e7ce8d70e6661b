"""Joining clips: no repeated frame, no step in brightness, nothing that adds up over a chain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vc_core.media.joining import join


def clip(frames: int, mean: float, deviation: float, seed: int) -> Tensor:
    """A clip ``[3, frames, 16, 16]`` of one image with exactly that mean and deviation in each channel."""
    image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seed))
    image = (image - image.mean((1, 2), keepdim=True)) / image.std((1, 2), keepdim=True)
    return (image * deviation + mean)[:, None].expand(-1, frames, -1, -1)


def test_the_shared_image_is_shown_once():
    clips = [clip(5, 0.0, 0.1, 0), clip(7, 0.0, 0.1, 0), clip(4, 0.0, 0.1, 0)]
    joined = join(clips)
    assert joined.video.shape == (3, 5 + 6 + 3, 16, 16)
    assert (joined.video - clips[0][:, :1]).abs().max() < 1e-5


def test_both_sides_of_a_joint_meet_in_the_middle():
    """Means 0.0 and 0.2, deviations 0.1 and 0.2: both become 0.1 and 0.15."""
    first, second = clip(5, 0.0, 0.1, 1), clip(5, 0.2, 0.2, 1)
    joined = join([first, second])
    assert joined.joints[0].before == pytest.approx(0.2 * 127.5, abs=1e-3)
    assert joined.joints[0].after == pytest.approx(0.0, abs=1e-3)
    shared = joined.video[:, 4]
    assert shared.mean((1, 2)).tolist() == pytest.approx([0.1] * 3, abs=1e-5)
    assert shared.std((1, 2)).tolist() == pytest.approx([0.15] * 3, abs=1e-5)


def test_the_free_ends_stay_as_they_are_and_the_change_is_gradual():
    first, second = clip(9, 0.0, 0.1, 1), clip(9, 0.3, 0.1, 1)
    video = join([first, second]).video
    assert torch.allclose(video[:, 0], first[:, 0], atol=1e-6) and torch.allclose(video[:, -1], second[:, -1], atol=1e-6)
    steps = video.mean((0, 2, 3)).diff()
    assert steps.max() < 0.3 / 16 + 1e-4 and steps.min() > 0  # the step of 0.3 is spread over all 16


def test_nothing_adds_up_over_a_chain():
    """Every clip ends a little brighter than it starts: matched, the chain doesn't climb."""
    ramp = torch.linspace(0, 0.1, 6)[None, :, None, None]
    clips = [clip(6, 0.0, 0.1, 2) + ramp for _ in range(10)]
    joined = join(clips)
    assert max(joint.after for joint in joined.joints) < 0.01 < 12 < min(joint.before for joint in joined.joints)
    assert joined.video.mean((0, 2, 3)).min() >= -1e-5 and joined.video.mean((0, 2, 3)).max() <= 0.1 + 1e-5


def test_flat_channels_are_matched_by_their_mean():
    joined = join([torch.zeros(3, 3, 8, 8), torch.full((3, 3, 8, 8), 0.5)])
    assert joined.video[:, 2].unique().tolist() == [0.25]


def test_without_matching_the_step_is_only_told():
    first, second = clip(3, 0.0, 0.1, 1), clip(3, 0.2, 0.1, 1)
    joined = join([first, second], match=False)
    assert torch.equal(joined.video, torch.cat([first, second[:, 1:]], 1))
    assert joined.joints[0].before == joined.joints[0].after > 25
    assert "25.50" in joined.table()


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "no clips"),
        ([torch.zeros(3, 4, 8, 8), torch.zeros(3, 4, 8, 16)], r"Clip 1 has the shape \[3, 4, 8, 16\] and the first \[3, 4, 8, 8\]"),
        ([torch.zeros(3, 1, 8, 8)], "Clip 0 is 1 frames long"),
    ],
)
def test_what_can_t_be_joined(clips, message):
    with pytest.raises(ValueError, match=message):
        join(clips)
