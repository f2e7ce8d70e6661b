"""The stages of a run, each of which writes a file into the run's folder: autoencoder, towers, projector, UNet, complete model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vc_core.config import ModelConfig, load_config
from vc_core.diffusion.schedule import Schedule
from vc_core.errors import InputError
from vc_core.family.model_file import ModelFile
from vc_core.models.autoencoder import Autoencoder
from vc_core.models.image_encoder import ImageEncoder
from vc_core.models.layers import LayerFactory
from vc_core.models.projector import Projector
from vc_core.models.text_encoder import TextEncoder, tokenize
from vc_core.models.unet import UNet
from vc_core.training.export import write_model
from vc_core.training.layers import training_layers
from vc_core.training.loss import DiffusionLoss
from vc_core.training.networks import Denoiser
from vc_core.training.state import StateError, make_folder, read_state, save_atomically
from vc_core.training.trainer import Trainer, generator_of

from .cameras import CameraDenoiser, CameraLoss
from .clip import AttributeClip, ClipLoss, EmbeddingLoss, clear_unused_tokens
from .denoiser import (
    DenoiserLoss,
    FirstFrames,
    LatentTable,
    TextTable,
    concat_of,
    init_from,
    init_identity,
    init_position_signal,
    init_time_signal,
)
from .distilling import ConsistencyLoss, freeze_shared
from .settings import DiffusionTraining, TrainingSettings
from .sight import SeeingProjector, SightLoss
from .vae import AutoencoderLoss, DecoderLoss, normalise, quieten
from .world import all_sentences


class Run:
    """Settings and folder of one run."""

    def __init__(self, settings: TrainingSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        make_folder(folder)
        self.config: ModelConfig = load_config(settings.model)
        self.start: ModelFile | None = ModelFile.open(settings.start) if settings.start else None

    def file(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    def started(self, part: str) -> dict[str, Tensor]:
        """The weights of a part of the model that the run starts from; empty if there are none."""
        if self.start is None or part not in self.start.parts:
            return {}
        return {name: tensor.float() for name, tensor in self.start.tensors(part).items()}

    def load(self, network: nn.Module, name: str) -> None:
        """Load a network's weights from the file of an earlier stage.

        Raises:
            InputError: that stage has not been run, or its file is damaged or of another model.
        """
        if not self.file(name).exists():
            raise InputError(f"{self.file(name)} is missing: run the stage that makes it first, or leave --stage out.")
        try:
            network.load_state_dict(read_state(self.file(name)))
        except RuntimeError as error:
            raise StateError(f"{self.file(name)}: is of another model. Move it away to train that stage anew.") from error
        network.requires_grad_(False).eval()

    def autoencoder(self) -> Autoencoder:
        """The trained autoencoder, with the polished decoder if there is one."""
        network = Autoencoder(self.config.autoencoder)
        self.load(network, "decoder.pt" if self.file("decoder.pt").exists() else "autoencoder.pt")
        return network

    def text_encoder(self) -> TextEncoder:
        """The trained text tower."""
        network = TextEncoder(self.config.text_encoder)
        self.load(network, "text_encoder.pt")
        return network

    def image_encoder(self) -> ImageEncoder:
        """The trained image tower of an image-to-video model."""
        assert self.config.image_encoder is not None
        network = ImageEncoder(self.config.image_encoder)
        self.load(network, "image_encoder.pt")
        return network

    def denoiser(self, layers: LayerFactory | None = None) -> Denoiser:
        """A new UNet, together with the projector if the model has one."""
        projector = None if self.config.projector is None else Projector(self.config.projector, layers)
        return Denoiser(UNet(self.config.unet, layers), projector)


def train_autoencoder(run: Run) -> None:
    """Train the autoencoder, and normalize its latents to mean 0 and standard deviation 1."""
    settings = run.settings.autoencoder
    if run.file("autoencoder.pt").exists():
        return
    if run.started("autoencoder"):
        save_atomically(run.started("autoencoder"), run.file("autoencoder.pt"))
        return
    torch.manual_seed(settings.trainer.seed)
    network = Autoencoder(run.config.autoencoder)
    quieten(network)
    loss = AutoencoderLoss(network, run.settings.world, settings)
    trainer = Trainer(network, loss, settings.trainer, run.file("autoencoder.state.pt"), "autoencoder")
    trainer.resume()
    trained = trainer.run()
    normalise(trained, run.settings.world, run.config.autoencoder.scale_factor, generator_of(settings.trainer.seed))  # type: ignore[arg-type]
    save_atomically(trained.state_dict(), run.file("autoencoder.pt"))


def polish_decoder(run: Run) -> None:
    """Train the decoder further, for sharper outlines from the same latents."""
    settings = run.settings.decoder
    if run.file("decoder.pt").exists() or run.started("autoencoder"):
        return
    network = run.autoencoder()
    for part in (network.decoder, network.post_quant_conv):
        part.requires_grad_(True)
    loss = DecoderLoss(network, run.settings.world, settings, run.config.autoencoder.scale_factor)
    trainer = Trainer(network, loss, settings.trainer, run.file("decoder.state.pt"), "decoder")
    trainer.resume()
    save_atomically(trainer.run().state_dict(), run.file("decoder.pt"))


def train_clip(run: Run) -> None:
    """Train the text tower, and the image tower for image-to-video models. Towers of the model that a run starts from are kept."""
    settings, kept = run.settings.clip, run.started("text_encoder")
    if run.file("text_encoder.pt").exists():
        return
    if kept and (run.settings.changes_a_model or run.config.image_encoder is None):
        save_atomically(kept, run.file("text_encoder.pt"))
        return
    torch.manual_seed(settings.trainer.seed)
    network = AttributeClip(run.config.text_encoder, run.config.image_encoder or settings.image_encoder)
    towers = kept | {f"visual.{name}": tensor for name, tensor in run.started("image_encoder").items()}
    network.clip.load_state_dict(towers, strict=False)
    for name, parameter in network.clip.named_parameters():
        parameter.requires_grad_(not kept or name.startswith("visual."))
    loss = ClipLoss(network, run.settings.world, settings)
    trainer = Trainer(network, loss, settings.trainer, run.file("clip.state.pt"), "clip")
    trainer.resume()
    trainer.run()
    clip = network.clip
    save_atomically(clip.visual.state_dict(), run.file("image_encoder.pt"))
    if kept:
        save_atomically(kept, run.file("text_encoder.pt"))
        return
    clear_unused_tokens(clip, tokenize(all_sentences(run.settings.world)).unique())
    text = TextEncoder(run.config.text_encoder)
    weights = clip.state_dict()
    text.load_state_dict({name: weights[name] for name in text.state_dict()})
    save_atomically(text.state_dict(), run.file("text_encoder.pt"))


def fit_embedding(run: Run) -> None:
    """Train the projection that makes an image's embedding, alone. The UNet does not read it, but the tokens before it."""
    settings = run.settings.embedding
    if settings is None:
        return
    torch.manual_seed(settings.trainer.seed)
    network = AttributeClip(run.config.text_encoder, run.config.image_encoder or run.settings.clip.image_encoder)
    visual = read_state(run.file("image_encoder.pt"))
    network.clip.load_state_dict(read_state(run.file("text_encoder.pt")) | {f"visual.{name}": each for name, each in visual.items()})
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name == "clip.visual.proj")
    loss = EmbeddingLoss(network, run.settings.world, settings)
    trainer = Trainer(network, loss, settings.trainer, run.file("embedding.state.pt"), "embedding")
    trainer.resume()
    trainer.run()
    save_atomically(network.clip.visual.state_dict(), run.file("image_encoder.pt"))


