"""Training of a LoRA on a MODEL's UNet, with the loss of the core and ComfyUI's own LoRA layers.

The UNet that is trained is a copy in torch's own layers, with the MODEL's weights as its patches make them; the MODEL itself stays as
it is, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.weight_adapter import adapter_maps
from torch import Tensor
from torch.nn.utils import parametrize

from ...vc_core.diffusion.schedule import Schedule
from ...vc_core.lora.writing import UNET_PREFIX
from ...vc_core.models.conditioning import Conditioning
from ...vc_core.models.unet import UNet
from ...vc_core.training.layers import training_layers
from ...vc_core.training.loss import Batch, DiffusionLoss
from ...vc_core.training.networks import Denoiser, lora_targets, prepare_for_training
from ...vc_core.training.plan import Plan
from ...vc_core.training.settings import LossSettings, TrainerSettings
from ...vc_core.training.trainer import generator_of, learning_rate
from .frames import FRAMES_KEY, checked_frames, fold, frames_per_video
from .model import VideoCrafterModel

#: What is trained, by the name of the choice: transformers over space, over time, and whether their feed-forwards are too.
TRAINED = {"style": (True, False, True), "motion": (False, True, True), "subject": (True, True, False), "all": (True, True, True)}
#: Dropping of text, both, and image: as published, for models with an image; and for those without.
IMAGE_DROPOUT, TEXT_DROPOUT = (0.05, 0.05, 0.05), (0.0, 0.1, 0.0)


@dataclass(frozen=True)
class Clip:
    """One video ``[1, C, T, h, w]`` in the diffusion's scale, and its conditioning."""

    latents: Tensor
    conditioning: Conditioning


