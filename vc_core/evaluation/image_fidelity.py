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
from kornia.metrics import ssim
from torch import Tensor

from ..errors import InputError
from ..media.images import check_finite
from ..media.resizing import resize_cubic

#: Side of SSIM's Gaussian window in pixels, as in the paper.
WINDOW = 11
#: Pixels that SSIM is computed for at once, which takes 400 bytes for each.
SSIM_PIXELS = 2**18
#: Pixels of the frames that are embedded at once, at least a frame.
EMBEDDED_PIXELS = 2**21
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
            InputError: matplotlib is not installed.
        """
        check_matplotlib()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

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

    Frames are measured a part at a time, so that little memory is needed beside them.

    Raises:
        InputError: other shapes, or values that are no numbers.
    """
    if frames.ndim != 4 or frames.shape[0] != 3 or image.ndim != 3 or image.shape[0] != 3:
        shapes = f"frames has the shape {list(frames.shape)} and image {list(image.shape)}"
        raise InputError(f"{shapes}; expected are frames [3, T, H, W] and an image [3, H, W].")
    height, width = frames.shape[-2:]
    if min(height, width) <= WINDOW // 2:
        raise InputError(f"The frames are {width}x{height}; SSIM needs at least {WINDOW // 2 + 1} pixels each way.")
    check_finite(frames.unbind(1))
    check_finite([image], "image")
    video = frames.transpose(0, 1)
    still = resize_cubic(image[None], height, width).clamp_(-1, 1)
    to_image = {"SSIM": structure(video, still.expand_as(video))}
    to_previous = {"SSIM": structure(video[1:], video[:-1])}
    if embed is not None:
        at_once = max(1, EMBEDDED_PIXELS // (height * width))
        embedded = torch.cat([embed(chunk.float()) for chunk in video.split(at_once)])
        to_image["CLIP"] = torch.cosine_similarity(embedded, embed(image[None].float())).cpu()
        to_previous["CLIP"] = torch.cosine_similarity(embedded[1:], embedded[:-1]).cpu()
    return ImageFidelity(to_image, to_previous)


def structure(first: Tensor, second: Tensor) -> Tensor:
    """SSIM of pairs of images ``[N, 3, H, W]`` in [-1, 1] -> ``[N]``, the mean over positions and channels."""
    return torch.tensor([_structure(*pair) for pair in zip(first, second, strict=True)])


def _structure(first: Tensor, second: Tensor) -> float:
    """SSIM of two images ``[3, H, W]``, computed for a few rows at a time, with those above and below that the window reaches."""
    height, width = first.shape[1:]
    rows, reach = max(WINDOW, SSIM_PIXELS // width), WINDOW // 2
    total = 0.0
    for top in range(0, height, rows):
        start, stop = max(0, top - reach), min(height, top + rows + reach)
        one, other = ((image[None, :, start:stop].float() + 1) / 2 for image in (first, second))
        similarity = ssim(one, other, window_size=WINDOW)[:, :, top - start : top - start + rows]
        total += similarity.sum(dtype=torch.float64).item()
    return total / first.numel()


def check_matplotlib() -> None:
    """
    Raises:
        InputError: matplotlib is not installed, which a plot needs.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("The plot needs matplotlib: pip install matplotlib.") from error


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
