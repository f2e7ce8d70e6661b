"""Text to video without ComfyUI: a file becomes a model, and a model makes clips."""

from __future__ import annotations

import os
from itertools import chain
from typing import Any, Callable, Iterable, Iterator, Optional, Sequence, Union

import torch
from einops import rearrange
from torch import Tensor

from .checkpoint.errors import CheckpointError
from .config import ConfigLike, ModelConfig
from .diffusion.ddim import Callback, DDIMTables, ddim_sample, seeded_noise
from .diffusion.guidance import Conditioning, Guidance, guided_denoiser
from .diffusion.schedule import Schedule
from .loading import ModelFile
from .models.autoencoder import Autoencoder
from .models.text_encoder import TextEncoder, tokenize
from .models.unet import UNet

#: Pixels that go through the autoencoder at once: four frames of 320x512.
PIXELS_AT_ONCE = 4 * 320 * 512


class VideoModel:
    """A text-to-video model: the networks, their schedule and the loop that makes a clip.

    Attributes:
        config: what it is made of.
        unet: called as ``unet(x, timesteps, text, image_tokens=None, fps=None)``, see :meth:`vc_core.models.unet.UNet.forward`.
    """

    def __init__(
        self, config: ModelConfig, unet: UNet, autoencoder: Optional[Autoencoder], text_encoder: Optional[TextEncoder]
    ) -> None:
        self.config = config
        self.unet = unet
        self.schedule = Schedule.from_config(config.schedule)
        self._autoencoder = autoencoder
        self._text_encoder = text_encoder
        weight = next(unet.parameters())
        self.device, self.dtype = weight.device, weight.dtype

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> ``[B, 77 n, context_dim]``; n is 1 unless a prompt has more than 75 tokens.

        Raises:
            CheckpointError: the file has no text encoder.
        """
        if self._text_encoder is None:
            raise CheckpointError(_lacking("text encoder", "cond_stage_model.model."))
        if isinstance(prompts, str):
            raise TypeError(f"encode_text takes a list of prompts; {prompts!r} is one prompt: put it in a list.")
        tokens = tokenize(prompts, self.config.text_encoder.context_length)
        return self._text_encoder(tokens.to(self.device))

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames ``[B, 3, T, H, W]`` in [-1, 1] -> latents ``[B, C, T, h, w]`` in the diffusion's scale (the posterior's mean).

        Raises:
            ValueError: H or W is no multiple of the autoencoder's downscaling.
            CheckpointError: the file has no autoencoder.
        """
        autoencoder = self._need_autoencoder()
        self._check_size(*frames.shape[-2:])
        moments = self._each_frame(autoencoder.encode, frames, pixels=frames.shape[-2] * frames.shape[-1])
        return moments[:, : self.config.autoencoder.embed_dim] * self.config.autoencoder.scale_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[B, C, T, h, w]`` in the diffusion's scale -> frames ``[B, 3, T, H, W]`` in [-1, 1], in float32.

        Raises:
            CheckpointError: the file has no autoencoder.
        """
        autoencoder = self._need_autoencoder()
        pixels = latents.shape[-2] * latents.shape[-1] * self.config.downscale**2
        frames = self._each_frame(autoencoder.decode, latents / self.config.autoencoder.scale_factor, pixels)
        return frames.float().clamp(-1, 1)

    @torch.inference_mode()
    def text_to_video(
        self,
        prompt: Union[str, Sequence[str]],
        negative_prompt: Union[str, Sequence[str]] = "",
        frames: int = 16,
        height: Optional[int] = None,
        width: Optional[int] = None,
        steps: int = 50,
        eta: float = 1.0,
        guidance_scale: float = 12.0,
        guidance_rescale: float = 0.0,
        fps: Optional[float] = None,
        seed: int = 0,
        x_T: Optional[Tensor] = None,
        step_noise: Optional[Iterable[Tensor]] = None,
        callback: Optional[Callback] = None,
        temporal_guidance_scale: float = 0.0,
    ) -> Tensor:
        """Make clips with DDIM.

        Args:
            prompt: one prompt, or a list for a batch of clips.
            negative_prompt: likewise; the authors use the empty prompt.
            frames: 16 for the published models, which were trained on that.
            height, width: in pixels, multiples of 8; the configuration's where not given.
            steps: as asked; the schedule can give more (see :meth:`Schedule.uniform`).
            eta: 0 for the deterministic sampler, 1 for one that adds the noise of the training's reverse process.
            guidance_scale: 1 is no guidance.
            guidance_rescale: 0 to 1.
            fps: what the model is told of the motion, not the speed of playback; ignored by models without that input.
            seed: of :func:`vc_core.diffusion.ddim.seeded_noise`.
            x_T: the start ``[B, C, T, h, w]`` in place of the seed's; it also decides the size.
            step_noise: the noise of each step, of the start's shape, in place of the seed's.
            callback: called after each step, see :data:`vc_core.diffusion.ddim.Callback`.
            temporal_guidance_scale: how far to push away from the prediction without temporal attention.

        Returns:
            ``[B, 3, T, H, W]`` in [-1, 1].

        Raises:
            ValueError: a size, a count or a scale that can't be; tensors that don't fit.
        """
        settings = self.config.sampling
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else list(negative_prompt)
        if len(negatives) != len(prompts):
            raise ValueError(f"There are {len(prompts)} prompts and {len(negatives)} negative prompts; give one, or one each.")
        shape = self._latent_shape(
            len(prompts),
            frames,
            settings.height if height is None else height,
            settings.width if width is None else width,
        )
        if fps is not None and not fps > 0:
            raise ValueError(f"fps is {fps}; it must be more than 0.")

        if x_T is not None:
            if x_T.ndim != 5 or x_T.shape[:2] != shape[:2]:
                raise ValueError(f"x_T has the shape {tuple(x_T.shape)}; expected is [{shape[0]}, {shape[1]}, T, h, w].")
            shape = tuple(x_T.shape)
        noise = seeded_noise(shape, seed)
        # The seed's start is drawn even when one is given, so that the noise of the steps stays the same.
        start = next(noise)
        x = (start if x_T is None else x_T).to(self.device, torch.float32)
        if step_noise is not None:
            noise = chain(_checked(step_noise, shape), _exhausted())

        timesteps = self.schedule.uniform(steps)
        tables = DDIMTables.make(self.schedule, timesteps, eta)
        rates = torch.full((len(prompts),), fps if fps is not None else self.config.unet.default_fps, device=self.device)
        positive = Conditioning(self.encode_text(prompts), fps=rates)
        negative = Conditioning(self.encode_text(negatives), fps=rates)
        guidance = Guidance(guidance_scale, guidance_rescale, temporal_guidance_scale)
        denoise = guided_denoiser(self.unet, positive, negative, guidance, self.dtype)
        return self.decode(ddim_sample(denoise, x, tables, noise, callback))

    def _latent_shape(self, batch: int, frames: int, height: int, width: int) -> tuple[int, ...]:
        if frames < 1:
            raise ValueError(f"frames is {frames}; a clip has at least 1.")
        self._check_size(height, width)
        factor = self.config.downscale
        return (batch, self.config.unet.out_channels, frames, height // factor, width // factor)

    def _check_size(self, height: int, width: int) -> None:
        factor = self.config.downscale
        for name, value in (("height", height), ("width", width)):
            if value < factor or value % factor:
                below = max(factor, value // factor * factor)
                raise ValueError(f"{name} is {value}; it must be a multiple of {factor}, such as {below} or {below + factor}.")

    def _need_autoencoder(self) -> Autoencoder:
        if self._autoencoder is None:
            raise CheckpointError(_lacking("autoencoder", "first_stage_model."))
        return self._autoencoder

    def _each_frame(self, network: Callable[[Tensor], Tensor], video: Tensor, pixels: int) -> Tensor:
        """Run a network over all frames, a few at a time."""
        flat = rearrange(video.to(self.device, self.dtype), "b c t h w -> (b t) c h w")
        chunk = max(1, PIXELS_AT_ONCE // pixels)
        out = torch.cat([network(piece) for piece in flat.split(chunk)])
        return rearrange(out, "(b t) c h w -> b c t h w", t=video.shape[2])


def load(
    path: Union[str, os.PathLike[str]],
    config: Optional[ConfigLike] = None,
    device: Union[str, torch.device] = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VideoModel:
    """Load a model from a file.

    Args:
        path: a ``.safetensors`` or ``.ckpt`` file, or the name of a bundled model.
        config: a path or mapping in the format of ``configs/``, for what a file's tensors don't tell.
        device: where the weights go.
        dtype: what they are kept and computed in.

    Raises:
        CheckpointError: as :meth:`vc_core.loading.ModelFile.open`.
    """
    file = ModelFile.open(path, config)
    networks: dict[str, Any] = {part: file.load(part, device, dtype) for part in file.parts}
    return VideoModel(file.config, networks["unet"], networks.get("autoencoder"), networks.get("text_encoder"))


def _lacking(part: str, prefix: str) -> str:
    return f"This file has no {part} (no tensors under {prefix!r}): load one that has, such as the published checkpoint."


def _checked(step_noise: Iterable[Tensor], shape: Sequence[int]) -> Iterator[Tensor]:
    for index, noise in enumerate(step_noise):
        if tuple(noise.shape) != tuple(shape):
            raise ValueError(f"step_noise[{index}] has the shape {tuple(noise.shape)}; expected is {tuple(shape)}, that of the start.")
        yield noise


def _exhausted() -> Iterator[Tensor]:
    raise ValueError("step_noise has fewer tensors than the run has steps; one a step is needed.")
    yield  # makes this a generator, so that the error comes when the noise runs out