@dataclass(frozen=True)
class LoraTraining:
    """The settings of a training; see the node."""

    trained: str
    steps: int
    batch: int
    accumulate: int
    learning_rate: float
    rank: int
    alpha: float
    seed: int
    checkpointing: bool

    @property
    def trainer(self) -> TrainerSettings:
        """With the core's names."""
        return TrainerSettings(
            updates=self.steps, batch=self.batch, accumulate=self.accumulate, learning_rate=self.learning_rate, seed=self.seed,
            betas=(0.9, 0.999), warmup=min(20, self.steps // 10), cooldown=0.1,
        )


def clips_of(model: VideoCrafterModel, latents: Sequence[dict[str, Any]], positive: Sequence[Any], device: torch.device) -> list[Clip]:
    """The videos of LATENTs, each with its conditioning.

    Args:
        positive: CONDITIONINGs; together they have one entry, or one for each LATENT, or one for each video.

    Raises:
        ValueError: another number of entries, or latents or conditionings that don't fit the model.
    """
    entries = [entry for conditioning in positive for entry in conditioning]
    stored = next((checked_frames(entry[1][FRAMES_KEY]) for entry in entries if entry[1].get(FRAMES_KEY)), None)
    videos: list[list[Tensor]] = [_videos(model, latent, stored or frames_per_video(latent)) for latent in latents]
    captions = _captions(entries, [len(each) for each in videos])
    flat = [video for each in videos for video in each]
    return [Clip(video, conditioning_of(model, entry, video, device)) for video, entry in zip(flat, captions, strict=True)]


def _videos(model: VideoCrafterModel, latent: dict[str, Any], frames: int) -> list[Tensor]:
    """The videos of a LATENT, each ``[1, C, T, h, w]`` in the diffusion's scale."""
    samples = latent["samples"]
    if not samples.isfinite().all():
        raise ValueError("A latent has values that are no numbers (NaN or infinite): look at the images that it was encoded from.")
    if len(samples) % frames:
        raise ValueError(f"A latent has {len(samples)} frames, but the conditioning says {frames} frames per video.")
    return [video.clone()[None] for video in fold(model.process_latent_in(samples).float().cpu(), frames)]


def _captions(entries: list[Any], counts: list[int]) -> list[Any]:
    """An entry of a conditioning for each video, of as many as there are videos in each LATENT."""
    if len(entries) == len(counts):
        return [entry for entry, count in zip(entries, counts, strict=True) for _ in range(count)]
    if len(entries) not in (1, sum(counts)):
        raise ValueError(
            f"There are {len(entries)} captions for {sum(counts)} clips in {len(counts)} latents: give one for all, or one each."
        )
    return entries * sum(counts) if len(entries) == 1 else entries


def conditioning_of(model: VideoCrafterModel, entry: Any, video: Tensor, device: torch.device) -> Conditioning:
    """A CONDITIONING's entry for one video ``[1, C, T, h, w]``, as the model reads it when it samples.

    Raises:
        ValueError: as in sampling.
    """
    text, options = entry
    frames = video.shape[2]
    noise = video[0].transpose(0, 1)
    values = {**options, FRAMES_KEY: frames}
    conds = model.extra_conds(noise=noise.to(device), device=device, cross_attn=text[:1], **values)

    def read(name: str) -> Tensor | None:
        return conds[name].cond.float().cpu().clone() if name in conds else None

    concat, tokens = read("c_concat"), read("image_tokens")
    return Conditioning(
        text[:1].float().cpu().clone(), None if tokens is None else tokens[:1], fps=read("fps"),
        concat=None if concat is None else fold(concat, frames),
    )


def effective_weights(patcher: Any) -> dict[str, Tensor]:
    """The UNet's weights by their names, with the patches of a MODEL applied, in float32 on the CPU."""
    comfy.model_management.load_models_gpu([patcher], force_patch_weights=True)
    unet = patcher.model.diffusion_model
    if hasattr(patcher, "model_state_dict_for_saving"):  # newer releases, whose weights may be patched only as they are read
        weights = patcher.model_state_dict_for_saving(unet, "diffusion_model.")
    else:
        weights = unet.state_dict()
    return {name: value.to("cpu").float().clone() for name, value in weights.items()}


def train_lora(
    patcher: Any, clips: Sequence[Clip], empty: Conditioning | None, settings: LoraTraining, after_step: Callable[[float], None]
) -> dict[str, Tensor]:
    """Train a LoRA and return it as a LORA_MODEL: tensors by the names that LoRA loaders know.

    Args:
        empty: the conditioning that stands in for dropped text and image; without one nothing is dropped.
        after_step: called with the loss of each step.
    """
    device = comfy.model_management.get_torch_device()
    config = patcher.model.config
    unet = UNet(config.unet, training_layers())
    unet.load_state_dict(effective_weights(patcher))
    unet.requires_grad_(False).to(device)
    layers = _add_lora(unet, settings)
    parameters = [each for layer in layers.values() for each in layer.parameters() if each.requires_grad]
    denoiser = prepare_for_training(Denoiser(unet), checkpointing=settings.checkpointing).train()
    images = clips[0].conditioning.image_tokens is not None
    text, both, image = (IMAGE_DROPOUT if images else TEXT_DROPOUT) if empty is not None else (0.0, 0.0, 0.0)
    loss = DiffusionLoss(Schedule.from_config(config.schedule), LossSettings(config.schedule.prediction, text, both, image))
    trainer = settings.trainer
    plan = Plan([tuple(clip.latents.shape) for clip in clips], settings.batch, settings.seed)
    optimizer = torch.optim.AdamW(parameters, lr=trainer.learning_rate, betas=trainer.betas, weight_decay=trainer.weight_decay)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(trainer, step)
        total = 0.0
        for number in range(step * settings.accumulate, (step + 1) * settings.accumulate):
            comfy.model_management.throw_exception_if_processing_interrupted()
            batch = _batch([clips[sample.clip] for sample in plan.samples(number)], empty, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
                value = loss(denoiser, batch, generator_of(settings.seed, number)) / settings.accumulate
            value.backward()
            total += float(value.detach())
        torch.nn.utils.clip_grad_norm_(parameters, trainer.clip_norm, error_if_nonfinite=True)
        optimizer.step()
        optimizer.zero_grad()
        after_step(total)
    return _lora_model(layers, settings)


def _add_lora(unet: UNet, settings: LoraTraining) -> dict[str, Any]:
    """ComfyUI's LoRA layers as parametrizations of the layers that are trained, by the layers' names."""
    spatial, temporal, feed_forward = TRAINED[settings.trained]
    layers = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_of(settings.seed, 3).initial_seed() % 2**63)
        for name in lora_targets(unet, spatial, temporal, feed_forward):
            layer = unet.get_submodule(name)
            # Made on the CPU, so that its random numbers are the same everywhere.
            lora = adapter_maps["LoRA"].create_train(layer.weight.cpu(), rank=settings.rank, alpha=settings.alpha)
            layers[name] = lora.to(layer.weight.device).train()
            parametrize.register_parametrization(layer, "weight", layers[name], unsafe=True)
    return layers


def _lora_model(layers: dict[str, Any], settings: LoraTraining) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{UNET_PREFIX}{name}.lora_A.weight"] = layer.lora_down.weight.detach().cpu().clone()
        tensors[f"{UNET_PREFIX}{name}.lora_B.weight"] = layer.lora_up.weight.detach().cpu().clone()
        tensors[f"{UNET_PREFIX}{name}.alpha"] = torch.tensor(settings.alpha)
    return tensors


def _batch(clips: Sequence[Clip], empty: Conditioning | None, device: torch.device) -> Batch:
    stacked = Conditioning.stack(*(clip.conditioning for clip in clips))
    length = stacked.text.shape[-2]
    blank = stacked.text[:1] if empty is None else empty.text.repeat(1, length // empty.text.shape[-2], 1)
    images = None if empty is None or empty.image_tokens is None else empty.image_tokens.to(device)

    def moved(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device)

    conditioning = Conditioning(stacked.text.to(device), moved(stacked.image_tokens), fps=moved(stacked.fps), concat=moved(stacked.concat))
    latents = torch.cat([clip.latents for clip in clips]).to(device)
    return Batch(latents, conditioning, Conditioning(blank.to(device), images))
