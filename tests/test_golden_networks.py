"""The networks compute what the reference computes."""

from __future__ import annotations

import pytest
import torch

from harness import golden_contents, golden_runs, goldens
from harness.goldens import PASS_TOLERANCE, recording
from vc_core.checkpoint import CheckpointError
from vc_core.models.conditioning import Conditioning
from vc_core.models.text_encoder import tokenize

CASES = [(name, case) for name in goldens.models() for case in golden_contents.cases(recording(name))]
ENCODED = [name for name in goldens.models() if recording(name).has("encoders")]
WITH_IMAGES = [name for name in ENCODED if name not in goldens.TEXT_TO_VIDEO and "photo" in goldens.read(name, "encoders")]


@pytest.fixture(params=goldens.models())
def model(request):
    loaded = goldens.load(request.param)
    loaded.recorded = recording(request.param)
    return loaded


@pytest.mark.golden
@pytest.mark.parametrize("name, case", CASES)
def test_unet(name, case, agrees):
    ours = golden_runs.run_unet(goldens.load(name), recording(name), case)
    agrees(name, "UNet", ours, recording(name).read("unet")[f"{case}.y"], PASS_TOLERANCE)


@pytest.mark.golden
@pytest.mark.parametrize("name", ENCODED)
def test_tokens_and_text(name, agrees):
    golden, prompts = goldens.read(name, "encoders"), goldens.prompts(name)
    if "tokens" in golden:
        assert torch.equal(tokenize(prompts)[:, 0], golden["tokens"])
    text = [golden[key] for key in ("text", "empty") if key in golden]
    if len(text) == 2 or (text and name not in goldens.DYNAMICRAFTER):
        agrees(name, "text", goldens.load(name).encode_text(list(prompts)), torch.cat(text), PASS_TOLERANCE)


@pytest.mark.parametrize("name", [name for name in goldens.MODELS if goldens.Recording(goldens.DEFAULT_FOLDER / name, 0).has("encoders")])
def test_known_prompts_have_the_reference_s_tokens(name):
    """Of recordings with other prompts only tokens are known, which these texts' must not be read back from."""
    known = goldens.DYNAMICRAFTER_PROMPTS if name in goldens.DYNAMICRAFTER else goldens.PROMPTS
    recorded = goldens.Recording(goldens.DEFAULT_FOLDER / name, goldens.DEFAULT_SEED)
    assert torch.equal(tokenize(known)[:, 0], recorded.read("encoders")["tokens"])


@pytest.mark.golden
@pytest.mark.parametrize("name", ENCODED)
def test_autoencoder(name, agrees):
    golden, model = goldens.read(name, "encoders"), goldens.load(name)
    if name in goldens.DYNAMICRAFTER:  # only the image's latent, as the UNet sees it, is recorded
        if {"photo", "z"} <= set(golden):
            agrees(name, "VAE", golden_runs.encode_latent(model, golden["photo"]), golden["z"], PASS_TOLERANCE)
        return
    if "image" in golden:
        moments = golden_runs.encode_moments(model, golden["image"])
        for key, ours in zip(("vae_mean", "vae_logvar"), moments, strict=True):
            if key in golden:
                agrees(name, "VAE", ours, golden[key], PASS_TOLERANCE)
        if "vae_mean" in golden:
            latents = golden_runs.encode_latent(model, golden["image"]) / model.config.autoencoder.scale_factor
            agrees(name, "VAE", latents, golden["vae_mean"], PASS_TOLERANCE)
    if {"z", "vae_decoded"} <= set(golden):
        agrees(name, "VAE", golden_runs.decode(model, golden["z"]), golden["vae_decoded"], PASS_TOLERANCE)


@pytest.mark.golden
@pytest.mark.parametrize("name", WITH_IMAGES)
def test_image_tokens(name, agrees):
    golden, model = goldens.read(name, "encoders"), goldens.load(name)
    photo = golden["photo"]
    if "clip_pixels" in golden:
        ours, expected = golden_runs.clip_pixels(model, photo), golden["clip_pixels"]
        step = ours.shape[-1] // expected.shape[-1]  # every so many rows and columns are recorded
        agrees(name, "image tokens", ours[:, :, ::step, ::step], expected, PASS_TOLERANCE)
    if "image_features" in golden:
        agrees(name, "image tokens", golden_runs.image_features(model, photo), golden["image_features"], PASS_TOLERANCE)
    for key, images in (("image_tokens", photo), ("null_image_tokens", torch.zeros_like(photo))):
        if key in golden:
            agrees(name, "image tokens", model.encode_image(images), golden[key], PASS_TOLERANCE)


def test_text_to_video_models_take_no_image(model):
    if model.recorded.name in goldens.TEXT_TO_VIDEO:
        with pytest.raises(CheckpointError, match="no image encoder"):
            model.encode_image(torch.zeros(1, 3, 8, 8))
    else:
        assert model.encode_image(torch.zeros(1, 3, 8, 8)).isfinite().all()


def test_the_measure_sees_one_wrong_number():
    golden = goldens.read("t2v_512_v2", "unet")["0.y"]
    wrong = golden.clone()
    wrong[1, 2, 3, 4, 5] += 2e-5 * golden.abs().max()
    assert goldens.error(golden, golden) == 0
    assert PASS_TOLERANCE < goldens.error(wrong, golden) == pytest.approx(2e-5, rel=0.01)
    wrong[0, 0, 0, 0, 0] = torch.nan
    assert not goldens.error(wrong, golden) <= 1
    video = goldens.read("t2v_512_v2", "sampling")[f"{golden_contents.runs(recording('t2v_512_v2'))[0]}.video"].float()
    grey = video.clamp(-0.9, 0.9)
    shifted = grey.clone()
    shifted[0, 0, 0, 0, 0] += 0.11 / 127.5
    assert goldens.pixel_error(grey, grey) == 0 and goldens.pixel_error(shifted, grey) > goldens.PIXEL_TOLERANCE


def test_a_batch_is_its_videos(model):
    """Videos of one batch, with prompts and rates of their own, do not affect one another."""
    golden = model.recorded.read("unet")
    x, text = golden["0.x"], golden["0.context"][:, :77]
    timesteps, fps = golden["0.timesteps"], goldens.fps(golden, "0")
    together = model.unet(x, timesteps, Conditioning(text, fps=fps))
    alone = [(x[i : i + 1], timesteps[i : i + 1], Conditioning(text[i : i + 1], fps=fps[i : i + 1])) for i in range(len(x))]
    apart = torch.cat([model.unet(*each) for each in alone])
    assert goldens.error(together, apart) <= 1e-5


@pytest.mark.parametrize("frames, height, width", [(1, 8, 8), (5, 3, 9), (20, 5, 4), (3, 1, 1)])
def test_any_frames_and_any_size(model, frames, height, width):
    """Sizes that halving rounds up, and more frames than the relative positions reach, work."""
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
