"""Deep features of an earlier pass stand exactly where they were taken from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.goldens import error
from tests.networks import UNETS, randomize
from tests.watching import FRAMES, VIDEOS, Watching
from vc_core.diffusion.deep_cache import DeepCache, DeepFeatures
from vc_core.diffusion.denoiser import GuidedDenoiser
from vc_core.diffusion.guidance import Guidance, guide
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import Hooks
from vc_core.models.unet import UNet

BLOCKS = 4


@pytest.fixture(scope="module")
def unet() -> UNet:
    return randomize(UNet(UNETS["text"]))


def evaluate(unet: UNet, seed: int, deep: DeepFeatures | None = None, hooks: Hooks | None = None) -> Tensor:
    """Two videos; another seed is another step: other latents at other timesteps."""
    generator = torch.Generator().manual_seed(seed)
    x, text = torch.randn(VIDEOS, 4, FRAMES, 8, 6, generator=generator), torch.randn(VIDEOS, 7, 32, generator=generator)
    return run(unet, x, torch.tensor([500.0, 20.0]) + seed, Conditioning(text), hooks, deep)


def run(
    unet: UNet, x: Tensor, timesteps: Tensor, conditioning: Conditioning, hooks: Hooks | None = None,
    deep: DeepFeatures | None = None, temporal_attention: bool = True,
) -> Tensor:
    """A pass that reuses deep features, or a plain one."""
    if deep is None:
        return unet(x, timesteps, conditioning, hooks, temporal_attention=temporal_attention)
    inputs = unet.prepare(x, timesteps, conditioning, hooks, temporal_attention=temporal_attention)
    return unet.head(deep.run(unet, unet.stem(x, conditioning, inputs), inputs), inputs)


class Handing(Hooks):
    """Hands an output block what another pass had there, or writes down what it has."""

    def __init__(self, number: int, features: Tensor | None = None) -> None:
        self.number, self.features = number, features

    def before_output_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        if number == self.number:
            if self.features is not None:
                return self.features, skip
            self.features = hidden.clone()
        return hidden, skip


@pytest.mark.parametrize("shallow", range(1, BLOCKS))
def test_a_later_pass_is_the_whole_one_with_the_earlier_one_s_features(unet, shallow):
    features, watching = DeepFeatures(shallow), Handing(BLOCKS - shallow)
    assert torch.equal(evaluate(unet, 1, features), evaluate(unet, 1, hooks=watching))
    expected = evaluate(unet, 2, hooks=Handing(BLOCKS - shallow, watching.features))
    assert torch.equal(evaluate(unet, 2, features), expected)
    assert not torch.allclose(expected, evaluate(unet, 2), rtol=1e-2)
    assert torch.equal(evaluate(unet, 2, features), expected), "what is kept is not written into"


@pytest.mark.parametrize("shallow", range(1, BLOCKS))
def test_only_the_shallow_blocks_run_under_their_own_numbers(unet, shallow):
    features, whole, later = DeepFeatures(shallow), Watching(), Watching()
    evaluate(unet, 1, features, whole)
    evaluate(unet, 2, features, later)

    def is_shallow(part: str, number: int) -> bool:
        return part == "input" and number < shallow or part == "output" and number >= BLOCKS - shallow

    assert later.places == [place for place in whole.places if is_shallow(*place[:2])]
    assert later.sites == [site for site in whole.sites if is_shallow(site.part, site.block)]


@pytest.mark.parametrize("shallow", [0, BLOCKS, -1])
def test_all_or_no_blocks_are_refused(unet, shallow):
    with pytest.raises(ValueError, match=f"blocks is {shallow}; this model has {BLOCKS}, .* 1 to 3"):
        evaluate(unet, 1, DeepFeatures(shallow))


def test_every_third_pass_of_each_key_runs_whole():
    cache, whole = DeepCache(3, 1), []
    for number in range(7):
        for key in ("positive", "negative")[: 1 + (number != 4)]:
            features = cache.next_pass(key)
            whole.append((key, number, features.features is None))
            features.features = torch.zeros(1)
    assert [number for key, number, is_whole in whole if is_whole and key == "positive"] == [0, 3, 6]
    assert [number for key, number, is_whole in whole if is_whole and key == "negative"] == [0, 3]


@pytest.mark.parametrize("together", [False, True])
def test_guidance_keeps_features_of_each_of_its_passes(unet, together):
    """By hand: positive, negative and the pass without time have features of their own; the third step is whole again."""
    positive, negative = torch.randn(2, VIDEOS, 7, 32, generator=torch.Generator().manual_seed(0))
    guidance = Guidance(3.0, temporal_scale=0.5)
    denoise = GuidedDenoiser(
        unet, Conditioning(positive), Conditioning(negative), guidance, torch.float32, together, DeepCache(2, 1)
    )
    for step in range(3):
        if step != 1:
            features = [DeepFeatures(1) for _ in range(3)]
        x, timestep = torch.randn(VIDEOS, 4, FRAMES, 8, 6, generator=torch.Generator().manual_seed(step)), torch.tensor([500.0, 20.0])
        by_hand = [
            run(unet, x, timestep, Conditioning(text), deep=deep, temporal_attention=timed)
            for text, timed, deep in zip((positive, negative, positive), (True, True, False), features, strict=True)
        ]
        expected = guide(by_hand[0], by_hand[1], guidance, without_time=by_hand[2])
        assert error(denoise(x, timestep), expected) <= 1e-5
