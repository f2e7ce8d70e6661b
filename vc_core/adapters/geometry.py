"""Camera poses relative to a frame, rays of pixels, and epipolar lines. Computed in float64.

Poses are 3x4 or 4x4 matrices. World-to-camera takes a point of the world into the camera's coordinates, camera-to-world is its inverse.
Intrinsics are ``[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]`` in pixels of the video.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

#: A translation between two frames that is shorter than this on each axis counts as none.
NO_TRANSLATION = 1e-6


def square(poses: Tensor) -> Tensor:
    """Poses ``[..., 3, 4]`` or ``[..., 4, 4]`` -> ``[..., 4, 4]`` in float64."""
    if poses.shape[-2] == 4:
        return poses.double()
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64, device=poses.device).expand(*poses.shape[:-2], 1, 4)
    return torch.cat([poses.double(), last], dim=-2)


def relative_poses(poses: Tensor, conditioned: Tensor, trace: float = 1.0) -> Tensor:
    """Camera-to-world poses, the world being the camera of one frame.

    Args:
        poses: world-to-camera, ``[B, T, 3 or 4, 4]``.
        conditioned: the number of that frame, ``[B]``.
        trace: a factor on the translations.

    Returns:
        ``[B, T, 4, 4]`` in float64.

    Raises:
        InputError: there is no such frame.
    """
    frames = poses.shape[1]
    if ((conditioned < 0) | (conditioned >= frames)).any():
        raise InputError(f"The conditioned frame is {conditioned.tolist()}; it can be 0 to {frames - 1} in a path of {frames} poses.")
    worlds = square(poses)
    chosen = worlds[torch.arange(len(worlds)), conditioned.to(worlds.device)]
    relative = chosen[:, None] @ torch.linalg.inv(worlds)
    relative[..., :3, 3] *= trace
    return relative


def default_intrinsics(height: int, width: int) -> Tensor:
    """A camera whose focal length is half of the longer side, looking at the centre, ``[3, 3]`` in float64."""
    focal = 0.5 * max(height, width)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)


def pixel_intrinsics(shares: Tensor, height: int, width: int) -> Tensor:
    """Lenses ``[T, 4]`` (fx, fy, cx, cy as shares of the picture's width and height) as matrices ``[T, 3, 3]`` in pixels."""
    focal_x, focal_y, x, y = (shares.double() * torch.tensor([width, height, width, height])).unbind(dim=1)
    matrices = torch.eye(3, dtype=torch.float64).repeat(len(shares), 1, 1)
    matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 0, 2], matrices[:, 1, 2] = focal_x, focal_y, x, y
    return matrices


def rays(relative: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Pluecker coordinates of the rays through the pixels' centres: moment ``o x d`` and direction ``d``.

    Args:
        relative: camera-to-world, ``[B, T, 4, 4]``.
        intrinsics: ``[B, T, 3, 3]``.

    Returns:
        ``[B, 6, T, height, width]`` in float32.
    """
    rows = torch.arange(height, dtype=torch.float64, device=relative.device)[:, None] + 0.5
    columns = torch.arange(width, dtype=torch.float64, device=relative.device) + 0.5
    focal_x, focal_y, x, y = (each[..., None, None] for each in _focal_and_centre(intrinsics.double()))
    across = ((columns - x) / focal_x).expand(*relative.shape[:2], height, width)
    down = ((rows - y) / focal_y).expand(*relative.shape[:2], height, width)
    directions = torch.stack([across, down, torch.ones_like(across)], dim=-1)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    directions = torch.einsum("btij,bthwj->bthwi", relative[..., :3, :3], directions)
    origins = relative[..., :3, 3][:, :, None, None].expand_as(directions)
    return torch.cat([torch.linalg.cross(origins, directions, dim=-1), directions], dim=-1).permute(0, 4, 1, 2, 3).float()


def _focal_and_centre(intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return intrinsics[..., 0, 0], intrinsics[..., 1, 1], intrinsics[..., 0, 2], intrinsics[..., 1, 2]


def fundamental_matrices(relative: Tensor, intrinsics: Tensor, drawn: Tensor) -> Tensor:
    """The matrices that take a pixel of one frame to its epipolar line in another (CamI2V, arXiv:2410.15957).

    Args:
        relative: camera-to-world, ``[B, T, 4, 4]``.
        intrinsics: ``[B, T, 3, 3]``. As in the authors' code, those of the second frame stand on both sides.
        drawn: standard normal numbers ``[B, T, T, 3]``: a millionth of them is the translation of pairs without one, as of a frame with
            itself, whose lines have a random direction then.

    Returns:
        ``[B, from, to, 3, 3]`` in float64.
    """
    pairs = torch.linalg.inv(relative)[:, None] @ relative[:, :, None]  # [b, from, to, 4, 4]
    rotation, translation = pairs[..., :3, :3], pairs[..., :3, 3]
    still = (translation.abs() < NO_TRANSLATION).all(dim=-1, keepdim=True)
    translation = torch.where(still, NO_TRANSLATION * drawn.to(translation), translation)
    inverse = torch.linalg.inv(intrinsics.double())[:, None]  # [b, 1, to, 3, 3]
    return inverse.transpose(-1, -2) @ _cross_matrix(translation) @ rotation @ inverse


def _cross_matrix(vectors: Tensor) -> Tensor:
    """``[..., 3]`` -> the matrices ``[..., 3, 3]`` of their cross products."""
    x, y, z = vectors.unbind(dim=-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
