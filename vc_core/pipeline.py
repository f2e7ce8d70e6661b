"""Text and image to video without ComfyUI: a model makes clips."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from .adapters.adapter import Adapter
from .checkpoint.errors import CheckpointError
from .config import ModelConfig
from .decoding import decode_frames, each_frame, in_pieces
from .diffusion import freeinit, samplers
from .diffusion.deep_cache import DeepCache, check_shallow
from .diffusion.denoiser import GuidedDenoiser
from .diffusion.initial_noise import AnalyticNoise
from .diffusion.noise import Noise, SeededNoise
from .diffusion.samplers import noised
from .diffusion.schedule import Schedule
from .errors import InputError
from .family.parts import PARTS
from .kernels.casting import cast_when_used, computing_type
from .media.images import check_images, fit_frames, fit_image, last_images
from .models.autoencoder import Autoencoder
from .models.conditioning import Conditioning, place_keyframes
from .models.image_encoder import ImageEncoder, prepare_images
from .models.projector import Projector
from .models.text_encoder import TextEncoder, tokenize
from .models.unet import UNet
from .parallel.split import Split
from .prompt_schedule import Prompt, PromptSchedule, encode_prompt
from .sampling import Sampling, advice, check_size

Network = TypeVar("Network", bound=nn.Module)
logger = logging.getLogger(__name__)


class VideoModel:
    """A model: its networks, their schedule, and the loop that makes a clip.

    Attributes:
        config: the model's configuration.
        networks: its networks, by the names of :data:`vc_core.family.parts.PARTS`.
        adapters: by name; networks that act on the UNet by hooks.
        device: where it computes.
        split: how the processes of a torchrun share each clip; None: they don't.
        dtype: what it computes in; weights can be stored in a smaller type, see :func:`vc_core.kernels.casting.computing_type`.
    """

    def __init__(self, config: ModelConfig, networks: Mapping[str, nn.Module], adapters: Mapping[str, Adapter] | None = None) -> None:
        self.config = config
        self.schedule = Schedule.from_config(config.schedule)
        weight = next(next(iter(networks.values())).parameters())
        self.device, self.dtype = weight.device, computing_type(weight.device, weight.dtype)
        self.networks = {part: cast_when_used(network, self.dtype) for part, network in networks.items()}
        self.adapters = dict(adapters or {})
        self.split: Split | None = None

    @property
    def unet(self) -> UNet:
        return self._network("unet", UNet)

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> text tokens ``[B, 77 n, context_dim]``; n is 1 unless a prompt has more than 75 tokens.

        Raises:
            CheckpointError: the file has no text encoder.
        """
        if isinstance(prompts, str):
            raise InputError(f"encode_text takes a list of prompts; {prompts!r} is one prompt: put it in a list.")
        encoder = self._network("text_encoder", TextEncoder)
        return encoder(tokenize(prompts, self.config.text_encoder.context_length).to(self.device))

    @torch.inference_mode()
    def encode_image(self, images: Tensor) -> Tensor:
        """Images ``[B, 3, H, W]`` in [-1, 1], of any size -> image tokens ``[B, queries, context_dim]``.

        Raises:
            InputError: images of another shape.
            CheckpointError: the file has no image encoder or no projector, as those of text-to-video models.
        """
        encoder, projector = self._network("image_encoder", ImageEncoder), self._network("projector", Projector)
        return projector(encoder(self._pixels(images)))

    @torch.inference_mode()
    def embed_image(self, images: Tensor) -> Tensor:
        """CLIP's embedding of images ``[B, 3, H, W]`` in [-1, 1] -> ``[B, embed_dim]``, for comparing them by their cosine.

        Raises:
            CheckpointError: the file has no image encoder.
        """
        return self._network("image_encoder", ImageEncoder).embed(self._pixels(images)).float()

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames ``[B, 3, T, H, W]`` in [-1, 1] -> latents ``[B, C, T, h, w]`` in the diffusion's scale (the posterior's mean).

        Raises:
            InputError: frames of another shape or type, or H or W is no multiple of the autoencoder's downscaling.
            CheckpointError: the file has no autoencoder.
        """
        autoencoder = self._network("autoencoder", Autoencoder)
        check_images(frames, "frames", "[B, 3, T, H, W]")
        height, width = frames.shape[-2:]
        check_size(height, width, self.config.downscale)
        moments = each_frame(partial(in_pieces, autoencoder.encode), frames.to(self.device, self.dtype), autoencoder, height * width)
        return moments[:, : self.config.autoencoder.embed_dim] * self.config.autoencoder.scale_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor, references: Tensor | None = None) -> Tensor:
        """Latents ``[B, C, T, h, w]`` in the diffusion's scale -> frames ``[B, 3, T, H, W]`` in [-1, 1], in float32.

        Args:
            references: images ``[B, 3, K, H, W]`` in [-1, 1], for decoders that take features of them from the encoder.

        Raises:
            InputError: references for a decoder that takes none.
            CheckpointError: the file has no autoencoder.
        """
        autoencoder = self._network("autoencoder", Autoencoder)
        channels = self.config.autoencoder.embed_dim
        if latents.ndim != 5 or latents.shape[1] != channels or not latents.shape[2]:
            raise InputError(f"The latents are {list(latents.shape)}; expected are [B, {channels}, T, h, w].")
        z = latents / self.config.autoencoder.scale_factor
        if references is not None:
            if not autoencoder.takes_references:
                raise InputError(f"{self.config.title} decodes frames without reference images: leave references out.")
            features = autoencoder.reference_features(references.to(self.device, self.dtype))
            return autoencoder.decode_video(z.to(self.device, self.dtype), features).float().clamp(-1, 1)
        pixels = latents.shape[-2] * latents.shape[-1] * self.config.downscale**2
        run = partial(decode_frames, autoencoder)
        own = z if self.split is None else self.split.decoding.own(z)
        frames = each_frame(run, own.to(self.device, self.dtype), autoencoder, pixels).float().clamp(-1, 1)
        return frames if self.split is None else self.split.decoding.joined(frames, z.shape[2])

    @torch.inference_mode()
    def text_to_video(
        self,
        prompt: Prompt,
        negative_prompt: Prompt = "",
        video: Tensor | None = None,
        sampling: Sampling | None = None,
        **settings: object,
    ) -> Tensor:
        """Make clips from prompts.

        Args:
            prompt: one prompt, a list for a batch of clips, or a schedule, see :func:`vc_core.prompt_schedule.read_schedule`.
            negative_prompt: likewise; the authors use the empty prompt.
            video: frames ``[B, 3, T, H, W]`` in [-1, 1] to start from, with ``denoise`` below 1; they decide the size.
            sampling: the settings of the run; the model's own if not given.
            settings: changes to the model's own settings by name, see :class:`vc_core.sampling.Sampling`, in place of ``sampling``.

        Returns:
            ``[B, 3, T, H, W]`` in [-1, 1].

        Raises:
            InputError: an invalid setting, or tensors of the wrong shape.
        """
        if self.config.image_problem(None):
            raise InputError(f"{self.config.title} makes videos from an image: use image_to_video.")
        run = self._settings(sampling, settings, negative_prompt)
        latents = self._latents(video, run)
        clips = 1 if isinstance(prompt, (str, PromptSchedule)) else len(prompt)
        texts = [encode_prompt(self.encode_text, each, clips, self._size(run, latents)[0]) for each in (prompt, negative_prompt)]
        return self.decode(self.sample(Conditioning(texts[0]), Conditioning(texts[1]), latents, run))

    @torch.inference_mode()
    def image_to_video(
        self,
        image: Tensor,
        prompt: Prompt,
        negative_prompt: Prompt = "",
        end_image: Tensor | None = None,
        loop: bool = False,
        video: Tensor | None = None,
        sampling: Sampling | None = None,
        **settings: object,
    ) -> Tensor:
        """Make clips from an image. The negative conditioning has an empty (mid-grey) image, as in the authors' code.

        Args:
            image: ``[B, 3, H, W]`` in [-1, 1], or ``[3, H, W]``, of any size: several images make several clips.
            prompt: one prompt for all of them, or one each.
            end_image: the images that the clips end with, as many as ``image``, for models that take them (interpolation).
            loop: end with the image that the clip starts with.

        The other arguments, the result and the errors are those of :meth:`text_to_video`.
        """
        title = self.config.title
        problems = {
            "no image taken": f"{title} takes no image: use text_to_video, or load an image-to-video model.",
            "no end taken": f"{title} can't end a clip with an image: load a model for interpolation, or leave end_image and loop out.",
            "no end given": f"{title} joins two images: give end_image, or loop=True.",
            "no frames given": f"{title} takes an image for every frame: use frames_to_video.",
        }
        if problem := self.config.image_problem("ends" if loop or end_image is not None else "first"):
            raise InputError(problems[problem])
        run = self._settings(sampling, settings, negative_prompt)
        first = image[None] if image.ndim == 3 else image
        check_images(first, "image")
        last = last_images(first, end_image, loop)
        latents = self._latents(video, run)
        positive, negative = self.image_conditioning(first, last, prompt, negative_prompt, self._size(run, latents))
        return self.decode(self.sample(positive, negative, latents, run))

    @torch.inference_mode()
    def frames_to_video(
        self, images: Tensor, prompt: Prompt, negative_prompt: Prompt = "", sampling: Sampling | None = None, **settings: object
    ) -> Tensor:
        """Make clips from an image for every frame, such as the rendered views of ViewCrafter.

        Args:
            images: ``[B, 3, T, H, W]`` in [-1, 1], or ``[3, T, H, W]``; T is the clip's number of frames. The first frames are also
                what the image tokens are made of.

        The other arguments, the result and the errors are those of :meth:`text_to_video`.
        """
        if self.config.image_problem("frames"):
            raise InputError(f"{self.config.title} takes no image for every frame: load such a model, such as viewcrafter_25_v1.")
        run = self._settings(sampling, settings, negative_prompt)
        shown = images[None] if images.ndim == 4 else images
        check_images(shown, "images", "[B, 3, T, H, W]")
        frames, *_ = size = self._size(run, None)
        if shown.shape[2] != frames:
            raise InputError(f"There are images for {shown.shape[2]} frames, but the clip has {frames}: give one for each, or set frames.")
        positive, negative = self.image_conditioning(shown[:, :, 0], None, prompt, negative_prompt, size, shown)
        return self.decode(self.sample(positive, negative, None, run))

    @torch.inference_mode()
    def image_conditioning(
        self,
        first: Tensor,
        last: Tensor | None,
        prompt: Prompt,
        negative_prompt: Prompt,
        size: tuple[int, int, int],
        each: Tensor | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        """The positive and the negative conditioning of clips made from images.

        Args:
            first, last: ``[B, 3, H, W]`` in [-1, 1]; last is None unless the clips end with an image.
            size: frames, height and width of the clips, the latter two in pixels.
            each: ``[B, 3, T, H, W]``, for models with an image for every frame.
        """
        tokens = self.encode_image(first)
        empty = self.encode_image(torch.zeros_like(first[:1])).expand_as(tokens)
        frames, height, width = size
        concat = None
        if each is not None:
            concat = self.encode(fit_frames(each, height, width))
        elif self.config.unet.concat_channels:
            images = [None if each is None else self.encode(fit_image(each, height, width)[:, :, None]) for each in (first, last)]
            concat = place_keyframes(cast(Tensor, images[0]), images[1], frames)
        texts = [encode_prompt(self.encode_text, each, len(first), frames) for each in (prompt, negative_prompt)]
        return Conditioning(texts[0], tokens, concat=concat), Conditioning(texts[1], empty, concat=concat)

    @torch.inference_mode()
    def sample(
        self,
        positive: Conditioning,
        negative: Conditioning,
        latents: Tensor | None = None,
        sampling: Sampling | None = None,
        **settings: object,
    ) -> Tensor:
        """Sample latents, with the authors' sampler.

        Args:
            positive, negative: of B videos; fps and the scales that a distilled model reads are those of the settings where they have none.
            latents: an input video ``[B, C, T, h, w]`` in the diffusion's scale to start from, see ``denoise``. It decides the size.

        Returns:
            ``[B, C, T, h, w]`` in float32, in the diffusion's scale.

        The other arguments and the errors are those of :meth:`text_to_video`.
        """
        run = self._settings(sampling, settings)
        if latents is None and run.denoise < 1:
            raise InputError(f"denoise is {run.denoise:g}, but there is no input video to start from: give one, or leave denoise at 1.")
        if len(negative.text) != len(positive.text):
            raise InputError(f"The negative conditioning is of {len(negative.text)} videos and the positive of {len(positive.text)}.")
        if run.image_guidance_scale is not None and not self.config.unet.image_attention:
            raise InputError(f"{self.config.title} takes no image: leave image_guidance_scale out.")
        for sentence in advice(self.config, run.sampler, run.steps, run.guidance_scale):
            logger.warning(sentence)
        noise = self._noise(run, len(positive.text), latents)
        visited = [
            self.schedule.visited(steps, run.spacing, run.denoise, run.original_steps, run.start_timestep)
            for steps in run.freeinit.steps(run.steps)
        ]
        counts, draws, first_timestep = [len(each) for each in visited], noise.steps(), int(visited[-1][-1])
        by_image = run.image_guidance_scale is not None

        def sample_once(x: Tensor, iteration: int) -> Tensor:
            made = samplers.tables_and_update(run.sampler, self.schedule, visited[iteration], run.eta, by_image=by_image)
            report = freeinit.offset(run.callback, counts, iteration)
            return samplers.denoise(self._denoiser(positive, negative, run), x, *made, draws, report)

        x = noise.start.to(self.device, torch.float32)
        if latents is not None:
            x = noised(latents.to(x), x, self.schedule, first_timestep)
        return freeinit.iterated(sample_once, x, draws, run.freeinit, self.schedule, first_timestep)

    def _denoiser(self, positive: Conditioning, negative: Conditioning, run: Sampling) -> GuidedDenoiser:
        both = [run.conditions(each, self.config.unet) for each in (positive, negative)]
        cache = None
        if run.deep_cache_interval > 1:
            check_shallow(run.deep_cache_blocks, len(self.unet.input_blocks))
            cache = DeepCache(run.deep_cache_interval, run.deep_cache_blocks)
        hooks = [*(adapter.hooks for adapter in self.adapters.values() if adapter.acts_alone), *run.hooks]
        return GuidedDenoiser(self.unet, both[0], both[1], run.guidance, self.dtype, deep_cache=cache, hooks=hooks, split=self.split)

    def _settings(self, sampling: Sampling | None, changes: Mapping[str, object], negative_prompt: Prompt = "") -> Sampling:
        run = Sampling.of(self.config, **changes) if sampling is None else sampling.changed(**changes)
        if negative_prompt and run.guidance_scale == 1 and run.image_guidance_scale is None:
            logger.warning("The CFG scale is 1, at which the negative prompt is not read.")
        return run

    def _latents(self, video: Tensor | None, run: Sampling) -> Tensor | None:
        if video is not None and run.denoise >= 1:
            raise InputError("denoise is 1, which keeps nothing of the input video: set it below 1, such as 0.6.")
        return None if video is None else self.encode(video)

    def _size(self, run: Sampling, latents: Tensor | None) -> tuple[int, int, int]:
        """Frames, height and width of a run's clips, the latter two in pixels."""
        if latents is None and run.noise is None:
            return run.frames, run.height, run.width
        frames, height, width = cast(Tensor, latents if run.noise is None else run.noise.start).shape[2:]
        return frames, height * self.config.downscale, width * self.config.downscale

    def _noise(self, run: Sampling, batch: int, latents: Tensor | None) -> Noise:
        """The noise of a run, of the shape of its latents.

        Raises:
            InputError: noise or input latents of another shape.
        """
        frames, height, width = self._size(run, latents)
        check_size(height, width, self.config.downscale)
        factor = self.config.downscale
        shape = (batch, self.config.unet.out_channels, frames, height // factor, width // factor)
        inputs = {"The noise": None if run.noise is None else run.noise.start, "The input video": latents}
        for name, tensor in inputs.items():
            if tensor is not None and tuple(tensor.shape) != shape:
                raise InputError(f"{name} has the shape {list(tensor.shape)}; expected are latents of {list(shape)}, for {batch} clips.")
        noise = SeededNoise(shape, run.seed) if run.noise is None else run.noise
        if run.initial_noise is None:
            return noise
        run.initial_noise.check(shape)
        return AnalyticNoise(noise, run.initial_noise, self.schedule, run.start_timestep)

    def _pixels(self, images: Tensor) -> Tensor:
        check_images(images)
        encoder = self._network("image_encoder", ImageEncoder)
        return prepare_images(images.to(self.device), encoder.config.image_size).to(self.dtype)

    def _network(self, part: str, kind: type[Network]) -> Network:
        if part not in self.networks:
            known = PARTS[part]
            raise CheckpointError(
                f"This file has no {known.title} (no tensors under {known.prefix!r}): load one that has, such as the published checkpoint."
            )
        return cast(Network, self.networks[part])
