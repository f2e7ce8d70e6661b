"""The stages of a run, each of which leaves a file in the run's folder: autoencoder, text tower, UNet, whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import torch
from torch import nn

from ..config import ModelConfig, load_config
from ..diffusion.schedule import Schedule
from ..models.autoencoder import Autoencoder
from ..models.text_encoder import TextEncoder, tokenize
from ..models.unet import UNet
from .clip import AttributeClip, ClipLoss, clear_unused_tokens
from .denoiser import DenoiserLoss, LatentTable, TextTable, open_clock, open_noise_path
from .export import write_model
from .layers import training_layers
from .loss import DiffusionLoss
from .settings import TrainingSettings
from .trainer import Trainer, save_atomically
from .vae import AutoencoderLoss, DecoderLoss, normalise, quieten
from .world import all_sentences


class Run:
    """Settings and folder of one run."""

    def __init__(self, settings: TrainingSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.config: ModelConfig = load_config(settings.model)
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    def load(self, network: nn.Module, name: str) -> None:
        """Give a network the weights that an earlier stage left.

        Raises:
            FileNotFoundError: that stage has not been run.
        """
        if not self.file(name).exists():
            raise FileNotFoundError(f"{self.file(name)} is missing: run the stage that makes it first, or leave --stage out.")
        network.load_state_dict(torch.load(self.file(name), weights_only=True))
        network.requires_grad_(False).eval()

    def autoencoder(self) -> Autoencoder:
        """The trained autoencoder, with the polished decoder where there is one."""
        network = Autoencoder(self.config.autoencoder)
        self.load(network, "decoder.pt" if self.file("decoder.pt").exists() else "autoencoder.pt")
        return network

    def text_encoder(self) -> TextEncoder:
        """The trained text tower."""
        network = TextEncoder(self.config.text_encoder)
        self.load(network, "text_encoder.pt")
        return network


def train_autoencoder(run: Run) -> None:
    """Frames to latents of mean 0 and deviation 1, and back."""
    settings = run.settings.autoencoder
    if run.file("autoencoder.pt").exists():
        return
    torch.manual_seed(settings.trainer.seed)
    network = Autoencoder(run.config.autoencoder)
    quieten(network)
    loss = AutoencoderLoss(network, run.settings.world, settings)
    trainer = Trainer(network, loss, settings.trainer, run.file("autoencoder.state.pt"), "autoencoder")
    trainer.resume()
    trained = trainer.run()
    normalise(trained, run.settings.world, run.config.autoencoder.scale_factor, trainer.generators[0])  # type: ignore[arg-type]
    save_atomically(trained.state_dict(), run.file("autoencoder.pt"))


def polish_decoder(run: Run) -> None:
    """Sharper outlines from the same latents."""
    settings = run.settings.decoder
    if run.file("decoder.pt").exists():
        return
    network = run.autoencoder()
    for part in (network.decoder, network.post_quant_conv):
        part.requires_grad_(True)
    loss = DecoderLoss(network, run.settings.world, settings, run.config.autoencoder.scale_factor)
    trainer = Trainer(network, loss, settings.trainer, run.file("decoder.state.pt"), "decoder")
    trainer.resume()
    save_atomically(trainer.run().state_dict(), run.file("decoder.pt"))


def train_clip(run: Run) -> None:
    """Sentences to tokens; the image tower is kept beside, for image-to-video models."""
    settings = run.settings.clip
    if run.file("text_encoder.pt").exists():
        return
    torch.manual_seed(settings.trainer.seed)
    network = AttributeClip(run.config.text_encoder, settings)
    loss = ClipLoss(network, run.settings.world, settings)
    trainer = Trainer(network, loss, settings.trainer, run.file("clip.state.pt"), "clip")
    trainer.resume()
    trainer.run()
    clip = network.clip
    clear_unused_tokens(clip, tokenize(all_sentences()).unique())
    save_atomically(clip.visual.state_dict(), run.file("image_encoder.pt"))
    text = TextEncoder(run.config.text_encoder)
    weights = clip.state_dict()
    text.load_state_dict({name: weights[name] for name in text.state_dict()})
    save_atomically(text.state_dict(), run.file("text_encoder.pt"))


def train_denoiser(run: Run) -> None:
    """The UNet."""
    settings, world = run.settings.diffusion, run.settings.world
    torch.manual_seed(settings.trainer.seed)
    unet = UNet(run.config.unet, training_layers())
    open_noise_path(unet)
    open_clock(unet)
    latents = LatentTable(run.autoencoder(), world, run.config.autoencoder.scale_factor)
    loss = DiffusionLoss(Schedule.from_config(run.config.schedule), settings.loss)
    step = DenoiserLoss(unet, loss, latents, TextTable(run.text_encoder()), world, settings)
    trainer = Trainer(unet, step, settings.trainer, run.file("unet.state.pt"), "unet")
    trainer.resume()
    save_atomically(trainer.run().state_dict(), run.file("unet.pt"))


def finish(run: Run) -> None:
    """Write the whole model as one file, `NAME.safetensors`."""
    unet = UNet(run.config.unet)
    run.load(unet, "unet.pt")
    path = write_model(run.file(f"videocrafter_{run.config.name}.safetensors"), run.config, unet, run.autoencoder(), run.text_encoder())
    print(f"The model is in {path} ({path.stat().st_size / 2**20:.1f} MiB).")


STAGES: dict[str, Callable[[Run], None]] = {
    "autoencoder": train_autoencoder, "decoder": polish_decoder, "clip": train_clip, "unet": train_denoiser,
    "model": finish,
}
