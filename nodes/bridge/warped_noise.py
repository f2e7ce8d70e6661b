"""Noise that moves with a clip, as a NOISE; its optical flow is OpenCV's or that of core's optical flow model."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...vc_core.diffusion.noise import SeededNoise
from ...vc_core.diffusion.warped_noise import WarpedNoise
from ...vc_core.media.flow import dis_flow
from ...vc_core.media.images import fit_image
from .frames import fold, frames_per_video, unfold
from .images import rgb_images

#: Pixels a side of a latent pixel.
FACTOR = 8
#: RAFT needs frames of at least this size, in multiples of 8.
SMALLEST_SIDE = 128


class MotionNoise:
    """A NOISE with the core's numbers for a seed, of which a share moves with a clip.

    Attributes:
        seed: also that of the sampler's noise.
        images: the clip, an IMAGE ``[T, H, W, C]`` in [0, 1] of any size, with a frame for each frame of the video.
        strength: see :class:`vc_core.diffusion.warped_noise.WarpedNoise`.
        optical_flow: an OPTICAL_FLOW of core's loader; None for OpenCV's DIS.
    """

    def __init__(self, seed: int, images: Tensor, strength: float, optical_flow: Any = None) -> None:
        self.seed, self.images, self.strength, self.optical_flow = seed, images, strength, optical_flow

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """The noise of a LATENT's frames, ``[n, C, h, w]``. In a batch, all videos move with the clip.

        Raises:
            ValueError: the clip has another number of frames than each video.
        """
        frames = frames_per_video(input_latent)
        if len(self.images) != frames:
            raise ValueError(
                f"The clip has {len(self.images)} frames, but the video has {frames}: there must be a frame of the clip for each. Set "
                "length of VideoCrafter Fit Video, or of Empty VideoCrafter Latent, to the same number."
            )
        shape = fold(input_latent["samples"], frames).shape
        clip = fit_image(rgb_images(self.images) * 2 - 1, FACTOR * shape[3], FACTOR * shape[4])
        flow = dis_flow(clip) if self.optical_flow is None else model_flow(self.optical_flow, clip)
        return unfold(WarpedNoise(SeededNoise(shape, self.seed), flow, self.strength).start)


@torch.inference_mode()
def model_flow(optical_flow: Any, frames: Tensor) -> Tensor:
    """The flow of a clip by core's optical flow model (torchvision's RAFT).

    Args:
        optical_flow: an OPTICAL_FLOW: the model's patcher.
        frames: ``[T, 3, H, W]`` in [-1, 1].

    Returns:
        As :func:`vc_core.media.flow.dis_flow`.
    """
    comfy.model_management.load_models_gpu([optical_flow])
    device = optical_flow.load_device
    height, width = frames.shape[2:]
    scale = max(1.0, SMALLEST_SIDE / min(height, width))
    size = [FACTOR * round(side * scale / FACTOR) for side in (height, width)]
    resized = torch.nn.functional.interpolate(frames.float(), size, mode="bilinear", align_corners=False)
    found = torch.zeros(len(frames) - 1, 2, height, width)
    for index in range(len(found)):
        comfy.model_management.throw_exception_if_processing_interrupted()
        flow = optical_flow.model(resized[index + 1, None].to(device), resized[index, None].to(device))[-1]
        found[index] = torch.nn.functional.interpolate(flow.float(), (height, width), mode="bilinear", align_corners=False)[0].cpu()
    return found * torch.tensor([width / size[1], height / size[0]])[:, None, None]