def train_projector(run: Run) -> None:
    """Pretrain the projector of an image-to-video model, see `tiny_world.sight`."""
    settings, world = run.settings.sight, replace(run.settings.world, frames=1)
    if run.config.projector is None or run.file("projector.pt").exists():
        return
    torch.manual_seed(settings.trainer.seed)
    if weights := run.started("projector"):
        # A model with tokens for each frame starts with the same ones for all.
        repeats = run.config.projector.queries // weights["latents"].shape[1]
        save_atomically(weights | {"latents": weights["latents"].repeat(1, repeats, 1)}, run.file("projector.pt"))
        return
    network = SeeingProjector(Projector(run.config.projector, training_layers()), run.config.projector.context_dim)
    loss = SightLoss(network, FirstFrames(run.image_encoder(), world), world, settings)
    trainer = Trainer(network, loss, settings.trainer, run.file("projector.state.pt"), "projector")
    trainer.resume()
    trainer.run()
    save_atomically(network.projector.state_dict(), run.file("projector.pt"))


def train_denoiser(run: Run) -> None:
    """Train the UNet, together with the projector of an image-to-video model."""
    if run.settings.changes_a_model:
        return
    torch.manual_seed(run.settings.diffusion.trainer.seed)
    network = run.denoiser(training_layers())
    unet = network.unet
    if run.started("unet"):
        init_from(unet, run.started("unet"))
    else:
        init_identity(unet)
        init_time_signal(unet)
    if network.projector is not None:
        run.load(network.projector, "projector.pt")
        if not run.started("projector"):
            init_position_signal(unet)
    _train_denoiser(run, network, run.settings.diffusion, "unet")


