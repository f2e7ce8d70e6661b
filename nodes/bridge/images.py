"""IMAGE in ComfyUI and images in the core: checked, encoded by CLIP_VISION, and as latents for concat channels.

An IMAGE is ``[B, H, W, C]`` in [0, 1]; the core's images are ``[B, 3, H, W]`` in [-1, 1].
"""

from __future__ import annotations

from typing import Any

import comfy.model_management
from torch import Tensor

from ...vc_core.media.images import fit_image
from ...vc_core.models.conditioning import place_keyframes
from ...vc_core.models.image_encoder import prepare_images
from .frames import frames_per_video, unfold


def image_features(encoder: Any, images: Tensor) -> Tensor:
    """The image tower's features as the authors take them: the whole picture, stretched, and the last layer's tokens before the norm.

    Args:
        encoder: a CLIP_VISION.
        images: an IMAGE ``[B, H, W, C]`` in [0, 1], as :func:`rgb_images` takes it.

    Returns:
        ``[B, 1 + patches, width]``.

    Raises:
        ValueError: another number of channels.
    """
    return _run_tower(encoder, rgb_images(images) * 2 - 1)[0].to(comfy.model_management.intermediate_device())


def keyframe_latents(vae: Any, first: Tensor, last: Tensor | None, latent: dict[str, Any]) -> Tensor:
    """The latents that a model's input channels get of pictures (see :meth:`vc_core.pipeline.VideoModel.keyframe_latents`).

    Args:
        vae: a VAE.
        first: an IMAGE, one picture or one a video.
        last: likewise, for videos that are to end with a picture.
        latent: the LATENT that is sampled, whose size and frames they get.

    Returns:
        ``[videos * T, C, h, w]`` as the VAE gives them, or ``[T, C, h, w]`` where there is one picture.

    Raises:
        ValueError: two pictures for videos of one frame.
    """
    frames = frames_per_video(latent)
    height, width = (side * vae.downscale_ratio for side in latent["samples"].shape[2:])

    def encoded(images: Tensor) -> Tensor:
        """``[B, C, 1, h, w]``."""
        fitted = fit_image(rgb_images(images), height, width)
        return vae.encode(fitted.movedim(1, -1))[:, :, None]

    return unfold(place_keyframes(encoded(first), None if last is None else encoded(last), frames))


def image_embeddings(encoder: Any, images: Tensor) -> Tensor:
    """CLIP's embeddings ``[B, d]`` of pictures ``[B, 3, H, W]`` in [-1, 1], prepared as the authors do."""
    return _run_tower(encoder, images)[2].float()


def frames_for(vae: Any, latent: dict[str, Any]) -> Tensor:
    """The frames ``[T, C, h, w]`` of a LATENT that a VAE is to decode.

    Raises:
        ValueError: there are none, or another kind of model made them.
    """
    samples: Tensor = latent["samples"]
    channels = vae.latent_channels
    if samples.ndim != 4 or samples.shape[1] != channels or not samples.numel():
        raise ValueError(
            f"The latent is {list(samples.shape)}, but this VAE decodes frames of {channels} channels, [frames, {channels}, height, "
            "width], at least one. Connect the VAE of the model that made the latent, and a latent with frames in it."
        )
    return samples


def rgb_images(images: Tensor) -> Tensor:
    """An IMAGE ``[B, H, W, C]``, C being 1 (grey), 3 or 4 (the alpha is left out) -> ``[B, 3, H, W]`` in its range, in float32.

    Raises:
        ValueError: there is no picture in it, or it has another type or number of channels.
    """
    if images.ndim != 4 or not images.numel() or not images.is_floating_point():
        raise ValueError(
            f"The picture is {list(images.shape)} of {images.dtype}, but an image is [pictures, height, width, channels] of floating "
            "point numbers and has at least one pixel. Connect one that a loading or decoding node gives."
        )
    channels = images.shape[-1]
    if channels not in (1, 3, 4):
        raise ValueError(f"The picture has {channels} channels; 1 (grey), 3 (RGB) or 4 (RGBA) are possible. Connect such a one.")
    return images[..., :3].float().expand(*images.shape[:-1], 3).movedim(-1, 1)


def _run_tower(encoder: Any, images: Tensor) -> tuple[Tensor, ...]:
    comfy.model_management.load_model_gpu(encoder.patcher)
    pixels = prepare_images(images.to(encoder.load_device), encoder.image_size)
    return encoder.model(pixel_values=pixels, intermediate_output=-2)
