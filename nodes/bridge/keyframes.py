"""The images in a conditioning: whether a model takes them, and their latents for the model's concat channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.utils
from torch import Tensor

from ...vc_core.config import ModelConfig

#: Conditioning key: the image tower's features of each video's image ``[B, n, width]``.
FEATURES_KEY = "image_features"
#: Conditioning key: an :class:`ImagePlace`.
PLACE_KEY = "videocrafter_image_place"
#: The node for models that start with an image.
IMAGE_NODE = "VideoCrafter Image to Video"
#: Conditioning key: the latents of images, in the VAE's scale. A row for each video, or, where the frames differ, for each frame.
#: Core's image-to-video models use it too.
KEYFRAMES_KEY = "concat_latent_image"


@dataclass(frozen=True)
class ImagePlace:
    """Where a conditioning's images are in their videos."""

    #: One of :data:`vc_core.config.KEYFRAMES`.
    at: str
    #: Frames of each video; None: the images serve any number.
    frames: int | None = None


def check_place(config: ModelConfig, values: Mapping[str, Any]) -> None:
    """Check that a model takes a conditioning's images where they are.

    Args:
        values: the conditioning's values by key.

    Raises:
        ValueError: an image for a text-to-video model, an image-to-video model without one, or images at frames where it has none.
    """
    place = None
    if values.get(FEATURES_KEY) is not None:
        # Another pack's node doesn't say: it counts as a place that the model has.
        place = values[PLACE_KEY].at if PLACE_KEY in values else next(iter(config.keyframes), "first")
    node = {("ends",): "VideoCrafter Interpolation", ("frames",): "VideoCrafter Frames to Video"}.get(tuple(config.keyframes), IMAGE_NODE)
    title = config.title
    problems = {
        "no image taken": f"{title} takes no image: use VideoCrafter Conditioning in place of the node that takes the image, or load an "
        "image-to-video model, such as i2v_512_v1.",
        "no image given": f"{title} makes videos from an image, but the {values.get('prompt_type', '')} conditioning has none: send "
        f"positive and negative through {node}. For text to video load a text-to-video model, such as t2v_512_v2.",
        "no end taken": f"{title} can't end a video with an image: use {node}, or load DynamiCrafter's interpolation model, "
        "dynamicrafter_512_interp_v1 (if this file is that model, choose it in the loader's model).",
        "no end given": f"{title} joins two images: use {node} (without end_image it makes a loop), or load an image-to-video model, such "
        "as dynamicrafter_512_v1.",
        "no frames taken": f"{title} takes no image for every frame: use {node}, or load ViewCrafter (if this file is one, "
        "choose viewcrafter_25_v1 or viewcrafter_25_512_v1 in the loader's model).",
        "no frames given": f"{title} takes an image for every frame: use VideoCrafter Frames to Video.",
    }
    if problem := config.image_problem(place):
        raise ValueError(problems[problem])


def scaled_to(latents: Tensor, noise: Tensor) -> Tensor:
    """Latents of images in the size of the video that is sampled, which an upscaling node may have changed.

    Args:
        latents: ``[rows, C, h, w]``.
        noise: ``[frames, C, H, W]``.

    Raises:
        ValueError: other channels, or another aspect, such as that of a tile: latents of the whole image don't belong to a part of it.
    """
    (channels, height, width), (*_, tall, wide) = latents.shape[1:], noise.shape
    if channels != noise.shape[1] or abs(height * wide / width - tall) >= 1:
        raise ValueError(
            f"The image's latents have the shape {list(latents.shape)} and the video's {list(noise.shape)} (frames, channels, height, "
            "width): another size of the same aspect is scaled, but a tile or another aspect needs an image of its own. Connect the latent "
            "that is sampled to the node that takes the image."
        )
    if (height, width) == (tall, wide):
        return latents
    return comfy.utils.common_upscale(latents, wide, tall, "bilinear", "disabled")


def latents_of_frames(latents: Tensor, place: ImagePlace | None, batch: int, frames: int) -> Tensor:
    """The latents of a conditioning's images with a row for each frame, ``[batch, C, h, w]``.

    Args:
        latents: ``[rows, C, h, w]``, see :data:`KEYFRAMES_KEY`.
        place: None where another pack's node made the latents.
        batch: frames that are sampled, of all videos.
        frames: frames of each video.

    Raises:
        ValueError: latents that differ between frames, made for another number of frames.
    """
    rows = len(latents)
    own = None if place is None else place.frames
    if own and (own, rows) != (frames, batch):
        raise ValueError(
            f"The images of the conditioning are placed in {_videos(own, rows)}, but {_videos(frames, batch)} are sampled: connect the "
            "latent that is sampled to the node that takes the images."
        )
    if rows != 1 and rows * frames not in (batch, batch * frames):
        raise ValueError(
            f"The conditioning has {rows} latents of images for {_videos(frames, batch)}: there can be one for all, one for each video, or "
            "one for each frame."
        )
    return latents.repeat_interleave(batch // rows, dim=0)


def _videos(frames: int, batch: int) -> str:
    return f"{frames} frames" if frames == batch else f"{batch // frames} videos of {frames} frames"
