"""What the core promises of DynamiCrafter beyond the reference's numbers: images' latents, token sharing, guidance, errors."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vc_core
from harness import goldens
from vc_core.__main__ import main
from vc_core.checkpoint import CheckpointError
from vc_core.config import load_config
from vc_core.diffusion.guidance import Guidance, guide
from vc_core.errors import ConfigError
from vc_core.media.images import fit_image
from vc_core.models.conditioning import Conditioning

SMALL = {"frames": 4, "height": 32, "width": 48, "steps": 2}
IMAGE = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The recorded 512 model, under its own name and under that of the interpolation model."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("dynamicrafter_512_v1", "dynamicrafter_512_interp_v1"):
        goldens.write_checkpoint("dynamicrafter_512_v1", folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return vc_core.load(folder / "dynamicrafter_512_v1.safetensors")


@pytest.fixture(scope="module")
def interpolation(folder):
    return vc_core.load(folder / "dynamicrafter_512_interp_v1.safetensors")


def test_one_image_stands_at_every_frame_and_two_at_the_ends(model):
    def concat(first, last, frames):
        conditionings = model.image_conditioning(first, last, "a cat", "", (frames, 32, 48))
        assert torch.equal(conditionings[0].concat, conditionings[1].concat)
        return conditionings[0].concat

    one = concat(IMAGE, None, 5)
    assert one.shape == (1, 4, 5, 4, 6) and (one == one[:, :, :1]).all()
    two = concat(IMAGE, -IMAGE, 5)
    assert torch.equal(two[:, :, 0], one[:, :, 0]) and not two[:, :, 1:-1].any()
    assert torch.equal(two[:, :, -1], concat(-IMAGE, None, 1)[:, :, 0])


@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 32), (40, 40), (80, 16)])
def test_a_image_is_fitted_by_covering_and_cutting_the_middle(height, width):
    ramp = torch.linspace(-1, 1, 40)[None, None, None].expand(1, 3, 40, 40)
    fitted = fit_image(ramp, height, width)
    assert fitted.shape == (1, 3, height, width)
    shown = min(1.0, width / height)  # of the image's width
    assert fitted.mean().abs() < 1e-3 and fitted.max() == pytest.approx(shown, abs=0.06)
    if (height, width) == (40, 40):
        assert torch.equal(fitted, ramp)


def test_frames_have_their_own_tokens_where_their_number_fits(model):
    """16 tokens per frame: with as many frames as recorded each has its own; with another number all frames see all tokens."""
    golden = goldens.read("dynamicrafter_512_v1", "unet")
    text, tokens = golden["0.context"][:1, :77], golden["0.context"][:1, 77:]
    frames, count = golden["0.x"].shape[2], tokens.shape[1]
    assert count == 16 * frames

    def run(frames, given):
        x = golden["0.x"][:1, :, :1].expand(-1, -1, frames, -1, -1)
        return model.unet(x, torch.tensor([500]), Conditioning(text, given), temporal_attention=False)

    changed = tokens.clone()
    changed[:, 16:32] = 0  # those of the second frame
    apart = (run(frames, changed) - run(frames, tokens)).abs().amax((0, 1, 3, 4))
    assert apart.argmax() == 1
    shuffled = tokens[:, torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    assert goldens.error(run(frames - 3, shuffled), run(frames - 3, tokens)) < 1e-5
    assert goldens.error(run(frames, shuffled), run(frames, tokens)) > 1e-3


def test_guidance_by_the_image_apart():
    positive, negative, image = (torch.randn(2, 4, 3, 2, 2) for _ in range(3))
    together = guide(positive, negative, Guidance(5.0))
    assert torch.allclose(guide(positive, negative, Guidance(5.0, image_scale=5.0), image), together, atol=1e-5)
    assert torch.allclose(guide(positive, negative, Guidance(0.0, image_scale=1.0), image), image, atol=1e-6)
    by_hand = negative + 3 * (image - negative) + 7 * (positive - image)
    assert torch.allclose(guide(positive, negative, Guidance(7.0, image_scale=3.0), image), by_hand)


def test_image_guidance_changes_the_video_unless_it_equals_the_text_s(model):
    usual = model.image_to_video(IMAGE, "a cat", guidance_scale=6.0, **SMALL)
    assert (model.image_to_video(IMAGE, "a cat", guidance_scale=6.0, image_guidance_scale=6.0, **SMALL) - usual).abs().max() < 1e-3
    assert (model.image_to_video(IMAGE, "a cat", guidance_scale=6.0, image_guidance_scale=2.0, **SMALL) - usual).abs().max() > 1e-3


def test_a_loop_is_an_interpolation_to_the_same_image(interpolation):
    loop = interpolation.image_to_video(IMAGE, "a cat", loop=True, **SMALL)
    assert torch.equal(loop, interpolation.image_to_video(IMAGE, "a cat", end_image=IMAGE, **SMALL))
    assert not torch.allclose(loop, interpolation.image_to_video(IMAGE, "a cat", end_image=-IMAGE, **SMALL), atol=1e-2)


def test_what_is_not_given_is_the_configuration_s(model):
    own = {"guidance_scale": 7.5, "guidance_rescale": 0.7, "fps": 24.0, "spacing": "uniform_trailing"}
    assert torch.equal(model.image_to_video(IMAGE, "a cat", **SMALL), model.image_to_video(IMAGE, "a cat", **own, **SMALL))


class TestErrors:
    def test_two_images_for_a_model_that_takes_one(self, model):
        with pytest.raises(ValueError, match="can't end a clip with an image"):
            model.image_to_video(IMAGE, "a cat", end_image=IMAGE, **SMALL)

    def test_one_image_for_a_model_that_takes_two(self, interpolation):
        with pytest.raises(ValueError, match="joins two images: give end_image, or loop=True"):
            interpolation.image_to_video(IMAGE, "a cat", **SMALL)

    def test_a_loop_with_an_end(self, interpolation):
        with pytest.raises(ValueError, match="not both"):
            interpolation.image_to_video(IMAGE, "a cat", end_image=IMAGE, loop=True, **SMALL)

    def test_images_that_are_not_as_many(self, interpolation):
        with pytest.raises(ValueError, match="1 images to start from and 2 to end with"):
            interpolation.image_to_video(IMAGE, "a cat", end_image=IMAGE.repeat(2, 1, 1, 1), **SMALL)

    def test_one_frame_between_two_images(self, interpolation):
        with pytest.raises(ValueError, match="frames is 1; a clip between two images has at least 2"):
            interpolation.image_to_video(IMAGE, "a cat", loop=True, **(SMALL | {"frames": 1}))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"schedule": {"zero_terminal_snr": True}}, "only prediction v is defined"),
            ({"schedule": {"prediction": "x0"}}, "schedule.prediction is 'x0'; it can be eps or v"),
            ({"sampling": {"spacing": "karras"}}, "sampling.spacing is 'karras'; it can be uniform or uniform_trailing"),
            ({"keyframes": ["middle"]}, "keyframes is 'middle'; it can be first or ends"),
            ({"unet": {"in_channels": 3}}, "unet.in_channels is 3; it must be at least out_channels, which are 4"),
            ({"unet": {"in_channels": 9}, "keyframes": ["first"]}, "unet.in_channels is 9; .* it must be 8"),
        ],
    )
    def test_configurations_that_no_model_can_have(self, given, message):
        with pytest.raises(ConfigError, match=message):
            load_config(given)


def test_the_command_line_joins_two_images_and_loops(folder, tmp_path, capsys):
    path = str(folder / "dynamicrafter_512_interp_v1.safetensors")
    for name, value in (("first", 40), ("last", 200)):
        Image.new("RGB", (20, 20), (value, value, value)).save(tmp_path / f"{name}.png")
    size = ["--frames", "4", "--height", "32", "--width", "32", "--steps", "2"]
    common = ["generate", path, "a cat", *size, "--image", str(tmp_path / "first.png")]
    assert main([*common, "--end-image", str(tmp_path / "last.png"), "--output", str(tmp_path / "joined.mp4")]) == 0
    assert main([*common, "--loop", "--image-guidance-scale", "3", "--output", str(tmp_path / "loop.mp4")]) == 0
    assert (tmp_path / "joined.mp4").stat().st_size and (tmp_path / "loop.mp4").stat().st_size
    assert main(["generate", path, "a cat", "--loop"]) == 1
    assert "--end-image and --loop need a first image" in capsys.readouterr().err


def test_a_converted_file_is_known_without_its_name(folder, tmp_path):
    """The configuration travels in the file, so the interpolation model stays one under any name."""
    assert main(["convert", str(folder / "dynamicrafter_512_interp_v1.safetensors"), str(tmp_path / "x.safetensors")]) == 0
    assert vc_core.load(tmp_path / "x.safetensors").config.keyframes == ["ends"]
    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "y.safetensors")  # without what it says of itself
    with pytest.raises(CheckpointError, match="could be any of"):
        vc_core.load(tmp_path / "y.safetensors")
