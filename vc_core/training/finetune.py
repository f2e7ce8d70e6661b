"""A fine-tuning run, from the files of a model and of clips to the file of what was learned."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import devices
from ..checkpoint.convert import DTYPE_NAMES
from ..config import ModelConfig
from ..diffusion.schedule import Schedule
from ..errors import InputError
from ..family.model_file import ModelFile
from ..files import replacing
from ..lora.writing import save_lora
from ..models.conditioning import Conditioning
from ..models.projector import Projector
from ..models.unet import UNet
from ..pipeline import VideoModel
from ..sampling import check_size
from .cache import Cache, build
from .clip_loss import ClipLoss
from .clips import ClipSet, ClipSettings
from .curves import Curves
from .export import write_model
from .lora import add_lora, changes_nothing, check_export, dora_scales, lora_weights
from .loss import DiffusionLoss
from .networks import Denoiser, prepare_for_training
from .options import TrainingOptions, to_yaml
from .plan import Plan
from .sources import find_items
from .state import make_folder
from .trainer import Trainer, make_accelerator
from .validation import Validation

Say = Callable[[str], None]


class Run:
    """A run: its model, its clips and its trainer.

    Args:
        options: see :func:`.options.read_options`.
        say: is told what happens, a line at a time; by the first process only.

    Raises:
        InputError: settings that don't fit the model, or no clip that can be used.
        CheckpointError: the model's file can't be read, or lacks a part that training needs.
        FileWriteError: the output's folder can't be written to.
    """

    def __init__(self, options: TrainingOptions, say: Say = print) -> None:
        self.options, self.folder = options, Path(options.output)
        make_folder(self.folder)
        device = devices.device(options.device or devices.default_device())
        self.accelerator = make_accelerator(options.trainer, device)
        self.device = self.accelerator.device
        self.say: Say = say if self.accelerator.is_main_process else lambda line: None
        self.file = ModelFile.open(options.model)
        self.config = self.file.config
        self.clip_settings = fitted_settings(options.clips, self.config)
        _check(options, self.file)
        loss = options.loss.settings(self.config.schedule.prediction, self.config.unet.image_attention)
        self.loss = DiffusionLoss(Schedule.from_config(self.config.schedule), loss)
        if self.accelerator.is_main_process:
            _write_text(self.folder / "settings.yaml", to_yaml(options))
        self.set, self.empty, self.validation = self._prepare_clips()
        self.denoiser = self._denoiser()
        self.plan = Plan([clip.bucket for clip in self.set.clips], options.trainer.batch, options.trainer.seed)
        condition = options.condition
        if condition == "auto":
            condition = "stride" if self.config.name == "dynamicrafter_256_v1" else "fps"
        self.clip_loss = ClipLoss(
            self.config, self.set.clips, self.plan, self.loss, options.clips.strides, self.empty, condition, self.device
        )
        self.trainer = Trainer(self.denoiser, self.clip_loss, options.trainer, self.folder / "state.pt", "training", device=device)

    def _prepare_clips(self) -> tuple[ClipSet, Conditioning, Validation | None]:
        """Compute what is needed of clips and captions, with networks that are released afterwards."""
        options = self.options
        items = find_items(Path(options.data))
        networks = {part: self.file.load(part, self.device, torch.float32) for part in self.file.parts if part != "unet"}
        model = VideoModel(self.config, networks)
        cache = Cache(Path(options.cache) if options.cache else self.folder / "cache", model)
        with self.accelerator.main_process_first():
            found = build(items, self.clip_settings, cache, self.say)
        for line in found.lines(self.clip_settings):
            self.say(line)
        self.say(f"{cache.encoded} clips were encoded, {len(found.clips) - cache.encoded} come from the cache {cache.folder}.")
        found.check(Path(options.data))
        with torch.inference_mode():
            text = model.encode_text([""]).float().cpu()
        empty = Conditioning(text.clone(), cache.empty_features())
        validation = None
        if options.validation.every:
            validation = Validation(model, options.validation, self.clip_settings, self.folder / "samples")
        kept = {"projector"} | ({"autoencoder"} if validation else set())
        model.networks = {part: network for part, network in networks.items() if part in kept}
        self._projector = networks.get("projector")
        return found, empty, validation

    def _denoiser(self) -> Denoiser:
        """The network that is trained, with what is trained of it requiring gradients."""
        options = self.options
        unet = self.file.load("unet", self.device, DTYPE_NAMES[options.weights])
        assert isinstance(unet, UNet) and (self._projector is None or isinstance(self._projector, Projector))
        denoiser = Denoiser(unet, self._projector)
        denoiser.requires_grad_(False)
        if options.train == "lora":
            add_lora(unet, options.lora, options.trainer.seed)
        elif options.train == "unet":
            denoiser.requires_grad_(True)
        elif denoiser.projector is not None:
            denoiser.projector.requires_grad_(True)
        return prepare_for_training(denoiser, options.dropout, options.checkpointing)

    def train(self) -> Path:
        """Train to the end, from the state in the folder where there is one, and write the result.

        Returns:
            The file: a LoRA, or a whole model.

        Raises:
            Interrupted: a signal asked for an end; the state is saved.
            StateError: the state is not of this run.
        """
        trainer, settings = self.trainer, self.options.trainer
        trained = sum(each.numel() for each in self.denoiser.parameters() if each.requires_grad)
        self.say(f"{trained / 1e6:.2f} million weights are trained, {self.options.train} of {self.config.title}.")
        if trainer.resume():
            done = trainer.update * settings.accumulate
            epoch = self.plan.samples(done - 1)[-1].epoch + 1 if done else 1
            self.say(f"Resumed after update {trainer.update} of {settings.updates}, in epoch {epoch}.")
        watchers: list[Any] = []
        if self.accelerator.is_main_process:
            watchers.append(Curves(self.folder, trainer.update, settings.save_every))
        if self.validation is not None:
            watchers.append(self.validation.watcher(self.denoiser.unet, self.accelerator.autocast))
        trainer.watchers = watchers
        try:
            trainer.run()
        finally:
            if self.accelerator.is_main_process:
                self._write_uses()
        return self.export()

    def export(self) -> Path:
        """Write the result, and check that the file does what was trained."""
        options = self.options
        path = self.folder / f"{options.name or options.preset}.safetensors"
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return path
        result = self.trainer.result
        assert isinstance(result, Denoiser)
        if options.train == "lora":
            save_lora(path, lora_weights(result.unet), self.metadata(), torch.float32, dora_scales(result.unet))
            error = check_export(path, result.unet)
            self.say(f"The LoRA is in {path} ({path.stat().st_size / 2**20:.1f} MiB). Read again, it is what was trained to {error:.0e}.")
            if changes_nothing(result.unet):
                self.say("This LoRA changes nothing: all of its up weights are zero, because no update was made.")
            return path
        networks: dict[str, nn.Module] = {part: self.file.load(part, "cpu", torch.float32) for part in self.file.parts}
        networks["unet"] = result.unet
        if result.projector is not None:
            networks["projector"] = result.projector
        write_model(path, self.config, networks)
        self.say(f"The model is in {path} ({path.stat().st_size / 2**20:.1f} MiB).")
        return path

    def metadata(self) -> dict[str, str]:
        """What a LoRA's file says of itself."""
        options = self.options
        return {
            "vc_core.base_model": self.config.name,
            "vc_core.base_file": self.file.checkpoint.path.name,
            "vc_core.base_hash": _file_hash(self.file.checkpoint.path),
            "vc_core.rank": str(options.lora.rank),
            "vc_core.alpha": f"{options.lora.alpha:g}",
            "vc_core.trigger_words": options.clips.trigger,
            "vc_core.preset": options.preset,
            "vc_core.updates": str(self.trainer.update),
            "vc_core.clips": str(len(self.set.clips)),
            "vc_core.settings": to_yaml(replace(options, output="", cache="", data=Path(options.data).name)),
        }

    def _write_uses(self) -> None:
        """Write ``clips.csv``: how often each clip was used, or why it wasn't."""
        passes = self.trainer.update * self.options.trainer.accumulate
        uses = Counter(sample.clip for number in range(passes) for sample in self.plan.samples(number))
        with replacing(self.folder / "clips.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("clip", "used", "left out because"))
            writer.writerows((clip.name, uses[index], "") for index, clip in enumerate(self.set.clips))
            writer.writerows((each.name, 0, each.reason) for each in self.set.left)


def fitted_settings(settings: ClipSettings, config: ModelConfig) -> ClipSettings:
    """The settings of clips with the model's own size where they have none.

    Raises:
        InputError: a size that the model can't have.
    """
    sampling = config.sampling
    height, width = settings.height or sampling.height, settings.width or sampling.width
    fitted = replace(settings, frames=settings.frames or sampling.frames, height=height, width=width)
    check_size(fitted.height, fitted.width, config.downscale)
    return fitted


def _check(options: TrainingOptions, file: ModelFile) -> None:
    if options.weights == "bfloat16" and (options.train != "lora" or options.trainer.precision != "bfloat16"):
        raise InputError("weights is bfloat16, which is for a LoRA with trainer.precision bfloat16; set it to float32.")
    if options.train == "projector" and "projector" not in file.parts:
        raise InputError(f"{file.config.title} has no projector to train: choose another preset, or an image-to-video model.")
    if file.config.unet.takes_depth:
        raise InputError(
            f"{file.config.title} is trained on depth maps, which a folder of clips doesn't have: choose a text-to-video or image-to-video "
            "model."
        )
    needed = {"unet", "autoencoder", "text_encoder"}
    needed |= {"image_encoder", "projector"} if file.config.unet.image_attention else set()
    if missing := sorted(needed - set(file.parts)):
        raise InputError(f"{file.checkpoint.path} has no {', '.join(missing)}, which training needs: take the published checkpoint.")


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