def polish_denoiser(run: Run) -> None:
    """Train the UNet and the projector further."""
    if run.settings.polish is None:
        return
    torch.manual_seed(run.settings.polish.trainer.seed)
    network = run.denoiser(training_layers())
    run.load(network, "unet.pt")
    _train_denoiser(run, network, run.settings.polish, "polished")


def _train_denoiser(run: Run, network: Denoiser, settings: DiffusionTraining, name: str) -> None:
    """Train by the diffusion loss, with the state and the result in files of this name."""
    world = run.settings.world
    network.requires_grad_(True).train()
    step = DenoiserLoss(
        DiffusionLoss(Schedule.from_config(run.config.schedule), settings.loss),
        LatentTable(run.autoencoder(), world, run.config.autoencoder.scale_factor), TextTable(run.text_encoder()), world, settings,
        images=FirstFrames(run.image_encoder(), world) if run.config.image_encoder else None,
        concat=concat_of(run.config.unet, world),
    )
    trainer = Trainer(network, step, settings.trainer, run.file(f"{name}.state.pt"), name)
    trainer.resume()
    save_atomically(trainer.run().state_dict(), run.file(f"{name}.pt"))


def distil(run: Run) -> None:
    """Train the UNet to need fewer steps than the one that it starts from, see `tiny_world.distilling`."""
    settings, world = run.settings.distillation, run.settings.world
    if settings is None:
        return
    if run.start is None or run.start.config.unet.guidance_embedding:
        raise InputError("Distillation needs a model to start from that is not itself distilled.")
    torch.manual_seed(settings.trainer.seed)
    network = UNet(run.config.unet, training_layers())
    nn.init.zeros_(network.time_cond_proj.weight)
    init_from(network, run.started("unet"))
    freeze_shared(network)
    teacher = UNet(run.start.config.unet)
    teacher.load_state_dict(run.started("unet"))
    teacher.requires_grad_(False).eval()
    loss = ConsistencyLoss(
        teacher, Schedule.from_config(run.config.schedule), run.config.sampling.original_steps,
        LatentTable(run.autoencoder(), world, run.config.autoencoder.scale_factor), TextTable(run.text_encoder()), world, settings,
    )
    trainer = Trainer(network, loss, settings.trainer, run.file("unet.state.pt"), "distillation")
    loss.target = trainer.result
    trainer.resume()
    save_atomically(Denoiser(trainer.run()).state_dict(), run.file("unet.pt"))


def train_camera(run: Run) -> None:
    """Train a camera module, and a part of the model that it starts from, see `tiny_world.cameras`."""
    settings, world = run.settings.camera, run.settings.world
    if settings is None:
        return
    if run.start is None:
        raise InputError("A camera module needs a model to start from.")
    torch.manual_seed(settings.trainer.seed)
    network = CameraDenoiser(run.config, training_layers())
    init_from(network.unet, run.started("unet"))
    network.choose_trained()
    loss = CameraLoss(
        DiffusionLoss(Schedule.from_config(run.config.schedule), settings.loss), run.autoencoder(), run.config.autoencoder.scale_factor,
        TextTable(run.text_encoder()), world, settings,
    )
    trainer = Trainer(network, loss, settings.trainer, run.file("unet.state.pt"), "camera")
    trainer.resume()
    trained = trainer.run()
    assert isinstance(trained, CameraDenoiser)
    save_atomically(trained.added(), run.file("camera.pt"))
    save_atomically(Denoiser(trained.unet).state_dict(), run.file("unet.pt"))


def finish(run: Run) -> None:
    """Write the complete model as one file, `videocrafter_NAME.safetensors`."""
    network = run.denoiser()
    run.load(network, "polished.pt" if run.settings.polish is not None else "unet.pt")
    networks: dict[str, nn.Module] = {"unet": network.unet, "autoencoder": run.autoencoder(), "text_encoder": run.text_encoder()}
    if network.projector is not None:
        networks |= {"projector": network.projector, "image_encoder": run.image_encoder()}
    added = read_state(run.file("camera.pt")) if run.settings.camera is not None else {}
    path = write_model(run.file(f"videocrafter_{run.config.name}.safetensors"), run.config, networks, added)
    print(f"The model is in {path} ({path.stat().st_size / 2**20:.1f} MiB).")


STAGES: dict[str, Callable[[Run], None]] = {
    "autoencoder": train_autoencoder, "decoder": polish_decoder, "clip": train_clip, "embedding": fit_embedding,
    "projector": train_projector, "unet": train_denoiser,
    "polish": polish_denoiser, "distillation": distil, "camera": train_camera, "model": finish,
}
