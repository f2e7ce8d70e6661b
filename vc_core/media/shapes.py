"""Drawn images of one flat shape on a dark ground: what the bundled models know."""

from __future__ import annotations

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (228, 42, 42), "green": (40, 186, 66), "blue": (44, 84, 236),
    "yellow": (240, 214, 48), "white": (240, 240, 240), "purple": (166, 48, 196),
}
BACKGROUND = (18, 18, 24)
#: Width and height of the bundled models' images, and the radius of their shapes, in pixels.
SIZE, RADIUS = 64, 9.0


def draw_shapes(colour: Tensor, shape: Tensor, x: Tensor, y: Tensor, *, size: int = SIZE, radius: float | Tensor = RADIUS) -> Tensor:
    """Images of one shape each, with smooth outlines.

    Args:
        colour: ``[N]``, indices into :data:`COLOURS`.
        shape: ``[N]``, indices into :data:`SHAPES`.
        x: ``[N]``, the shape's middle in pixels from the left.
        y: ``[N]``, the shape's middle in pixels from the top.
        size: width and height of the images in pixels.
        radius: half of a shape's width in pixels, roughly; of each shape, where it is ``[N]``.

    Returns:
        ``[N, 3, size, size]`` in [-1, 1].
    """
    axis = torch.arange(size, dtype=torch.float32) + 0.5
    dx = axis[None, None, :] - x.float()[:, None, None]
    dy = axis[None, :, None] - y.float()[:, None, None]
    radius = radius[:, None, None] if isinstance(radius, Tensor) else radius
    cover = (0.5 - _signed_distance(shape[:, None, None], dx, dy, radius)).clamp(0, 1)[:, None]  # [N, 1, H, W]
    paint = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[colour][:, :, None, None]
    ground = torch.tensor(BACKGROUND, dtype=torch.float32)[None, :, None, None]
    return (ground + cover * (paint - ground)) / 127.5 - 1.0


def _signed_distance(shape: Tensor, dx: Tensor, dy: Tensor, radius: float | Tensor) -> Tensor:
    """Distance in pixels to the outline of each shape, negative inside. `shape [N,1,1]`, `dx, dy [N,H,W]`."""
    circle = (dx**2 + dy**2).sqrt() - radius
    square = torch.maximum(dx.abs(), dy.abs()) - 1.06 * radius
    # Pointing up, as wide as high: the base at +radius, the two slanting sides meet at -radius.
    slope = 5**0.5
    sides = (2 * dx.abs() - dy - radius) / slope
    triangle = torch.maximum(sides, dy - radius)
    return torch.where(shape == 0, circle, torch.where(shape == 1, square, triangle))
