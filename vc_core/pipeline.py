"""Text and image to video without ComfyUI: a model makes clips."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from .adapters.style import Style
from .diffusion import freeinit, samplers
from .diffusion.deep_cache import DeepCache, check_shallow
from .diffusion.denoiser import GuidedDenoiser
from .diffusion.initial_noise import AnalyticNoise
from .diffusion.noise import Noise, SeededNoise
from .diffusion.samplers import noised
from .errors import InputError
from .media.depth import check_depth, check_depth_count, fit_depth, prepare_depth
from .media.images import check_images, fit_frames, fit_image, last_images
from .models.conditioning import Conditioning, place_keyframes
from .networks import Networks
from .prompt_schedule import Prompt, PromptSchedule, encode_prompt
from .sampling import Sampling, advice, check_size

logger = logging.getLogger(__name__)


class VideoModel(Networks):
    """A model: its networks, and the loop that makes a clip."""

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
        if self.config.unet.takes_depth:
            raise InputError(f"{self.config.title} makes videos from depth maps: use depth_to_video.")
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
    def depth_to_video(
        self,
        depth: Tensor,
        prompt: Prompt,
        negative_prompt: Prompt = "",
        depth_range: str = "clip",
        depth_strength: float | Sequence[float] = 1.0,
        video: Tensor | None = None,
        sampling: Sampling | None = None,
        **settings: object,
    ) -> Tensor:
        """Make clips from a depth map of each frame, for models such as Make-Your-Video.

        Args:
            depth: ``[B, 1, T, H, W]`` or ``[1, T, H, W]``, of any size and range, near being large. They are scaled to cover the video
                and cut at the centre. T is the clip's number of frames.
            depth_range, depth_strength: see :func:`vc_core.media.depth.prepare_depth`.

        The other arguments, the result and the errors are those of :meth:`text_to_video`.
        """
        if not self.config.unet.takes_depth:
            raise InputError(f"{self.config.title} takes no depth maps: load a model that does, such as make_your_video_v1.")
        run, maps = self._settings(sampling, settings, negative_prompt), depth[None] if depth.ndim == 4 else depth
        check_depth(maps, depth_range)
        latents = self._latents(video, run)
        frames, height, width = self._size(run, latents)
        check_depth_count(maps, frames)
        size = height // self.config.downscale, width // self.config.downscale
        antialias = self.config.antialiased_depth
        concat = prepare_depth(fit_depth(maps, *size), *size, depth_range, depth_strength, antialias).to(self.device)
        texts = [encode_prompt(self.encode_text, each, len(maps), frames) for each in (prompt, negative_prompt)]
        both = [Conditioning(text, concat=concat) for text in texts]
        return self.decode(self.sample(both[0], both[1], latents, run))

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
        if run.style_guidance_scale is not None and not any(isinstance(each, Style) for each in run.hooks):
            raise InputError("style_guidance_scale is given, but no style: give the hooks of vc_core.style.style_of, or leave it out.")
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
