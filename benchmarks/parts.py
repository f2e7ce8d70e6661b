"""What is measured: the parts of making a clip, each in the ways in which it can be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vc_core.config import ModelConfig
from vc_core.diffusion.acceleration import compiled
from vc_core.diffusion.denoiser import GuidedDenoiser
from vc_core.diffusion.guidance import Guidance
from vc_core.diffusion.noise import SeededNoise
from vc_core.diffusion.samplers import Tables, clean_and_noise, ddim, sample
from vc_core.models.conditioning import Conditioning
from vc_core.models.text_encoder import tokenize
from vc_core.models.unet import UNet
from vc_core.pipeline import VideoModel
from vc_core.sampling import Sampling

from . import plain
from .floor import flops
from .models import random_networks

#: Ways to run a part: the yardstick, our default, and the fastest on the device.
PLAIN, OURS, BEST = "plain", "ours", "best"
PARTS = ("load", "text", "image", "encode", "step", "decode", "clip")
#: The networks that each part runs.
NETWORKS = {
    "text": ["text_encoder"],
    "image": ["image_encoder", "projector"],
    "encode": ["autoencoder"],
    "step": ["unet"],
    "decode": ["autoencoder"],
    "clip": ["text_encoder", "unet", "autoencoder"],
}
#: The prompt and the negative prompt.
PROMPTS = ("a swan on a pond", "")
Ways = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Clip:
    """The size of a clip, in frames and pixels, and its sampling steps."""

    frames: int
    height: int
    width: int
    steps: int

    def latent(self, config: ModelConfig) -> tuple[int, ...]:
        """``[1, C, T, h, w]``"""
        return 1, config.unet.out_channels, self.frames, self.height // config.downscale, self.width // config.downscale


def conditioning(config: ModelConfig, clip: Clip, device: torch.device | str, dtype: torch.dtype) -> Conditioning:
    """Random numbers in the shapes of the encoders' results."""
    unet, where = config.unet, {"device": device, "dtype": dtype}
    tokens = config.projector.queries if config.projector and unet.image_attention else 0
    if unet.image_tokens_per_frame:
        tokens = unet.image_tokens_per_frame * clip.frames
    return Conditioning(
        torch.randn(1, config.text_encoder.context_length, unet.context_dim, **where),
        torch.randn(1, tokens, unet.context_dim, **where) if tokens else None,
        fps=torch.full((1,), float(unet.default_fps), device=device),
        concat=torch.randn(1, unet.concat_channels, *clip.latent(config)[2:], **where) if unet.concat_channels else None,
    )


def pair(config: ModelConfig, clip: Clip, device: torch.device | str, dtype: torch.dtype) -> tuple[Conditioning, Conditioning]:
    """A positive and a negative conditioning that see the same image."""
    positive, negative = (conditioning(config, clip, device, dtype) for _ in range(2))
    return positive, replace(negative, concat=positive.concat)


def guided(config: ModelConfig, unet: UNet, clip: Clip, device: torch.device | str, dtype: torch.dtype) -> GuidedDenoiser:
    """Our step under guidance, with random conditionings."""
    return GuidedDenoiser(unet, *pair(config, clip, device, dtype), Guidance(config.sampling.guidance_scale), dtype)


def step_ways(config: ModelConfig, unet: UNet, clip: Clip, device: torch.device | str, dtype: torch.dtype) -> Ways:
    """One denoising step under guidance: both of its passes."""
    ours = guided(config, unet, clip, device, dtype)
    x, timestep = torch.randn(clip.latent(config), device=device), torch.full((1,), 500, device=device)
    yardstick = plain.guided_step(unet, ours.positive, ours.negative, ours.guidance)
    ways: Ways = {PLAIN: lambda: yardstick(x.to(dtype), timestep), OURS: lambda: ours(x, timestep)}
    if torch.device(device).type == "cuda":
        best = GuidedDenoiser(compiled(unet, "network"), ours.positive, ours.negative, ours.guidance, dtype)
        ways[BEST] = lambda: best(x, timestep)
    return ways


