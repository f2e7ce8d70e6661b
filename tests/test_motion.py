"""Motion strength: the same as weights of the layers over time that are scaled, by frame, by place and by part."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

import vc_core
from harness.goldens import TOLERANCE, error
from tests.networks import UNETS, randomize
from vc_core.diffusion.motion import PARTS, motion_strength
from vc_core.errors import InputError
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import Hooks, PassInputs, combine
from vc_core.models.unet import UNet

FRAMES = 4


@pytest.fixture(params=["text", "relative positions"])
def unet(request) -> UNet:
    return randomize(UNet(UNETS[request.param]))


def inputs(window: tuple[int, ...] | None = None) -> PassInputs:
    x = torch.randn(2, 4, FRAMES, 8, 6, generator=torch.manual_seed(0))
    text = torch.randn(2, 5, 32, generator=torch.manual_seed(1))
    return PassInputs(("positive", "negative"), x, torch.tensor([500, 20]), Conditioning(text), window=window)


def run(unet: UNet, factory=None, **changes) -> torch.Tensor:
    given = inputs(**changes)
    with torch.inference_mode():
        return unet(given.x, given.timesteps, given.conditioning, None if factory is None else factory(given))


def scaled(unet: UNet, factor: float, parts=PARTS) -> UNet:
    """A copy whose last layers over time have scaled weights."""
    same = deepcopy(unet)
    for name, module in same.named_modules():
        part = name.split("_")[0]
        last = name.endswith(("temopral_conv.conv4.3", ".proj_out")) and not is_spatial(same, name)
        if last and part in parts:
            for parameter in module.parameters():
                parameter.data *= factor
    return same


def is_spatial(unet: UNet, name: str) -> bool:
    return type(unet.get_submodule(name.rpartition(".")[0])).__name__ == "SpatialTransformer"


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_it_is_a_scale_of_the_weights(unet, factor):
    ours = run(unet, motion_strength(factor))
    assert error(ours, run(scaled(unet, factor))) <= TOLERANCE
    assert error(ours, run(unet)) > 0.01


@pytest.mark.parametrize("part", PARTS)
def test_chosen_parts(unet, part):
    assert error(run(unet, motion_strength(0.3, parts=[part])), run(scaled(unet, 0.3, [part]))) <= TOLERANCE


@pytest.mark.parametrize("strength, mask", [(1.0, None), ([1.0, 1.0], None), (5.0, torch.zeros(3, 3))])
def test_one_changes_no_bit(unet, strength, mask):
    assert torch.equal(run(unet, motion_strength(strength, mask)), run(unet))


class Ones(Hooks):
    """Hooks through which 1 is added everywhere, to see the scales."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        self.seen = seen

    def over_time(self, part, block, frames, added):
        self.seen.append(torch.ones_like(added))
        return self.seen[-1]


def scales(factory, window=None, height=4, width=6) -> torch.Tensor:
    """The scale of each frame and place of one of two videos, ``[T, h, w]``."""
    seen: list[torch.Tensor] = []
    hooks = combine([Ones(seen), factory(inputs(window))])
    result = hooks.over_time("input", 1, FRAMES, torch.zeros(2 * FRAMES, 3, height, width))
    assert torch.equal(result[:FRAMES], result[FRAMES:]) and (result == result[:, :1]).all()
    return result[:FRAMES, 0]


def test_a_strength_for_each_frame():
    assert scales(motion_strength([0.0, 0.5, 2.0, 1.0]))[:, 0, 0].tolist() == [0.0, 0.5, 2.0, 1.0]
    assert scales(motion_strength([0.0, 0.5]))[:, 0, 0].tolist() == [0.0, 0.5, 0.5, 0.5]
    assert scales(motion_strength([0.0, 0.5, 2.0, 1.0, 3.0, 4.0]), window=(2, 3, 4, 5))[:, 0, 0].tolist() == [2.0, 1.0, 3.0, 4.0]


def test_a_mask_says_where():
    mask = torch.zeros(8, 12)
    mask[:, 6:] = 1
    found = scales(motion_strength(3.0, mask))
    assert (found[..., :3] == 1).all() and (found[..., 3:] == 3).all()
    masks = torch.stack([mask, 1 - mask])
    found = scales(motion_strength([3.0, 0.0], masks))
    assert (found[0, :, 3:] == 3).all() and (found[1:, :, :3] == 0).all() and (found[1:, :, 3:] == 1).all()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"strength": -1.0}, "0 to 10"), ({"strength": float("nan")}, "0 to 10"), ({"strength": []}, "list of such numbers"),
        ({"strength": [1.0, 11.0]}, "11"), ({"strength": 2.0, "parts": ["outer"]}, "init, input, middle, output"),
        ({"strength": 2.0, "mask": torch.zeros(1, 1, 2, 2)}, r"\[1, 1, 2, 2\]"),
    ],
)  # fmt: skip
def test_what_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        motion_strength(**given)


def test_hooks_of_a_run():
    """The bundled model with strength 1 makes the same video, bit by bit; with 0 another."""
    model = vc_core.load("videocrafter_tiny_t2v")
    settings = {"steps": 4, "frames": 4, "seed": 0}
    plain, without = (model.text_to_video("a red circle", hooks=(motion_strength(each),), **settings) for each in (1.0, 0.0))
    assert torch.equal(plain, model.text_to_video("a red circle", **settings)) and (plain - without).abs().mean() > 0.01
