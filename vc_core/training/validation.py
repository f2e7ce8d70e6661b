"""Clips that show how far a run is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..media.images import read_image
from ..media.video import save_video
from ..models.conditioning import Conditioning
from ..pipeline import VideoModel
from ..sampling import Sampling
from .clips import ClipSettings
from .options import ValidationSettings
from .trainer import Progress, generator_of


class Validation:
    """Makes the clips, ``samples/UPDATE_NUMBER.mp4``, with the same noise each time.

    Prompts and image are encoded when this is made, so that the encoders needn't stay in memory; the autoencoder must.

    Args:
        model: with all its networks but the UNet.

    Raises:
        InputError: no prompts, or an image that is missing or not wanted.
    """

    def __init__(self, model: VideoModel, settings: ValidationSettings, clips: ClipSettings, folder: Path) -> None:
        self.model, self.settings, self.folder = model, settings, folder
        if not settings.prompts:
            raise InputError("validation.prompts is empty: give the prompts that clips are made of, or set validation.every to 0.")
        wanted = model.config.unet.image_attention
        if bool(settings.image) != wanted:
            needed = "needs one" if wanted else "takes no image"
            raise InputError(f"validation.image is {settings.image!r:.80}; {model.config.title} {needed}.")
        changes: dict[str, Any] = {"steps": settings.steps or None, "seed": settings.seed}
        self.sampling = Sampling.of(model.config, frames=clips.frames, height=clips.height, width=clips.width, **changes)
        folder.mkdir(exist_ok=True)
        self.inputs = [self._encode(prompt, clips) for prompt in settings.prompts]

    def _encode(self, prompt: str, clips: ClipSettings) -> tuple[Conditioning, Conditioning]:
        if not self.settings.image:
            text = self.model.encode_text([prompt, ""])
            return Conditioning(text[:1]), Conditioning(text[1:])
        image = read_image(Path(self.settings.image))[None]
        last = None if self.model.config.image_problem("first") == "" else image  # a loop, for models that only interpolate
        return self.model.image_conditioning(image, last, prompt, "", (clips.frames, clips.height, clips.width))

    def watcher(self, unet: nn.Module, autocast: Callable[[], Any]) -> Callable[[Progress], None]:
        """What a trainer calls after each update."""
        def watch(progress: Progress) -> None:
            if progress.is_main and (progress.update % self.settings.every == 0 or progress.update == progress.updates):
                self.make(unet, progress.update, autocast)
        return watch

    def make(self, unet: nn.Module, update: int, autocast: Callable[[], Any]) -> list[Path]:
        """Make a clip of each prompt with the UNet as it is now, and return the files."""
        was_training = unet.training
        self.model.networks["unet"] = unet.eval()
        paths = []
        try:
            for number, (positive, negative) in enumerate(self.inputs):
                with autocast():
                    latents = self.model.sample(positive, negative, sampling=self.sampling)
                path = self.folder / f"{update:06}_{number}.mp4"
                save_video(self.model.decode(latents)[0], path, self.sampling.playback_fps)
                paths.append(path)
        finally:
            unet.train(was_training)
            torch.manual_seed(generator_of(self.settings.seed).initial_seed() % 2**63)
        return paths
