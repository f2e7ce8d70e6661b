"""The style of images on a model of any size: switched off, guided, refused; and `generate --style`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vc_core
from tests.networks import randomize
from vc_core.__main__ import main
from vc_core.adapters.style import StyleAdapter
from vc_core.checkpoint import CheckpointError
from vc_core.config import load_config
from vc_core.diffusion.guidance import Guidance, guide
from vc_core.errors import InputError
from vc_core.models.layers import LayerFactory
from vc_core.style import style_of, style_square

BUNDLED, TOWER = "videocrafter_tiny_t2v", "videocrafter_tiny_i2v"
SETTINGS = {"frames": 3, "steps": 2, "seed": 1, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """A file of an adapter for the bundled model, with drawn weights."""
    network = randomize(StyleAdapter(load_config("tiny_t2v"), 64, 8, (3, 2), LayerFactory()))
    path = tmp_path_factory.mktemp("style") / "adapter_v1.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(adapter) -> vc_core.VideoModel:
    return vc_core.load(BUNDLED, adapters=[adapter], image_encoder=TOWER)


def image(red: float = 1.0) -> torch.Tensor:
    return torch.tensor([red, -0.5, 0.0])[:, None, None].expand(3, 40, 60)


def test_off_it_is_the_base_model_to_the_bit(model):
    plain = vc_core.load(BUNDLED).text_to_video("a red circle", **SETTINGS)
    assert torch.equal(model.text_to_video("a red circle", **SETTINGS), plain)
    off = model.text_to_video("a red circle", hooks=[style_of(model, [image()], 0.0)], **SETTINGS)
    assert torch.equal(off, plain)
    on = [model.text_to_video("a red circle", hooks=[style_of(model, [image(red)])], **SETTINGS) for red in (1.0, -1.0)]
    assert not torch.equal(on[0], plain) and not torch.equal(on[0], on[1])


def test_guidance_by_the_style_starts_from_the_styled_prediction():
    positive, negative, unstyled = torch.randn(3, 2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    guided = guide(positive, negative, Guidance(15.0, style_scale=7.5), unstyled=unstyled)
    assert torch.allclose(guided, positive + 7.5 * (positive - unstyled) + 15 * (unstyled - negative), atol=1e-5)


def test_without_guidance_by_the_text_the_style_s_has_no_effect(model):
    hooks = [style_of(model, [image()])]
    one = SETTINGS | {"guidance_scale": 1.0}
    plain = model.text_to_video("a red circle", hooks=hooks, **one)
    assert torch.equal(model.text_to_video("a red circle", hooks=hooks, style_guidance_scale=5.0, **one), plain)


def test_each_frame_can_have_a_style(model):
    """Equal images one a frame are one image for all, since an image alone is a style of its own."""
    together = model.text_to_video("a red circle", hooks=[style_of(model, [image()])], **SETTINGS)
    each = model.text_to_video("a red circle", hooks=[style_of(model, [image()] * 3, per_frame=True)], **SETTINGS)
    assert (together - each).abs().max() <= 1e-4
    with pytest.raises(InputError, match="2 style images, but the video has 3 frames"):
        model.text_to_video("a red circle", hooks=[style_of(model, [image()] * 2, per_frame=True)], **SETTINGS)


@pytest.mark.parametrize("height, width", [(40, 60), (64, 48), (33, 33), (600, 800), (1, 9)])
def test_the_square_is_the_middle_of_any_image(height, width):
    assert style_square(torch.zeros(3, height, width)).shape == (3, 512, 512)


def test_what_is_missing_is_named(model, adapter):
    with pytest.raises(InputError, match=r"adapter_v1\.pth"):
        style_of(vc_core.load(BUNDLED), [image()])
    with pytest.raises(InputError, match="no image tower"):
        style_of(vc_core.load(BUNDLED, adapters=[adapter]), [image()])
    with pytest.raises(InputError, match="no style images"):
        style_of(model, [])
    with pytest.raises(InputError, match="style_guidance_scale is given, but no style"):
        model.text_to_video("a red circle", style_guidance_scale=5.0, **SETTINGS)
    with pytest.raises(CheckpointError, match="no image tower of OpenCLIP's"):
        vc_core.load(BUNDLED, image_encoder=adapter)


def test_temporal_layers_need_the_model_they_are_for(tmp_path):
    path = tmp_path / "temporal.pth"
    torch.save({"middle_block.2": {"norm.weight": torch.ones(64)}, "init_attn.0": {"norm.weight": torch.ones(7)}}, path)
    with pytest.raises(CheckpointError, match="temporal layers only"):
        vc_core.load(path)
    with pytest.raises(CheckpointError, match=r"init_attn\.0\.norm\.weight \[7\]"):
        vc_core.load(path, base=BUNDLED)
    torch.save({"state_dict": {"middle_block.2": {"norm.weight": torch.full([64], 3.0)}}}, path)
    assert torch.equal(vc_core.load(path, base=BUNDLED).unet.middle_block[2].norm.weight, torch.full([64], 3.0))


def test_the_command_line(adapter, tmp_path, capsys):
    picture, target = tmp_path / "style.png", tmp_path / "clip.webp"
    Image.new("RGB", (30, 20), (200, 40, 10)).save(picture)
    arguments = ["generate", BUNDLED, "a red circle", "--frames", "2", "--steps", "2", "--output", str(target), "--style", str(picture)]
    assert main(arguments) == 1 and "--adapter adapter_v1.pth" in capsys.readouterr().err
    assert main([*arguments, "--adapter", str(adapter)]) == 1 and "--image-encoder" in capsys.readouterr().err
    assert main([*arguments, "--adapter", str(adapter), "--image-encoder", TOWER, "--style-guidance-scale", "3"]) == 0
    assert target.exists()
