"""Optical flow: where each pixel of a frame was in the frame before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

#: DIS matches patches of 8 pixels at several scales; smaller frames are enlarged for it.
SMALLEST_SIDE = 64


def dis_flow(frames: Tensor) -> Tensor:
    """The flow of a clip by OpenCV's DIS (Kroeger et al., arXiv:1603.03590), which needs no network.

    Args:
        frames: ``[T, 3, H, W]`` in [-1, 1], at least 1.

    Returns:
        ``[T - 1, 2, H, W]``: the way (x, y) in pixels from each pixel of frame t + 1 to its place in frame t.

    Raises:
        InputError: OpenCV is not installed, or the frames have another shape.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or not frames.numel():
        raise InputError(f"The frames for the optical flow are {list(frames.shape)}; expected are [T, 3, H, W], at least one.")
    cv2 = _opencv()
    height, width = frames.shape[2:]
    scale = max(1.0, SMALLEST_SIDE / min(height, width))
    size = round(width * scale), round(height * scale)
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pixels = ((frames.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).cpu().numpy()
    grey = [cv2.resize(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_LINEAR) for each in pixels]
    found = torch.zeros(len(frames) - 1, 2, height, width)
    for index in range(len(found)):
        flow = cv2.resize(dis.calc(grey[index + 1], grey[index], None), (width, height), interpolation=cv2.INTER_LINEAR)
        found[index] = torch.from_numpy(flow).movedim(-1, 0)
    return found * torch.tensor([width / size[0], height / size[1]])[:, None, None]


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            f"Optical flow needs OpenCV, which can't be imported ({error}): install it with `pip install opencv-python-headless`, or "
            "connect an optical flow model."
        ) from None
    return cv2
