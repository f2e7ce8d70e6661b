"""Optical flow between two frames: OpenCV's DIS, or RAFT where the user has its weights.

DIS: Kroeger et al., Fast Optical Flow using Dense Inverse Search (arXiv:1603.03590). RAFT: Teed and Deng (arXiv:2003.12039), which
VBench and EvalCrafter use; torchvision's implementation and file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import open_checkpoint
from .optional import library

#: Updates of RAFT, as in EvalCrafter.
RAFT_UPDATES = 20
#: Smallest side that RAFT's correlation pyramid takes.
RAFT_SIDE = 128


class Flow(Protocol):
    """Computes the displacement of each pixel of the first frame to its place in the second."""

    tag: str

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Two frames ``[H, W, 3]`` of 8 bits -> ``[H, W, 2]`` in pixels, x before y."""


class DisFlow:
    """OpenCV's DIS with its preset *medium*, on grey frames."""

    tag = "DIS"

    def __init__(self) -> None:
        self._cv2 = library("cv2", "opencv-python-headless")

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        cv2 = self._cv2
        grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (first, second)]
        # DIS has a pyramid of patches, for which small frames are enlarged.
        height, width = grey[0].shape
        scale = max(1, -(-64 // min(height, width)))
        if scale > 1:
            grey = [cv2.resize(each, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) for each in grey]
        flow: np.ndarray = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
        if scale > 1:
            flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / scale
        return flow


class RaftFlow:
    """RAFT in torchvision's form.

    Args:
        network: the network in its evaluation mode.
        tag: "RAFT" for the large one, as published.
    """

    def __init__(self, network: nn.Module, device: torch.device | str = "cpu", tag: str = "RAFT") -> None:
        self.network, self.device, self.tag = network.to(device).eval(), torch.device(device), tag

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> RaftFlow:
        """RAFT with the weights of torchvision's file ``raft_large_C_T_V1`` or another for ``raft_large``.

        Raises:
            CheckpointError: the file can't be read, or holds no such weights.
        """
        from torchvision.models.optical_flow import raft_large

        return cls(load_weights(raft_large(weights=None), path, "torchvision's raft_large"), device)

    @torch.inference_mode()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        height, width = first.shape[:2]
        padded = [max(RAFT_SIDE, -(-side // 8) * 8) - side for side in (height, width)]
        pair = []
        for frame in (first, second):
            image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float().to(self.device) / 127.5 - 1
            pair.append(F.pad(image, (0, padded[1], 0, padded[0]), mode="replicate"))
        flow = self.network(*pair, num_flow_updates=RAFT_UPDATES)[-1][0, :, :height, :width]
        return np.asarray(flow.permute(1, 2, 0).float().cpu().numpy())


def load_weights(network: nn.Module, path: Path, title: str) -> nn.Module:
    """A network with the weights of a file, for inference.

    Raises:
        CheckpointError: the file can't be read, or has other tensors than the network.
    """
    checkpoint = open_checkpoint(path)
    weights = {name: checkpoint.sound_tensor(name) for name in checkpoint.names()}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} doesn't hold the weights of {title}: {first}") from error
    return network.requires_grad_(False).eval()


def warped(image: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image ``[H, W, C]`` read at each pixel's place plus its flow, and whether that place is inside, ``[H, W]``."""
    cv2: Any = library("cv2", "opencv-python-headless")
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32)[None] + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), inside
