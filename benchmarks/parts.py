"""What is measured: the parts of making a clip, each in the ways in which it can be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vc_core.config import ModelConfig
from vc_core.diffusion.guidance import Conditioning, Guidance, guided_denoiser
from vc_core.diffusion.samplers import DDIMTables, ddim_sample, seeded_noise
from vc_core.models.text_encoder import tokenize
from vc_core.models.unet import UNet
from vc_core.pipeline import VideoModel

from . import plain
from .floor import flops
from .models import random_networks

#: Ways to do a part: the yardstick, what happens when nobody says anything, and with what the device does best.
PLAIN, OURS, BEST = "plain", "ours", "best"
PARTS = ("load", "text", "image", "encode", "step", "decode", "clip")
#: The networks that each part runs.
NETWORKS = {
    "text": ["text_encoder"], "image": ["image_encoder", "projector"], "encode": ["autoencoder"], "step": ["unet"],
    "decode": ["autoencoder"], "clip": ["text_encoder", "unet", "autoencoder"],
}  # fmt: skip
Ways = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Clip:
    """What is made."""

    frames: int
    height: int
    width: int
    steps: int

    def latent(self, config: ModelConfig) -> tuple[int, ...]:
        """``[1, C, T, h, w]``"""
        return 1, config.unet.out_channels, self.frames, self.height // config.downscale, self.width // config.downscale


def conditioning(config: ModelConfig, clip: Clip, device: torch.device | str, dtype: torch.dtype) -> Conditioning:
    """Random numbers in the shapes that the encoders give."""
    unet, where = config.unet, {"device": device, "dtype": dtype}
    tokens = config.projector.queries if config.projector and unet.image_attention else 0
    if unet.image_tokens_per_frame:
        tokens = unet.image_tokens_per_frame * clip.frames
    return Conditioning(
        torch.randn(1, config.text_encoder.context_length, unet.context_dim, **where),
        torch.randn(1, tokens, unet.context_dim, **where) if tokens else None,
        torch.full((1,), float(unet.default_fps), device=device),
        torch.randn(1, unet.concat_channels, *clip.latent(config)[2:], **where) if unet.concat_channels else None,
    )


def step_ways(config: ModelConfig, unet: UNet, clip: Clip, device: torch.device | str, dtype: torch.dtype) -> Ways:
    """One denoising step under guidance: both of its passes."""
    positive, negative = (conditioning(config, clip, device, dtype) for _ in range(2))
    negative = replace(negative, concat=positive.concat)  # both see the same picture
    x, timestep = torch.randn(clip.latent(config), device=device), torch.full((1,), 500, device=device)
    guidance = Guidance(config.sampling.guidance_scale)
    yardstick, ours = plain.guided_step(unet, positive, negative, guidance), guided_denoiser(unet, positive, negative, guidance, dtype)
    ways: Ways = {PLAIN: lambda: yardstick(x.to(dtype), timestep), OURS: lambda: ours(x, timestep)}
    if torch.device(device).type == "cuda":
        compiled = torch.compile(unet)
        best = guided_denoiser(compiled, positive, negative, guidance, dtype)  # type: ignore[arg-type]
        ways[BEST] = lambda: best(x, timestep)
    return ways


def clip_ways(model: VideoModel, clip: Clip) -> Ways:
    """A whole clip, from its prompt to its frames."""
    config, guidance = model.config, Guidance(model.config.sampling.guidance_scale)
    plain_decode = plain.decode(model.networks["autoencoder"])  # type: ignore[arg-type]

    def sampled(denoiser: Callable[..., Any]) -> Tensor:
        given = conditioning(config, clip, model.device, model.dtype)
        positive, negative = (
            Conditioning(model.encode_text([prompt]), given.image_tokens, given.fps, given.concat) for prompt in ("a swan on a pond", "")
        )
        tables = DDIMTables.make(model.schedule, model.schedule.spaced(clip.steps, config.sampling.spacing), eta=1.0)
        noise = seeded_noise(clip.latent(config), seed=0)
        return ddim_sample(denoiser(model.unet, positive, negative, guidance), next(noise).to(model.device), tables, noise)

    def yardstick(unet: UNet, *given: Any) -> Callable[[Tensor, Tensor], Tensor]:
        step = plain.guided_step(unet, *given)
        return lambda x, timestep: step(x.to(model.dtype), timestep).float()

    def plain_clip() -> Tensor:
        latents = sampled(yardstick) / config.autoencoder.scale_factor
        return plain_decode(latents[0].transpose(0, 1).to(model.dtype))

    return {PLAIN: plain_clip, OURS: lambda: model.decode(sampled(lambda *given: guided_denoiser(*given, model.dtype)))}


def decode_ways(model: VideoModel, clip: Clip) -> Ways:
    """Latents to frames: all at once by torch's own convolutions, and in chunks by ours."""
    latents = torch.randn(clip.latent(model.config), device=model.device)
    yardstick = plain.decode(model.networks["autoencoder"])  # type: ignore[arg-type]
    together = (latents[0].transpose(0, 1) / model.config.autoencoder.scale_factor).to(model.dtype)
    return {PLAIN: lambda: yardstick(together), OURS: lambda: model.decode(latents)}


def ways(part: str, model: VideoModel, clip: Clip) -> Ways:
    """How a part is done with a model that has its networks."""
    config, where = model.config, {"device": model.device}
    picture = torch.rand(1, 3, clip.height, clip.width, **where) * 2 - 1
    if part == "text":
        return {OURS: lambda: model.encode_text(["a swan on a pond", ""])}
    if part == "image":
        return {OURS: lambda: model.encode_image(picture)}
    if part == "encode":
        return {OURS: lambda: model.encode(picture[:, :, None])}
    if part == "decode":
        return decode_ways(model, clip)
    if part == "step":
        return step_ways(config, model.unet, clip, model.device, model.dtype)
    return clip_ways(model, clip)


def arithmetic(part: str, config: ModelConfig, clip: Clip) -> int:
    """Operations of a part, counted on ``meta`` as ours computes it."""
    if part == "clip":
        each = {name: arithmetic(name, config, clip) for name in ("text", "step", "decode")}
        return each["text"] + clip.steps * each["step"] + each["decode"]
    networks: dict[str, Any] = random_networks(config, NETWORKS[part], "meta", torch.float32)
    blank = {"device": "meta"}
    if part == "text":
        tokens = tokenize(["a swan on a pond", ""], config.text_encoder.context_length).to("meta")
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
