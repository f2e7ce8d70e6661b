"""Pictures of motion: trajectories, boxes and a camera's path, drawn over the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import InputError
from .cameras import CameraPath, inverse, rotation
from .tracks import Tracks

#: Colours of the trajectories, in turn: told apart by people who are colour-blind, too (Okabe and Ito).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
GROUND, LINE, FAINT, CAMERA = (24, 26, 30), (236, 236, 236), (130, 134, 140), (240, 228, 66)
#: Lines are drawn at this multiple of the size, and made smaller: so their edges are smooth.
FINER = 2
#: The camera plot's side as a share of the picture's smaller one, and how it is looked at: from behind, the left and above.
PLOT_SHARE, VIEW = 0.38, (0.5, 0.6, 0.0)
#: Half of the width and height, and the length, of the cameras in the plot, as a share of what the path spans.
FRUSTUM = (0.16, 0.1, 0.2)


@dataclass(frozen=True)
class MotionPicture:
    """What is drawn.

    Attributes:
        tracks: trajectories, in pixels of the frames (or of their own size, from which they are scaled).
        camera: a camera's path.
        trail: how many frames back a trajectory's line goes; 0: to the first frame.
        opacity: of the drawing over the frames, 0 to 1.
    """

    tracks: Tracks | None = None
    camera: CameraPath | None = None
    trail: int = 0
    opacity: float = 1.0

    def over(self, frames: Tensor) -> Tensor:
        """Draw over frames ``[T, H, W, 3]`` in [0, 1]; motion of another length is resampled to theirs.

        Raises:
            InputError: there is nothing to draw, or no frame.
        """
        if self.tracks is None and self.camera is None:
            raise InputError("There is nothing to draw: connect tracks or a camera.")
        if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.numel():
            raise InputError(f"The frames are {list(frames.shape)}; they must be [frames, height, width, 3].")
        count, height, width = frames.shape[:3]
        tracks = None if self.tracks is None else self.tracks.resampled(count).scaled(width, height)
        plot = None if self.camera is None else CameraPlot(self.camera.resampled(count))
        drawn = torch.empty(frames.shape, dtype=torch.float32)
        for number in range(count):
            layer = Image.new("RGBA", (width * FINER, height * FINER), (0, 0, 0, 0))
            draw = ImageDraw.Draw(layer)
            if tracks is not None:
                _draw_tracks(draw, tracks, number, self.trail, max(min(width, height) * FINER / 160, FINER))
            if plot is not None:
                side = min(width, height) * FINER
                if tracks is None:
                    plot.draw(draw, number, (0, 0, layer.width, layer.height))
                else:
                    plot.draw(draw, number, (layer.width - PLOT_SHARE * side, layer.height - PLOT_SHARE * side, layer.width, layer.height))
            drawn[number] = _blended(frames[number], layer, self.opacity)
        return drawn


class CameraPlot:
    """The camera's path in three dimensions, and the camera of each frame as a pyramid."""

    def __init__(self, camera: CameraPath) -> None:
        matrices = inverse(camera.poses)
        centres = matrices[:, :, 3]
        span = max(float((centres.amax(0) - centres.amin(0)).norm()), 1e-6)
        if span < 1e-3:
            span = 1.0
        x, y, z = (share * span for share in FRUSTUM)
        corners = torch.tensor([[-x, -y, z], [x, -y, z], [x, y, z], [-x, y, z]], dtype=torch.float64)
        pyramids = torch.einsum("tij,nj->tni", matrices[:, :, :3], corners) + centres[:, None]
        view = rotation(torch.tensor(VIEW, dtype=torch.float64))
        points = torch.cat([centres[:, None], pyramids], 1) @ view.T
        flat = points[..., :2]
        low, high = flat.flatten(0, 1).amin(0), flat.flatten(0, 1).amax(0)
        #: In [-1, 1], x to the right and y down: ``[T, 5, 2]``, the camera's centre and the corners of its picture.
        self.points = (flat - (low + high) / 2) / (float((high - low).amax()) / 2)

    def draw(self, draw: ImageDraw.ImageDraw, frame: int, area: tuple[float, float, float, float]) -> None:
        """Draw the path and a frame's camera into an area: left, top, right, bottom."""
        left, top, right, bottom = area
        half = min(right - left, bottom - top) * 0.42
        points = self.points * half + torch.tensor([(left + right) / 2, (top + bottom) / 2])
        places = [[(x, y) for x, y in each] for each in points.tolist()]
        width = max(round(half / 60), 1)
        draw.rectangle(area, fill=(*GROUND, 235), outline=(*FAINT, 255), width=width)
        for number in sorted({0, len(places) - 1}):
            _draw_camera(draw, places[number], FAINT, width)
        draw.line([each[0] for each in places], fill=(*LINE, 255), width=width, joint="curve")
        for each in places:
            _dot(draw, each[0], width, LINE)
        _draw_camera(draw, places[frame], CAMERA, width * 2)
        _dot(draw, places[frame][0], width * 2.5, CAMERA)


def _draw_camera(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: tuple[int, int, int], width: int) -> None:
    centre, *corners = points
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        draw.line([start, end], fill=(*colour, 255), width=width)
        draw.line([centre, start], fill=(*colour, 255), width=width)


def _draw_tracks(draw: ImageDraw.ImageDraw, tracks: Tracks, frame: int, trail: int, width: float) -> None:
    first = max(frame - trail, 0) if trail else 0
    points, line = tracks.points * FINER, max(round(width), 1)
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(tracks))]
    seen_now = tracks.visible[:, frame].nonzero()[:, 0].tolist()
    if tracks.boxes is not None:  # first, since drawing replaces what is under it
        for number in seen_now:
            (x, y), (w, h) = points[number, frame].tolist(), (tracks.boxes[number] * FINER / 2).tolist()
            if w and h:
                draw.rectangle((x - w, y - h, x + w, y + h), fill=(*colours[number], 40), outline=(*colours[number], 255), width=line)
    for number, colour in enumerate(colours):
        way = [(x, y) for x, y in points[number, first : frame + 1][tracks.visible[number, first : frame + 1]].tolist()]
        if len(way) > 1:
            draw.line(way, fill=(*colour, 200), width=line, joint="curve")
    for number in seen_now:
        x, y = points[number, frame].tolist()
        _dot(draw, (x, y), width * 2.2, colours[number])


def _dot(draw: ImageDraw.ImageDraw, place: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
    x, y = place
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*colour, 255))


def _blended(frame: Tensor, layer: Image.Image, opacity: float) -> Tensor:
    """A frame ``[H, W, 3]`` under a layer of :data:`FINER` times its size."""
    # Colours times their opacity are averaged: what is clear has no colour.
    pixels = torch.from_numpy(np.asarray(layer, dtype=np.float32) / 255)
    alpha = pixels[..., 3:]
    both = torch.cat([pixels[..., :3] * alpha, alpha], -1).movedim(-1, 0)[None]
    colour, cover = torch.nn.functional.avg_pool2d(both, FINER)[0].movedim(0, -1).split((3, 1), -1)
    return frame.float().cpu() * (1 - cover * opacity) + colour * opacity
