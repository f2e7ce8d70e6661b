"""How similar the frames of a video are to its source image, and to each other.

Two similarities of each frame: SSIM (Wang et al., 2004), which compares structure at each position, and the cosine between CLIP
image embeddings, which compares content regardless of its position. EvalCrafter (arXiv:2310.11440, section 4.2) measures
consistency by the latter.
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

#: Side of SSIM's Gaussian window in pixels, as in the paper.
WINDOW = 11
#: Embeds images ``[N, 3, H, W]`` in [-1, 1] as ``[N, d]``.
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ImageFidelity:
    """Similarities by name, 1 for equal: of each frame to the image ``[T]``, and to the frame before it ``[T - 1]``."""

    to_image: dict[str, Tensor]
    to_previous: dict[str, Tensor]

    def table(self) -> str:
        """A Markdown table with a row for each frame, and one for the means."""
        names = [f"{name} to image" for name in self.to_image] + [f"{name} to previous" for name in self.to_previous]
        columns = [values.tolist() for values in self.to_image.values()]
        columns += [[None, *values.tolist()] for values in self.to_previous.values()]
        rows = [[str(frame), *map(_text, row)] for frame, row in enumerate(zip(*columns, strict=True), start=1)]
        means = [values.mean().item() if len(values) else None for values in (*self.to_image.values(), *self.to_previous.values())]
        lines = [["frame", *names], ["---"] * (len(names) + 1), *rows, ["mean", *map(_text, means)]]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def plot(self) -> Tensor:
        """A plot of the similarities over the frames, ``[400, 800, 3]`` in [0, 1].

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
        frames = len(next(iter(self.to_image.values())))
        for name, values in self.to_image.items():
            axes.plot(range(1, frames + 1), values.tolist(), marker="o", label=f"{name} to the image")
        for name, values in self.to_previous.items():
            axes.plot(range(2, frames + 1), values.tolist(), marker=".", linestyle="--", label=f"{name} to the frame before")
        axes.set(xlabel="frame", ylabel="similarity", ylim=(min(0.0, axes.get_ylim()[0]), 1.02), title="Image fidelity")
        axes.legend(loc="lower left")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return torch.frombuffer(canvas.buffer_rgba(), dtype=torch.uint8).clone().reshape(400, 800, 4)[..., :3] / 255


def measure(frames: Tensor, image: Tensor, embed: Embed | None = None) -> ImageFidelity:
    """Compare each frame of a video with the source image and with the frame before it.

    Args:
        frames: ``[3, T, H, W]`` in [-1, 1], at least 6 pixels high and wide.
        image: ``[3, H', W']`` in [-1, 1]; for SSIM it is resized to the frames' size.
        embed: CLIP's image embedding; without it only SSIM is measured.

    Raises:
        InputError: other shapes.
    """
    if frames.ndim != 4 or frames.shape[0] != 3 or image.ndim != 3 or image.shape[0] != 3:
        shapes = f"frames has the shape {list(frames.shape)} and image {list(image.shape)}"
        raise InputError(f"{shapes}; expected are frames [3, T, H, W] and an image [3, H, W].")
    height, width = frames.shape[-2:]
    if min(height, width) <= WINDOW // 2:
        raise InputError(f"The frames are {width}x{height}; SSIM needs at least {WINDOW // 2 + 1} pixels each way.")
    video = frames.transpose(0, 1).float()
    still = resize(image[None].float(), (height, width), interpolation="bicubic", align_corners=True, antialias=True).clamp(-1, 1)
    to_image = {"SSIM": structure(video, still.expand_as(video))}
    to_previous = {"SSIM": structure(video[1:], video[:-1])}
    if embed is not None:
        embedded, source = embed(video), embed(image[None].float())
        to_image["CLIP"] = torch.cosine_similarity(embedded, source).cpu()
        to_previous["CLIP"] = torch.cosine_similarity(embedded[1:], embedded[:-1]).cpu()
    return ImageFidelity(to_image, to_previous)


def structure(first: Tensor, second: Tensor) -> Tensor:
    """SSIM of pairs of images ``[N, 3, H, W]`` in [-1, 1] -> ``[N]``, the mean over positions and channels."""
    if not len(first):
        return torch.zeros(0)
    return ssim((first + 1) / 2, (second + 1) / 2, window_size=WINDOW).mean(dim=(1, 2, 3)).cpu()


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
