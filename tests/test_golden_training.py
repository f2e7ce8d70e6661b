"""The loss of training and its gradients are the reference's."""

from __future__ import annotations

import pytest
import torch

from harness import goldens
from harness.goldens import PASS_TOLERANCE, RUN_TOLERANCE, Recording
from vc_core.media.images import fit_image
from vc_core.models.conditioning import Conditioning, place_keyframes
from vc_core.models.image_encoder import prepare_images
from vc_core.training.loss import Batch, DiffusionLoss
from vc_core.training.networks import Denoiser, prepare_for_training
from vc_core.training.posterior import posterior_sample
from vc_core.training.settings import LossSettings

FOLDERS = [name for name in goldens.TRAINING if goldens.recording(name).has("loss")]


class Recorded:
    """One recorded pass, and what ours makes of its inputs."""

    def __init__(self, recorded: Recording) -> None:
        self.golden, self.settings = recorded.read("loss"), recorded.json("settings.json")
        self.model = goldens.load_recorded(recorded)
        self.trained = [name for name in recorded.shapes if name.startswith(("model.", "image_proj_model."))]
        denoiser = Denoiser(self.model.unet, self.model.networks.get("projector"))
        self.denoiser = prepare_for_training(denoiser, checkpointing=True).requires_grad_(True)
        dropped, images = self.settings["uncond_prob"], self.model.config.unet.image_attention
        settings = LossSettings(self.model.config.schedule.prediction, dropped if images else 0, dropped, dropped if images else 0)
        self.loss = DiffusionLoss(self.model.schedule, settings)

    @torch.no_grad()
    def latents(self) -> torch.Tensor:
        video = self.golden["video"].float()
        moments = self.model.networks["autoencoder"].encode(video.transpose(1, 2).flatten(0, 1))
        moments = moments.unflatten(0, (len(video), -1)).transpose(1, 2)
        return posterior_sample(moments, self.golden["posterior_noise"]) * self.model.config.autoencoder.scale_factor

    @torch.no_grad()
    def batch(self, z: torch.Tensor) -> Batch:
        video, features, empty, concat = self.golden["video"].float(), None, None, None
        if self.model.config.unet.image_attention:
            frame, encoder = self.settings["condition_frame"], self.model.networks["image_encoder"]
            images = torch.cat([video[:, :, frame], torch.zeros_like(video[:1, :, 0])])
            features, empty = encoder(prepare_images(images, encoder.config.image_size)).split([len(video), 1])
            ends = "ends" in self.model.config.keyframes
            last = z[:, :, -1:] if ends else None
            concat = place_keyframes(z[:, :, frame : frame + 1], last, z.shape[2])
        text = self.model.encode_text([*self.settings["captions_given"], ""]).clone()
        positive = Conditioning(text[:-1], features, fps=self.golden["fs"].float(), concat=concat)
        return Batch(z, positive, Conditioning(text[-1:], empty))


@pytest.mark.golden
@pytest.mark.parametrize("name", FOLDERS)
def test_loss_and_gradients(name, agrees):
    ours = Recorded(goldens.recording(name))
    golden, loss = ours.golden, ours.loss
    for table, tensor in (("alphas_cumprod", loss.schedule.alphas_cumprod), ("scale_arr", loss.schedule.scale)):
        if table in golden:
            agrees(name, "table", tensor, golden[table][:1000], 1e-6)
    z = ours.latents()
    agrees(name, "latents", z, golden["z"], PASS_TOLERANCE)
    batch = ours.batch(z)
    conditioning = loss.dropped(batch, golden["uniform"])
    with torch.no_grad():
        images = [] if ours.denoiser.projector is None else [ours.denoiser.projector(conditioning.image_tokens)]
    agrees(name, "context", torch.cat([conditioning.text, *images], dim=1), golden["context"], PASS_TOLERANCE)
    if "concat" in golden:
        agrees(name, "concat", batch.conditioning.concat, golden["concat"].expand_as(z), PASS_TOLERANCE)
    t, noise = golden["t"], golden["noise"]
    agrees(name, "noised", loss.noised(z, t, noise), golden["x_t"], PASS_TOLERANCE)
    agrees(name, "target", loss.target(z, t, noise), golden["target"], PASS_TOLERANCE)
    errors = loss.errors(ours.denoiser, z, t, noise, conditioning)
    agrees(name, "loss", errors.detach(), golden["loss_each"], PASS_TOLERANCE)
    agrees(name, "loss", errors.mean().detach(), golden["loss"], PASS_TOLERANCE)
    with torch.no_grad():
        agrees(name, "prediction", ours.denoiser(golden["x_t"], t, conditioning), golden["prediction"], PASS_TOLERANCE)
    errors.mean().backward()
    check_gradients(ours, name, agrees)


def check_gradients(ours: Recorded, name: str, agrees) -> None:
    """Some gradients are zero in exact arithmetic, so the norms are compared relative to the largest."""
    published = {"unet": "model.diffusion_model", "projector": "image_proj_model"}
    gradients = {}
    for own, parameter in ours.denoiser.named_parameters():
        part, _, rest = own.partition(".")
        gradients[f"{published[part]}.{rest}"] = parameter.grad
    assert set(ours.trained) == {each for each, gradient in gradients.items() if gradient is not None}
    golden = ours.golden
    norms = torch.stack([gradients[each].double().norm() for each in ours.trained])
    agrees(name, "gradients", norms, golden["gradient_norms"], RUN_TOLERANCE)
    agrees(name, "gradients", norms.norm(), golden["gradient_norm"], RUN_TOLERANCE)
    for each in golden:
        if each.startswith("gradient."):
            full = gradients[each.removeprefix("gradient.")]
            agrees(name, "gradients", full if full.ndim == 0 else full[:32], golden[each], RUN_TOLERANCE)


@pytest.mark.golden
@pytest.mark.skipif(not goldens.recording("training_loss").has("crop"), reason="not recorded")
def test_pictures_are_fitted_as_torchvision_does_today():
    """Where the authors' crop leaves no black bars, ours is theirs with smoothing. Where it does, ours covers the size."""
    golden = goldens.read("training_loss", "crop")
    ours = fit_image(golden["wide.pixels"].transpose(0, 1).float() / 127.5 - 1, 40, 64)
    assert goldens.pixel_error(ours.transpose(0, 1), golden["wide.smoothed"]) < 2 * goldens.PIXEL_TOLERANCE
    for kind in ("tall", "square", "small"):
        bars = (golden[f"{kind}.smoothed"] == -1).float().mean()
        ours = fit_image(golden[f"{kind}.pixels"].transpose(0, 1).float() / 127.5 - 1, 40, 64)
        assert bars > 0.1 and not (ours == -1).any()
