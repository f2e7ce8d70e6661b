"""IMAGE in ComfyUI and images in the core: checked, encoded by CLIP_VISION, and as latents for concat channels.

An IMAGE is ``[B, H, W, C]`` in [0, 1]; the core's images are ``[B, 3, H, W]`` in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...vc_core.media.images import check_finite, fit_image
from ...vc_core.models.conditioning import place_keyframes
from ...vc_core.models.image_encoder import prepare_images
from .frames import frames_per_video, unfold


def image_features(encoder: Any, images: Tensor) -> Tensor:
    """The image tower's features as in the authors' code: of the stretched image, the last layer's tokens before the norm.

    Args:
        encoder: a CLIP_VISION.
        images: an IMAGE ``[B, H, W, C]`` in [0, 1], see :func:`rgb_images`.

    Returns:
        ``[B, 1 + patches, width]``.

    Raises:
        ValueError: another number of channels.
    """
    return _run_tower(encoder, rgb_images(images) * 2 - 1)[0].to(comfy.model_management.intermediate_device())


def check_count(images: Tensor, latent: dict[str, Any]) -> int:
    """The number of videos of a LATENT.

    Raises:
        ValueError: another number of images than 1 or that of the videos.
    """
    videos = len(latent["samples"]) // frames_per_video(latent)
    if len(images) not in (1, videos):
        raise ValueError(
            f"There are {len(images)} images for {videos} video{'s' * (videos > 1)}: connect one image (ImageFromBatch takes one out of a "
            f"video), or make the latent with batch_size {len(images)}."
        )
    return videos


def keyframe_latents(vae: Any, first: Tensor, last: Tensor | None, latent: dict[str, Any]) -> Tensor:
    """The latents of images for a model's concat channels (see :func:`vc_core.models.conditioning.place_keyframes`), in the VAE's scale.

    Args:
        vae: a VAE.
        first: an IMAGE, one image or one per video.
        last: likewise, the last images; None if the videos don't end with an image.
        latent: the LATENT to be sampled, which sets size and number of frames.

    Returns:
        Without last images, which all frames have in common, a row for each image, ``[B, C, h, w]``; with them a row for each frame,
        ``[videos * T, C, h, w]``.

    Raises:
        ValueError: another number of images than 1 or that of the videos; two images for videos of one frame.
    """
    frames = frames_per_video(latent)
    videos = check_count(first, latent)
    height, width = (side * vae.downscale_ratio for side in latent["samples"].shape[2:])

    def encoded(images: Tensor) -> Tensor:
        """``[B, C, 1, h, w]``."""
        fitted = fit_image(rgb_images(images), height, width)
        return vae.encode(fitted.movedim(1, -1))[:, :, None]

    if last is None:
        return encoded(first)[:, :, 0]
    return unfold(place_keyframes(encoded(first), encoded(last), frames)).repeat(videos // len(first), 1, 1, 1)


def frame_latents(vae: Any, images: Tensor, others: Mapping[int, Tensor | None], latent: dict[str, Any]) -> Tensor:
    """The latents of an image for each frame, in the VAE's scale, ``[videos * T, C, h, w]``.

    Args:
        images: an IMAGE with a row for each frame of the LATENT to be sampled.
        others: images in place of some frames of each video, one for all videos or one each, by the frame's number; None: none.

    Raises:
        ValueError: another number of images.
    """
    count, frames = len(latent["samples"]), frames_per_video(latent)
    if len(images) != count:
        wanted = f"{count}" if frames == count else f"{count // frames} videos of {frames}"
        raise ValueError(
            f"There are {len(images)} images for a latent of {wanted} frames: there must be an image for every frame. Set length of Empty "
            f"VideoCrafter Latent to {len(images)}, or take as many images as frames (ImageFromBatch)."
        )
    height, width = (side * vae.downscale_ratio for side in latent["samples"].shape[2:])
    fitted = fit_image(rgb_images(images), height, width)
    for place, other in others.items():
        if other is not None:
            check_count(other, latent)
            fitted = fitted.clone()
            fitted[place::frames] = fit_image(rgb_images(other), height, width)
    encoded: Tensor = vae.encode(fitted.movedim(1, -1))
    return encoded


def image_embeddings(encoder: Any, images: Tensor) -> Tensor:
    """CLIP's embeddings ``[B, d]`` of images ``[B, 3, H, W]`` in [-1, 1], prepared as in the authors' code."""
    return _run_tower(encoder, images)[2].float()


def frames_for(vae: Any, latent: dict[str, Any]) -> Tensor:
    """The frames ``[T, C, h, w]`` of a LATENT, checked before a VAE decodes them.

    Raises:
        ValueError: there are no frames, or they have another number of channels.
    """
    samples: Tensor = latent["samples"]
    channels = vae.latent_channels
    if samples.ndim != 4 or samples.shape[1] != channels or not samples.numel():
        raise ValueError(
            f"The latent has the shape {list(samples.shape)}; this VAE decodes frames [frames, {channels}, height, width], at least one. "
            "Connect the VAE of the model that made the latent, and a latent with frames in it."
        )
    return samples


def rgb_images(images: Tensor) -> Tensor:
    """An IMAGE ``[B, H, W, C]``, see :func:`rgb_frames` -> ``[B, 3, H, W]`` in the same range, in float32."""
    return rgb_frames(images).float().movedim(-1, 1)


def rgb_frames(images: Tensor) -> Tensor:
    """An IMAGE ``[B, H, W, C]``, C being 1 (grey), 3 or 4 (alpha is dropped) -> ``[B, H, W, 3]``, without a copy.

    Raises:
        ValueError: an empty IMAGE, one of another shape, data type or number of channels, or with values that are no numbers.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"The image is of the type {type(images).__name__}: connect the image of a loading or decoding node.")
    if images.ndim != 4 or not images.numel() or not images.is_floating_point():
        raise ValueError(
            f"The image has the shape {list(images.shape)} in {images.dtype}; [images, height, width, channels] in a floating point type "
            "is needed, with at least one pixel. Connect the image of a loading or decoding node."
        )
    channels = images.shape[-1]
    if channels not in (1, 3, 4):
        raise ValueError(f"The image has {channels} channels; 1 (grey), 3 (RGB) or 4 (RGBA) are possible. Connect such an image.")
    check_finite(images, "images")
    return images[..., :3].expand(*images.shape[:-1], 3)


def one_batch(images: Sequence[Tensor]) -> Tensor:
    """Images as one IMAGE, in their order; those of another size are scaled and cropped to the first one's, as Batch Images does."""
    if len(images) == 1:
        return images[0]
    rgb = [rgb_images(each) for each in images]
    height, width = rgb[0].shape[2:]
    fitted = [comfy.utils.common_upscale(each, width, height, "bilinear", _crop(each, width, height)) for each in rgb]
    return torch.cat(fitted).movedim(1, -1)


def _crop(images: Tensor, width: int, height: int) -> str:
    """How core fits images ``[n, 3, H, W]``: cut at the centre, but for those of a few pixels, of which its cut leaves none."""
    tall, wide = images.shape[2:]
    cut_x, cut_y = max(0, round((wide - tall * width / height) / 2)), max(0, round((tall - wide * height / width) / 2))
    return "center" if wide > 2 * cut_x and tall > 2 * cut_y else "disabled"


def _run_tower(encoder: Any, images: Tensor) -> tuple[Tensor, ...]:
    comfy.model_management.load_model_gpu(encoder.patcher)
    pixels = prepare_images(images.to(encoder.load_device), encoder.image_size)
    return encoder.model(pixel_values=pixels, intermediate_output=-2)
