"""The networks of a model, and what each of them does by itself: texts, images and frames are encoded, and latents decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from .adapters.adapter import Adapter
from .checkpoint.errors import CheckpointError
from .config import ModelConfig
from .decoding import decode_frames, each_frame, in_pieces
from .diffusion.schedule import Schedule
from .errors import InputError
from .family.parts import PARTS
from .kernels.casting import cast_when_used, computing_type
from .media.images import check_images
from .models.autoencoder import Autoencoder
from .models.image_encoder import ImageEncoder, prepare_images
from .models.projector import Projector
from .models.text_encoder import TextEncoder, tokenize
from .models.unet import UNet
from .parallel.split import Split
from .sampling import check_size

Network = TypeVar("Network", bound=nn.Module)


class Networks:
    """A model's networks, and their schedule.

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
