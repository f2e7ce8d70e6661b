"""The networks compute what the reference computes."""

from __future__ import annotations

import pytest
import torch

import vc_core
from harness import goldens
from vc_core.checkpoint import CheckpointError
from vc_core.family.model_file import ModelFile
from vc_core.models.conditioning import Conditioning
from vc_core.models.image_encoder import prepare_images
from vc_core.models.text_encoder import tokenize


@pytest.fixture(scope="module", params=goldens.MODELS)
def model(request, tmp_path_factory):
    path = goldens.write_checkpoint(request.param, tmp_path_factory.mktemp("golden") / "model.safetensors")
    loaded = vc_core.load(path)
    loaded.golden, loaded.path = request.param, path
    return loaded


@pytest.mark.parametrize("case", ["0", "1"])
def test_unet(model, case):
    golden = goldens.read(model.golden, "unet")
    context = golden[f"{case}.context"]
    image_tokens = context[:, 77:] if context.shape[1] > 77 else None
    conditioning = Conditioning(context[:, :77], image_tokens, fps=goldens.rate(golden, case))
    ours = model.unet(golden[f"{case}.x"], golden[f"{case}.timesteps"], conditioning)
    assert goldens.error(ours, golden[f"{case}.y"]) <= goldens.TOLERANCE


def test_tokens_and_text(model):
    golden = goldens.read(model.golden, "encoders")
    prompts = goldens.prompts(model.golden)
    assert torch.equal(tokenize(prompts)[:, 0], golden["tokens"])
    text = torch.cat([golden["text"], golden["empty"]]) if "empty" in golden else golden["text"]
    assert goldens.error(model.encode_text(list(prompts)), text) <= goldens.TOLERANCE


def test_autoencoder(model):
    golden = goldens.read(model.golden, "encoders")
    if model.golden in goldens.DYNAMICRAFTER:  # recorded is only what the input channels get
        assert goldens.error(model.encode(golden["photo"][:, :, None])[:, :, 0], golden["z"]) <= goldens.TOLERANCE
        return
    factor = model.config.autoencoder.scale_factor
    latents = model.encode(golden["image"][:, :, None])[:, :, 0]
    assert goldens.error(latents / factor, golden["vae_mean"]) <= goldens.TOLERANCE
    decoded = model.decode(golden["z"][:, :, None] * factor)[:, :, 0]
    assert (decoded - golden["vae_decoded"].clamp(-1, 1)).abs().max() <= goldens.TOLERANCE


def test_image_tokens(model):
    if model.golden in goldens.TEXT_TO_VIDEO:
        with pytest.raises(CheckpointError, match="no image encoder"):
            model.encode_image(torch.zeros(1, 3, 8, 8))
        return
    golden = goldens.read(model.golden, "encoders")
    pixels = prepare_images(golden["photo"])
    if "clip_pixels" in golden:
        assert goldens.error(pixels[:, :, ::4, ::4], golden["clip_pixels"]) <= goldens.TOLERANCE
    encoder = ModelFile.open(model.path).load("image_encoder", "cpu", torch.float32)
    assert goldens.error(encoder(pixels), golden["image_features"]) <= goldens.TOLERANCE
    assert goldens.error(model.encode_image(golden["photo"]), golden["image_tokens"]) <= goldens.TOLERANCE
    empty = model.encode_image(torch.zeros_like(golden["photo"]))
    assert goldens.error(empty, golden["null_image_tokens"]) <= goldens.TOLERANCE


def test_a_batch_is_its_videos(model):
    """Videos of one batch, with prompts and rates of their own, do not see one another."""
    golden = goldens.read(model.golden, "unet")
    x, text = golden["0.x"], golden["0.context"][:, :77]
    timesteps, fps = golden["0.timesteps"], goldens.rate(golden, "0")
    together = model.unet(x, timesteps, Conditioning(text, fps=fps))
    alone = [(x[i : i + 1], timesteps[i : i + 1], Conditioning(text[i : i + 1], fps=fps[i : i + 1])) for i in range(2)]
    apart = torch.cat([model.unet(*each) for each in alone])
    assert goldens.error(together, apart) <= 1e-5


@pytest.mark.parametrize("frames, height, width", [(1, 8, 8), (5, 3, 9), (20, 5, 4), (3, 1, 1)])
def test_any_frames_and_any_size(model, frames, height, width):
    """Sizes that halving rounds up, and lengths beyond the relative positions' reach, go through."""
    x = torch.randn(1, model.config.unet.in_channels, frames, height, width)
    out = model.unet(x, torch.tensor([500]), Conditioning(model.encode_text(["a cat"])))
    assert out.shape == (1, 4, frames, height, width) and out.isfinite().all()


def test_without_temporal_attention_a_model_without_temporal_convolution_sees_frames_apart(model):
    x = torch.randn(1, model.config.unet.in_channels, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text, timestep = model.encode_text(["a cat"]), torch.tensor([500])
    out = model.unet(x, timestep, Conditioning(text), temporal_attention=False)
    frame = model.unet(x[:, :, 2:3], timestep, Conditioning(text), temporal_attention=False)
    apart = torch.allclose(out[:, :, 2:3], frame, atol=1e-4)
    assert apart == (not model.config.unet.temporal_conv)
