"""Motion as it goes through ComfyUI: core's TRACKS, and camera paths."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ...vc_core.control.cameras import CameraPath

#: Core's type of trajectories, which the oldest releases have no class for.
TracksType = io.Custom("TRACKS")
#: A :class:`CameraPath`.
CameraType = io.Custom("VC_CAMERA")


def checked_camera(camera: Any) -> CameraPath:
    """What came by a link of the type VC_CAMERA.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(camera, CameraPath):
        raise ValueError(f"The camera is {type(camera).__name__}: connect the output of VideoCrafter Camera.")
    return camera


def background(image: Tensor, node: type[io.ComfyNode]) -> dict[str, Any]:
    """An IMAGE of one frame as what the drawing widget shows behind its paths: a file in the folder of temporary ones."""
    return {"vc_background": ui.PreviewImage(image, cls=node).as_dict()["images"]}
