"""How well a video keeps the picture it was made from, and how smoothly it goes on from frame to frame.

Two similarities, frame by frame: SSIM (Wang et al., 2004), which compares structure at each place, and the cosine between
CLIP image embeddings, which compares content wherever it is. EvalCrafter (arXiv:2310.11440, section 4.2) measures consistency by the
latter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from kornia.geometry import resize
from kornia.metrics import ssim
from torch import Tensor

from ..errors import InputError

#: Side of SSIM's Gaussian window, as its authors have it.
WINDOW = 11
#: Embeds pictures ``[N, 3, H, W]`` in [-1, 1] as ``[N, d]``.
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PictureKept:
    """Similarities, 1 for equal, by name: to the picture ``[T]``, and of each frame to the one before ``[T - 1]``."""

    to_picture: dict[str, Tensor]
    to_previous: dict[str, Tensor]

    def table(self) -> str:
        """A Markdown table, one row a frame and one for the means."""
        names = [f"{name} to picture" for name in self.to_picture] + [f"{name} to previous" for name in self.to_previous]
        columns = [values.tolist() for values in self.to_picture.values()]
        columns += [[None, *values.tolist()] for values in self.to_previous.values()]
        rows = [[str(frame), *map(_shown, row)] for frame, row in enumerate(zip(*columns, strict=True), start=1)]
        means = [values.mean().item() if len(values) else None for values in (*self.to_picture.values(), *self.to_previous.values())]
        lines = [["frame", *names], ["---"] * (len(names) + 1), *rows, ["mean", *map(_shown, means)]]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def plot(self) -> Tensor:
        """The same as a picture ``[H, W, 3]`` in [0, 1].

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("The plot needs matplotlib: pip install matplotlib.") from error
        figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
        axes: Any = figure.subplots()
        frames = len(next(iter(self.to_picture.values())))
        for name, values in self.to_picture.items():
            axes.plot(range(1, frames + 1), values.tolist(), marker="o", label=f"{name} to the picture")
        for name, values in self.to_previous.items():
            axes.plot(range(2, frames + 1), values.tolist(), marker=".", linestyle="--", label=f"{name} to the frame before")
        axes.set(xlabel="frame", ylabel="similarity", ylim=(min(0.0, axes.get_ylim()[0]), 1.02), title="How well the picture is kept")
        axes.legend(loc="lower left")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return torch.frombuffer(canvas.buffer_rgba(), dtype=torch.uint8).clone().reshape(400, 800, 4)[..., :3] / 255


def measure(frames: Tensor, picture: Tensor, embed: Embed | None = None) -> PictureKept:
    """Compare a video with its picture and with itself.

    Args:
        frames: ``[3, T, H, W]`` in [-1, 1], at least 6 pixels high and wide.
        picture: ``[3, H', W']`` in [-1, 1]; for SSIM it is resized to the frames' size.
        embed: CLIP's image embedding; without it there is only SSIM.

    Raises:
        InputError: shapes that don't fit.
    """
    if frames.ndim != 4 or frames.shape[0] != 3 or picture.ndim != 3 or picture.shape[0] != 3:
        raise InputError(f"Expected are frames [3, T, H, W] and a picture [3, H, W]; got {tuple(frames.shape)} and {tuple(picture.shape)}.")
    height, width = frames.shape[-2:]
    if min(height, width) <= WINDOW // 2:
        raise InputError(f"The frames are {width}x{height}; SSIM needs at least {WINDOW // 2 + 1} pixels each way.")
    video = frames.transpose(0, 1).float()
    still = resize(picture[None].float(), (height, width), interpolation="bicubic", align_corners=True, antialias=True).clamp(-1, 1)
    to_picture = {"SSIM": structure(video, still.expand_as(video))}
    to_previous = {"SSIM": structure(video[1:], video[:-1])}
    if embed is not None:
        seen, known = embed(video), embed(picture[None].float())
        to_picture["CLIP"] = torch.cosine_similarity(seen, known).cpu()
        to_previous["CLIP"] = torch.cosine_similarity(seen[1:], seen[:-1]).cpu()
    return PictureKept(to_picture, to_previous)


def structure(first: Tensor, second: Tensor) -> Tensor:
    """SSIM of pairs of pictures ``[N, 3, H, W]`` in [-1, 1] -> ``[N]``, the mean over places and channels."""
    if not len(first):
        return torch.zeros(0)
    return ssim((first + 1) / 2, (second + 1) / 2, window_size=WINDOW).mean(dim=(1, 2, 3)).cpu()


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