def clip_ways(model: VideoModel, clip: Clip) -> Ways:
    """A whole clip, from its prompts to its frames."""
    drawn = conditioning(model.config, clip, model.device, model.dtype)
    run = Sampling.of(model.config, frames=clip.frames, height=clip.height, width=clip.width, steps=clip.steps, eta=1.0, seed=0)
    plain_decode = plain.decode(model.networks["autoencoder"])  # type: ignore[arg-type]

    def conditionings() -> list[Conditioning]:
        return [replace(drawn, text=model.encode_text([prompt])) for prompt in PROMPTS]

    def plain_clip() -> Tensor:
        latents = plain_latents(model, *conditionings(), run, clip.latent(model.config))
        return plain_decode((latents[0].transpose(0, 1) / model.config.autoencoder.scale_factor).to(model.dtype))

    return {PLAIN: plain_clip, OURS: lambda: model.decode(model.sample(*conditionings(), sampling=run))}


def plain_latents(
    model: VideoModel, positive: Conditioning, negative: Conditioning, run: Sampling, shape: tuple[int, ...]
) -> Tensor:
    """As :meth:`VideoModel.sample`, with the plain step. ``shape`` is that of the latents."""
    tables = Tables.make(model.schedule, model.schedule.visited(run.steps, run.spacing), run.eta)
    step, noise = plain.guided_step(model.unet, positive, negative, run.guidance), SeededNoise(shape, run.seed)

    def predict(x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        timesteps = tables.timesteps[index].to(x.device).expand(len(x))
        return clean_and_noise(x, step(x.to(model.dtype), timesteps).float(), tables, index)

    return sample(predict, noise.start.to(model.device), len(tables.timesteps), ddim(tables), noise.steps())


def decode_ways(model: VideoModel, clip: Clip) -> Ways:
    """Latents to frames: all at once with torch's own layers, and in chunks by ours."""
    latents = torch.randn(clip.latent(model.config), device=model.device)
    yardstick = plain.decode(model.networks["autoencoder"])  # type: ignore[arg-type]
    together = (latents[0].transpose(0, 1) / model.config.autoencoder.scale_factor).to(model.dtype)
    return {PLAIN: lambda: yardstick(together), OURS: lambda: model.decode(latents)}


def ways(part: str, model: VideoModel, clip: Clip) -> Ways:
    """The ways to run a part with a model that has its networks."""
    image = torch.rand(1, 3, clip.height, clip.width, device=model.device) * 2 - 1
    if part == "text":
        return {OURS: lambda: model.encode_text(PROMPTS)}
    if part == "image":
        return {OURS: lambda: model.encode_image(image)}
    if part == "encode":
        return {OURS: lambda: model.encode(image[:, :, None])}
    if part == "decode":
        return decode_ways(model, clip)
    if part == "step":
        return step_ways(model.config, model.unet, clip, model.device, model.dtype)
    return clip_ways(model, clip)


def arithmetic(part: str, config: ModelConfig, clip: Clip) -> int:
    """Operations of a part, counted on ``meta`` as ours computes it."""
    if part == "clip":
        each = {name: arithmetic(name, config, clip) for name in ("text", "step", "decode")}
        return each["text"] + clip.steps * each["step"] + each["decode"]
    networks: dict[str, Any] = random_networks(config, NETWORKS[part], "meta", torch.float32)
    blank = {"device": "meta"}
    if part == "text":
        tokens = tokenize(PROMPTS, config.text_encoder.context_length).to("meta")
        return flops(lambda: networks["text_encoder"](tokens))
    if part == "image":
        side = config.image_encoder.image_size  # type: ignore[union-attr]
        return flops(lambda: networks["projector"](networks["image_encoder"](torch.empty(1, 3, side, side, **blank))))
    if part == "encode":
        return flops(lambda: networks["autoencoder"].encode(torch.empty(1, 3, clip.height, clip.width, **blank)))
    if part == "decode":
        z = torch.empty(clip.frames, config.autoencoder.embed_dim, *clip.latent(config)[3:], **blank)
        return flops(lambda: networks["autoencoder"].decode(z))
    return flops(step_ways(config, networks["unet"], clip, "meta", torch.float32)[OURS])
