"""The loss of a pass on clips from the cache, as DynamiCrafter is trained (arXiv:2310.12190; facts from its published code).

Random numbers of a pass, all from its generator, in this order: for each clip its stride and its start; where the model starts
from an image, the frame that is the image, one for the whole pass; the posterior's noise; the timesteps; the noise; and one number
for each clip that decides what of its conditioning is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..config import ModelConfig
from ..models.conditioning import Conditioning, place_keyframes
from .cache import FEATURES, MOMENTS, TEXT
from .clips import Clip
from .loss import Batch, DiffusionLoss
from .plan import Plan
from .posterior import posterior_sample
from .strides import Frames, StrideSettings, draw_frames, draw_stride
from .trainer import Pass

#: What the model's fps condition is: the frames per second, or, in DynamiCrafter 256, the stride.
CONDITIONS = ("fps", "stride")


class ClipLoss:
    """The loss of one pass of :class:`.trainer.Trainer`.

    Args:
        clips: the set's; ``plan`` numbers them.
        empty: of one video: the text "" and, where the model has an image encoder, the features of the empty image.
        condition: one of :data:`CONDITIONS`.
    """

    def __init__(
        self, config: ModelConfig, clips: Sequence[Clip], plan: Plan, loss: DiffusionLoss, strides: StrideSettings, empty: Conditioning,
        condition: str = "fps", device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.clips, self.plan, self.loss = config, clips, plan, loss
        self.strides, self.empty, self.condition, self.device = strides, empty, condition, torch.device(device)

    def __call__(self, network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        samples = self.plan.samples(run.number)
        batch = self.batch([self.clips[sample.clip] for sample in samples], run.generator)
        return self.loss(network, batch, run.generator), {"epoch": samples[-1].epoch + 1.0}

    def batch(self, clips: Sequence[Clip], generator: torch.Generator) -> Batch:
        """Draw and read the samples of some clips of one bucket."""
        frames = [self._draw(clip, generator) for clip in clips]
        place = self._draw_place(clips[0].count, generator)
        read = [self._read(clip, each, place) for clip, each in zip(clips, frames, strict=True)]
        moments = torch.stack([each for each, _ in read]).transpose(1, 2)  # [B, 2 C, T, h, w]
        noise = torch.randn(moments[:, : moments.shape[1] // 2].shape, generator=generator)
        latents = (posterior_sample(moments, noise) * self.config.autoencoder.scale_factor).to(self.device)
        text = Conditioning.stack(*(Conditioning(load_file(clip.text)[TEXT][None]) for clip in clips)).text.to(self.device)
        features = torch.stack([each for _, each in read if each is not None]).to(self.device) if read[0][1] is not None else None
        rates = [each.fps if self.condition == "fps" else each.stride for each in frames]
        fps = torch.tensor(rates, dtype=torch.float32, device=self.device)
        conditioning = Conditioning(text, features, fps=fps, concat=self._concat(latents, place))
        empty = self.empty.text.to(self.device)
        images = None if self.empty.image_tokens is None else self.empty.image_tokens.to(self.device)
        return Batch(latents, conditioning, Conditioning(empty.repeat(1, text.shape[1] // empty.shape[1], 1), images))

    def _draw(self, clip: Clip, generator: torch.Generator) -> Frames:
        def draw(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=generator))

        if clip.count == 1:
            return Frames(draw(0, clip.frames - 1) if clip.frames > 1 else 0, 1, 1, self.config.unet.default_fps)
        found = draw_frames(self.strides, draw_stride(self.strides, draw), clip.frames, clip.fps, clip.count, draw)
        assert found is not None  # clips that are too short are not in the set
        return found

    def _draw_place(self, count: int, generator: torch.Generator) -> int | None:
        """The frame that is the image; None where the first and the last are, between which the model interpolates."""
        if not self.config.unet.image_attention:
            return 0
        ends = "ends" in self.config.keyframes
        if ends and "first" in self.config.keyframes:  # the model can do both: each as often
            ends = bool(torch.randint(0, 2, (), generator=generator))
        if ends and count > 1:
            return None
        return int(torch.randint(0, count, (), generator=generator))

    def _read(self, clip: Clip, frames: Frames, place: int | None) -> tuple[Tensor, Tensor | None]:
        """Moments of the frames ``[T, 2 C, h, w]``, and the features of the image ``[n, width]``."""
        with safe_open(clip.latents, "pt") as file:
            stop = frames.start + (frames.count - 1) * frames.stride + 1
            moments: Tensor = file.get_slice(MOMENTS)[frames.start : stop][:: frames.stride]
            if FEATURES not in file.keys():  # noqa: SIM118  # the file is no mapping
                return moments, None
            image = frames.start + (place or 0) * frames.stride
            return moments, file.get_slice(FEATURES)[image : image + 1][0].float()

    def _concat(self, latents: Tensor, place: int | None) -> Tensor | None:
        if not self.config.unet.concat_channels:
            return None
        if place is None:
            return place_keyframes(latents[:, :, :1], latents[:, :, -1:], latents.shape[2])
        return place_keyframes(latents[:, :, place : place + 1], None, latents.shape[2])
