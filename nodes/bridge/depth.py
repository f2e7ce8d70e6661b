"""The depth maps in a conditioning, for models that read them beside the noise (Make-Your-Video)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...vc_core.config import ModelConfig
from ...vc_core.media.depth import fit_depth, prepare_depth

#: Conditioning key: :class:`DepthMaps`.
DEPTH_KEY = "videocrafter_depth"
#: The node that adds them, and the models that take them.
DEPTH_NODE, DEPTH_MODELS = "VideoCrafter Depth to Video", "such as make_your_video_v1"


@dataclass(frozen=True)
class DepthMaps:
    """Depth maps of a batch's frames, as they were given.

    Attributes:
        maps: ``[rows, 1, H, W]`` in any range, near being large; a row for each frame of a video, or of all videos.
        range: one of :data:`vc_core.media.depth.RANGES`.
        strength: of each row.
        size: height and width of the latent that they are for; None where that isn't known.
    """

    maps: Tensor
    range: str
    strength: tuple[float, ...]
    size: tuple[int, int] | None = None

    def latents(self, frames: int, height: int, width: int, antialias: bool) -> Tensor:
        """What the model reads, ``[rows, 1, height, width]``. The range is that of a whole video, also where windows see a part of it.

        Args:
            frames: of each video.
            antialias: see :attr:`vc_core.config.ModelConfig.antialiased_depth`.
        """
        videos = self.maps.unflatten(0, (-1, frames)).movedim(2, 1)
        prepared = prepare_depth(fit_depth(videos, height, width), height, width, self.range, 1.0, antialias)
        return prepared.movedim(1, 2).flatten(0, 1) * self.maps.new_tensor(self.strength)[:, None, None, None]


def check_depth_taken(config: ModelConfig, values: Mapping[str, Any]) -> None:
    """Check that a model takes a conditioning's depth maps, or that it has them if the model needs them.

    Args:
        values: the conditioning's values by key.

    Raises:
        ValueError: depth for a model that takes none, or a model of depth without any.
    """
    given, taken = values.get(DEPTH_KEY) is not None, config.unet.takes_depth
    if given and not taken:
        raise ValueError(
            f"{config.title} ({config.name}) takes no depth maps: load a model that does, {DEPTH_MODELS}, or remove {DEPTH_NODE}. For "
            "other models, a depth ControlNet for Stable Diffusion 2.1 controls each frame."
        )
    if taken and not given:
        raise ValueError(
            f"{config.title} needs depth maps, but the {values.get('prompt_type', '')} conditioning has none: send positive and negative "
            f"through {DEPTH_NODE}."
        )


def depth_latents(config: ModelConfig, depth: DepthMaps, noise: Tensor, frames: int) -> Tensor:
    """What a depth model reads beside its noise, ``[batch, 1, h, w]``.

    Args:
        noise: what is sampled, ``[batch, C, h, w]``.
        frames: of each video.

    Raises:
        ValueError: another number of maps than of frames, or another aspect than that of the latent they were made for, such as a tile.
    """
    batch, rows, (height, width) = len(noise), len(depth.maps), noise.shape[-2:]
    check_rows(rows, batch, frames)
    if depth.size is not None and abs(depth.size[0] * width / depth.size[1] - height) >= 1:
        raise ValueError(
            f"The depth maps are for a latent of {depth.size[1]}x{depth.size[0]}, but one of {width}x{height} is sampled: another size of "
            "the same aspect is possible, a tile or another aspect needs depth maps of its own. Connect the latent that is sampled to "
            f"{DEPTH_NODE}."
        )
    prepared = depth.latents(frames, height, width, config.antialiased_depth)
    return prepared.repeat(batch // rows, 1, 1, 1)


def check_rows(rows: int, batch: int, frames: int) -> None:
    """
    Raises:
        ValueError: another number of depth maps than of the frames of one video, or of all.
    """
    if rows not in (frames, batch):
        videos = f"{frames} frames" if frames == batch else f"{batch // frames} videos of {frames} frames"
        raise ValueError(
            f"There are {rows} depth maps, but the latent has {videos}: there must be a map for each frame. Set length of Empty "
            f"VideoCrafter Latent to {rows}, or fit the depth clip to {frames} frames at the same rate (VideoCrafter Fit Video)."
        )
