"""Text and image to video without ComfyUI: a file becomes a model, and a model makes clips."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from .checkpoint.errors import CheckpointError
from .config import ConfigLike, ModelConfig
from .diffusion.deep_cache import DeepCache
from .diffusion.guidance import Conditioning, Guidance, guided_denoiser
from .diffusion.samplers import Callback, DDIMTables, ddim_sample, seeded_noise
from .diffusion.schedule import Schedule
from .family.identify import PREFIXES
from .family.model_file import ModelFile
from .kernels.casting import cast_when_used, computing_type
from .media.images import fit_picture
from .memory import free_memory, numbers_per_pixel
from .models.image_encoder import prepare_pictures
from .models.text_encoder import tokenize
from .models.unet import UNet

#: Pixels that go through the autoencoder at once: on a processor, which gains nothing by more, these or one frame; on a GPU what this
#: share of its free memory holds.
PIXELS_AT_ONCE, SHARE = 256 * 256, 0.5


@dataclass(frozen=True)
class _Run:
    """The arguments that text to video and image to video share."""

    frames: int
    height: int | None
    width: int | None
    steps: int
    eta: float
    fps: float | None
    seed: int
    x_T: Tensor | None
    step_noise: Iterable[Tensor] | None
    callback: Callback | None
    spacing: str | None
    deep_cache_interval: int
    deep_cache_blocks: int


@dataclass(frozen=True)
class _Pictures:
    """What a run from pictures has beside its prompts: image tokens ``[B, m, context]`` and the pictures themselves."""

    tokens: Tensor
    empty_tokens: Tensor
    #: ``[B, 3, H, W]`` in [-1, 1]; the last is given where a video is to end with a picture.
    first: Tensor
    last: Tensor | None


class VideoModel:
    """A model: the networks, their schedule and the loop that makes a clip.

    Attributes:
        config: what it is made of.
        networks: those that it has, by the names of :data:`vc_core.family.model_file.BLANK`.
        unet: called as ``unet(x, timesteps, text, image_tokens=None, fps=None)``, see :meth:`vc_core.models.unet.UNet.forward`.
        device: where it computes.
        dtype: what it computes in; its weights can be kept in a smaller type, see :func:`vc_core.kernels.casting.computing_type`.
    """

    def __init__(self, config: ModelConfig, networks: dict[str, Any]) -> None:
        self.config = config
        self.schedule = Schedule.from_config(config.schedule)
        weight = next(next(iter(networks.values())).parameters())
        self.device, self.dtype = weight.device, computing_type(weight.device, weight.dtype)
        self.networks = {part: cast_when_used(network, self.dtype) for part, network in networks.items()}

    @property
    def unet(self) -> UNet:
        return self._network("unet")

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> ``[B, 77 n, context_dim]``; n is 1 unless a prompt has more than 75 tokens.

        Raises:
            CheckpointError: the file has no text encoder.
        """
        encoder = self._network("text_encoder")
        if isinstance(prompts, str):
            raise TypeError(f"encode_text takes a list of prompts; {prompts!r} is one prompt: put it in a list.")
        tokens = tokenize(prompts, self.config.text_encoder.context_length)
        return encoder(tokens.to(self.device))

    @torch.inference_mode()
    def encode_image(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]`` in [-1, 1], of any size -> image tokens ``[B, queries, context_dim]``.

        Raises:
            ValueError: pictures of another shape.
            CheckpointError: the file has no image encoder or no projector, as those of text-to-video models.
        """
        encoder, projector = self._network("image_encoder"), self._network("projector")
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ValueError(f"pictures has the shape {tuple(pictures.shape)}; expected is [B, 3, H, W], in [-1, 1].")
        pixels = prepare_pictures(pictures.to(self.device), encoder.config.image_size)
        return projector(encoder(pixels.to(self.dtype)))

    @torch.inference_mode()
    def embed_image(self, pictures: Tensor) -> Tensor:
        """CLIP's embedding of pictures ``[B, 3, H, W]`` in [-1, 1] -> ``[B, embed_dim]``, for comparing them by their cosine.

        Raises:
            CheckpointError: the file has no image encoder.
        """
        encoder = self._network("image_encoder")
        pixels = prepare_pictures(pictures.to(self.device), encoder.config.image_size)
        return encoder.embed(pixels.to(self.dtype)).float()

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames ``[B, 3, T, H, W]`` in [-1, 1] -> latents ``[B, C, T, h, w]`` in the diffusion's scale (the posterior's mean).

        Raises:
            ValueError: H or W is no multiple of the autoencoder's downscaling.
            CheckpointError: the file has no autoencoder.
        """
        autoencoder = self._network("autoencoder")
        self._check_size(*frames.shape[-2:])
        moments = self._each_frame(autoencoder.encode, frames, pixels=frames.shape[-2] * frames.shape[-1])
        return moments[:, : self.config.autoencoder.embed_dim] * self.config.autoencoder.scale_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[B, C, T, h, w]`` in the diffusion's scale -> frames ``[B, 3, T, H, W]`` in [-1, 1], in float32.

        Raises:
            CheckpointError: the file has no autoencoder.
        """
        autoencoder = self._network("autoencoder")
        pixels = latents.shape[-2] * latents.shape[-1] * self.config.downscale**2
        frames = self._each_frame(autoencoder.decode, latents / self.config.autoencoder.scale_factor, pixels)
        return frames.float().clamp(-1, 1)

    @torch.inference_mode()
    def text_to_video(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] = "",
        frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        steps: int = 50,
        eta: float = 1.0,
        guidance_scale: float = 12.0,
        guidance_rescale: float = 0.0,
        fps: float | None = None,
        seed: int = 0,
        x_T: Tensor | None = None,
        step_noise: Iterable[Tensor] | None = None,
        callback: Callback | None = None,
        temporal_guidance_scale: float = 0.0,
        spacing: str | None = None,
        deep_cache_interval: int = 1,
        deep_cache_blocks: int = 3,
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
            seed: of :func:`vc_core.diffusion.samplers.seeded_noise`.
            x_T: the start ``[B, C, T, h, w]`` in place of the seed's; it also decides the size.
            step_noise: the noise of each step, of the start's shape, in place of the seed's.
            callback: called after each step, see :data:`vc_core.diffusion.samplers.Callback`.
            temporal_guidance_scale: how far to push away from the prediction without temporal attention.
            spacing: of the timesteps, ``uniform`` or ``uniform_trailing``; the configuration's where not given.
            deep_cache_interval: every how many steps the deep blocks run; 1 is every step. See :class:`DeepCache`.
            deep_cache_blocks: how many of the first and of the last blocks run at every step.

        Returns:
            ``[B, 3, T, H, W]`` in [-1, 1].

        Raises:
            ValueError: a size, a count or a scale that can't be; tensors that don't fit.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = _one_each(negative_prompt, len(prompts))
        if self.config.unet.image_attention:
            raise ValueError(f"{self.config.title} makes videos from a picture: use image_to_video.")
        run = _Run(
            frames, height, width, steps, eta, fps, seed, x_T, step_noise, callback, spacing, deep_cache_interval, deep_cache_blocks
        )
        guidance = Guidance(guidance_scale, guidance_rescale, temporal_guidance_scale)
        return self._sample(prompts, negatives, None, guidance, run)

    @torch.inference_mode()
    def image_to_video(
        self,
        image: Tensor,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] = "",
        frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        steps: int = 50,
        eta: float = 1.0,
        guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        fps: float | None = None,
        seed: int = 0,
        x_T: Tensor | None = None,
        step_noise: Iterable[Tensor] | None = None,
        callback: Callback | None = None,
        temporal_guidance_scale: float = 0.0,
        spacing: str | None = None,
        end_image: Tensor | None = None,
        loop: bool = False,
        image_guidance_scale: float | None = None,
        deep_cache_interval: int = 1,
        deep_cache_blocks: int = 3,
    ) -> Tensor:
        """Make clips that keep to a picture, with DDIM. The negative is the empty, mid-grey picture, as the authors have it.

        Args:
            image: ``[B, 3, H, W]`` in [-1, 1], or ``[3, H, W]``, of any size: several pictures make several clips.
            prompt: one prompt for all of them, or one each.
            guidance_scale, guidance_rescale: the configuration's where not given.
            end_image: the pictures that the clips end with, of ``image``'s shape, for models that take them (interpolation).
            loop: end with the picture that the clip starts with.
            image_guidance_scale: how strongly the picture is followed, where that is to differ from ``guidance_scale``, which
                is then that of the text; it takes a third pass at each step.

        The other arguments, the result and the errors are those of :meth:`text_to_video`.
        """
        if not self.config.unet.image_attention:
            raise ValueError(f"{self.config.title} takes no picture: use text_to_video, or load an image-to-video model.")
        first = image[None] if image.ndim == 3 else image
        last = self._last_picture(first, end_image, loop)
        tokens = self.encode_image(first)
        empty = self.encode_image(torch.zeros_like(first[:1])).expand_as(tokens)
        prompts, negatives = _one_each(prompt, len(first)), _one_each(negative_prompt, len(first))
        run = _Run(
            frames, height, width, steps, eta, fps, seed, x_T, step_noise, callback, spacing, deep_cache_interval, deep_cache_blocks
        )
        settings = self.config.sampling
        guidance = Guidance(
            settings.guidance_scale if guidance_scale is None else guidance_scale,
            settings.guidance_rescale if guidance_rescale is None else guidance_rescale,
            temporal_guidance_scale,
            image_guidance_scale,
        )
        return self._sample(prompts, negatives, _Pictures(tokens, empty, first, last), guidance, run)

    def _last_picture(self, first: Tensor, end_image: Tensor | None, loop: bool) -> Tensor | None:
        """What a clip ends with, if it is to end with a picture.

        Raises:
            ValueError: the model wasn't made for that, or for anything else; or the pictures' numbers differ.
        """
        if loop and end_image is not None:
            raise ValueError("A loop ends with the picture it starts with: give loop=True or an end_image, not both.")
        title, known = self.config.title, self.config.keyframes
        if (loop or end_image is not None) and "ends" not in known:
            raise ValueError(f"{title} can't end a clip with a picture: load a model for interpolation, or leave end_image and loop out.")
        if loop:
            return first
        if end_image is None:
            if known and "first" not in known:
                raise ValueError(f"{title} joins two pictures: give end_image, or loop=True.")
            return None
        last = end_image[None] if end_image.ndim == 3 else end_image
        if len(last) != len(first):
            raise ValueError(f"There are {len(first)} pictures to start from and {len(last)} to end with; give as many of both.")
        return last

    def keyframe_latents(self, first: Tensor, last: Tensor | None, frames: int, height: int, width: int) -> Tensor:
        """What the input channels beside the noisy latent get: pictures ``[B, 3, H, W]`` in [-1, 1] -> ``[B, C, T, h, w]``.

        One picture stands at every frame; of two, one at the first frame and one at the last, with zeros between
        (DynamiCrafter, arXiv:2310.12190, section 3.2).
        """
        start = self.encode(fit_picture(first, height, width)[:, :, None])
        if last is None:
            return start.expand(-1, -1, frames, -1, -1)
        if frames < 2:
            raise ValueError(f"frames is {frames}; a clip between two pictures has at least 2.")
        between = torch.zeros_like(start).expand(-1, -1, frames - 2, -1, -1)
        return torch.cat([start, between, self.encode(fit_picture(last, height, width)[:, :, None])], dim=2)

    def _sample(
        self,
        prompts: list[str],
        negatives: list[str],
        pictures: _Pictures | None,
        guidance: Guidance,
        run: _Run,
    ) -> Tensor:
        settings = self.config.sampling
        height = settings.height if run.height is None else run.height
        width = settings.width if run.width is None else run.width
        shape = self._latent_shape(len(prompts), run.frames, height, width)
        if run.x_T is not None:
            if run.x_T.ndim != 5 or run.x_T.shape[:2] != shape[:2]:
                raise ValueError(f"x_T has the shape {tuple(run.x_T.shape)}; expected is [{shape[0]}, {shape[1]}, T, h, w].")
            shape = tuple(run.x_T.shape)
        if run.fps is not None and not run.fps > 0:
            raise ValueError(f"fps is {run.fps}; it must be more than 0.")
        if run.deep_cache_interval < 1:
            raise ValueError(f"deep_cache_interval is {run.deep_cache_interval}; it must be at least 1, which is every step.")
        noise = seeded_noise(shape, run.seed)
        # The seed's start is drawn even when one is given, so that the noise of the steps stays the same.
        start = next(noise)
        x = (start if run.x_T is None else run.x_T).to(self.device, torch.float32)
        if run.step_noise is not None:
            noise = chain(_checked(run.step_noise, shape), _exhausted())

        tables = DDIMTables.make(self.schedule, self.schedule.spaced(run.steps, run.spacing or settings.spacing), run.eta)
        fps = run.fps if run.fps is not None else self.config.unet.default_fps
        rates = torch.full((len(prompts),), float(fps), device=self.device)
        positive = Conditioning(self.encode_text(prompts), fps=rates)
        negative = Conditioning(self.encode_text(negatives), fps=rates)
        if pictures is not None:
            positive, negative = replace(positive, image_tokens=pictures.tokens), replace(negative, image_tokens=pictures.empty_tokens)
            if self.config.unet.concat_channels:
                factor = self.config.downscale
                concat = self.keyframe_latents(pictures.first, pictures.last, shape[2], shape[3] * factor, shape[4] * factor)
                positive, negative = replace(positive, concat=concat), replace(negative, concat=concat)
        deep_cache = DeepCache(run.deep_cache_interval, run.deep_cache_blocks) if run.deep_cache_interval > 1 else None
        denoise = guided_denoiser(self.unet, positive, negative, guidance, self.dtype, deep_cache=deep_cache)
        return self.decode(ddim_sample(denoise, x, tables, noise, run.callback))

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

    def _network(self, part: str) -> Any:
        if part not in self.networks:
            name = part.replace("_", " ")
            raise CheckpointError(
                f"This file has no {name} (no tensors under {PREFIXES[part]!r}): load one that has, such as the published checkpoint."
            )
        return self.networks[part]

    def _each_frame(self, network: Callable[[Tensor], Tensor], video: Tensor, pixels: int) -> Tensor:
        """Run a network over all frames, a few at a time."""
        flat = rearrange(video.to(self.device, self.dtype), "b c t h w -> (b t) c h w")
        at_once = PIXELS_AT_ONCE
        if self.device.type == "cuda":
            taken = numbers_per_pixel(self.config.autoencoder) * self.dtype.itemsize
            at_once = int(SHARE * free_memory(self.device) / taken)
        out = torch.cat([network(piece) for piece in flat.split(max(1, at_once // pixels))])
        return rearrange(out, "(b t) c h w -> b c t h w", t=video.shape[2])


def load(
    path: str | os.PathLike[str],
    config: ConfigLike | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VideoModel:
    """Load a model from a file.

    Args:
        path: a ``.safetensors`` or ``.ckpt`` file, or the name of a bundled model.
        config: a path or mapping in the format of ``configs/``, for what a file's tensors don't tell.
        device: where the weights go.
        dtype: what they are kept in, and computed in where the device can, see :func:`vc_core.kernels.casting.computing_type`.

    Raises:
        CheckpointError: as :meth:`vc_core.family.model_file.ModelFile.open`.
    """
    file = ModelFile.open(path, config)
    networks: dict[str, Any] = {part: file.load(part, device, dtype) for part in file.parts}
    return VideoModel(file.config, networks)


def _one_each(prompts: str | Sequence[str], count: int) -> list[str]:
    given = [prompts] * count if isinstance(prompts, str) else list(prompts)
    if len(given) != count:
        raise ValueError(f"There are {count} clips to make and {len(given)} prompts for them; give one, or one each.")
    return given


def _checked(step_noise: Iterable[Tensor], shape: Sequence[int]) -> Iterator[Tensor]:
    for index, noise in enumerate(step_noise):
        if tuple(noise.shape) != tuple(shape):
            raise ValueError(f"step_noise[{index}] has the shape {tuple(noise.shape)}; expected is {tuple(shape)}, that of the start.")
        yield noise


def _exhausted() -> Iterator[Tensor]:
    raise ValueError("step_noise has fewer tensors than the run has steps; one a step is needed.")
    yield  # makes this a generator, so that the error comes when the noise runs out
