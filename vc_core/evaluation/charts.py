"""The charts of a page and of a node, by matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .evaluator import measure_of, title
from .results import Row, means

#: Fewest axes of a radar chart.
LEAST_AXES = 3


def normalized(name: str, value: float) -> float | None:
    """A value in 0..1, 1 being best; None for measures without a better or without bounds.

    Cosines, whose range is -1..1, are taken as they are, negative ones as 0. Nothing is scaled by what other videos have.
    """
    measure = measure_of(name)
    if measure is None or not measure.better or measure.low is None or measure.high is None:
        return None
    low = max(measure.low, 0.0)
    part = min(max((value - low) / (measure.high - low), 0.0), 1.0)
    return part if measure.better == "higher" else 1 - part


def radar(runs: Mapping[str, Mapping[str, float]]) -> str | None:
    """An SVG of the normalized means of one or more runs, with the raw ones at the axes; None for fewer than three axes."""
    common = [name for name in next(iter(runs.values())) if all(name in each for each in runs.values())]
    names = [name for name in common if normalized(name, 0.0) is not None]
    if len(names) < LEAST_AXES:
        return None
    figure = _figure(7.2, 5.2)
    axes: Any = figure.add_subplot(projection="polar")
    angles = [2 * math.pi * index / len(names) for index in range(len(names))]
    for label, values in runs.items():
        lengths = [normalized(name, values[name]) or 0.0 for name in names]
        axes.plot([*angles, angles[0]], [*lengths, lengths[0]], label=label, marker="o", markersize=4)
        axes.fill(angles, lengths, alpha=0.15)
    labels = ["\n".join([_plain(title(name)), " / ".join(f"{values[name]:.3g}" for values in runs.values())]) for name in names]
    axes.set_xticks(angles, labels, fontsize=8)
    axes.tick_params(axis="x", pad=8)
    for angle, label in zip(angles, axes.get_xticklabels(), strict=True):
        label.set_horizontalalignment(_alignment(angle))
    axes.set_ylim(0, 1)
    axes.set_rgrids([0.25, 0.5, 0.75, 1.0], fontsize=7)
    if len(runs) > 1:
        figure.legend(loc="lower left", fontsize=8)
    return _svg(figure)


def _alignment(angle: float) -> str:
    """How a name at the circle is aligned so that it lies outside of it."""
    side = math.cos(angle)
    return "center" if abs(side) < 0.1 else "left" if side > 0 else "right"


def distributions(rows: Sequence[Row]) -> str | None:
    """An SVG with a histogram of each value over the videos; None for fewer than two videos."""
    names = list(means(rows))
    if len(rows) < 2 or not names:
        return None
    columns = 4
    figure = _figure(11.2, 1.75 * math.ceil(len(names) / columns))
    for index, name in enumerate(names, 1):
        values = [row.values[name] for row in rows if name in row.values]
        axes: Any = figure.add_subplot(math.ceil(len(names) / columns), columns, index)
        # Values that differ by rounding alone have no width that a histogram could be divided into.
        spread = max(values) - min(values) > 1e-9 * max(1.0, abs(max(values)))
        bounds = None if spread else (values[0] - 0.5, values[0] + 0.5)
        axes.hist(values, bins=min(20, max(4, len(values) // 3)), range=bounds, color="#36c")
        axes.axvline(sum(values) / len(values), color="#d33", linewidth=1)
        axes.set_title(_plain(title(name)), fontsize=8)
        axes.tick_params(labelsize=6)
        axes.locator_params(axis="x", nbins=5)
    return _svg(figure)


def curves(clips: Mapping[str, Row], size: tuple[float, float] = (9.6, 0.0)) -> Tensor:
    """A picture of the curves of one or more clips over the frames, a small chart for each measure, ``[H, W, 3]`` in [0, 1].

    Args:
        clips: rows by the clips' labels.
        size: width in inches of 100 pixels, and height; 0 for what the charts need.
    """
    names = list(dict.fromkeys(name for row in clips.values() for name, curve in row.curves.items() if len(curve) > 1))
    height = math.ceil(max(1, len(names)) / 2)
    figure = _figure(size[0], size[1] or 2.0 * height)
    if not names:
        figure.text(0.5, 0.5, "no values over the frames", ha="center")
    for index, name in enumerate(names, 1):
        axes: Any = figure.add_subplot(height, 2, index)
        for label, row in clips.items():
            curve, first = row.curves.get(name, []), row.firsts.get(name, 0)
            step = 2 if name.startswith("motion_smoothness") else 1
            axes.plot([first + step * place for place in range(len(curve))], curve, marker=".", label=label)
        axes.set_title(_plain(title(name)), fontsize=8)
        axes.tick_params(labelsize=7)
    if len(clips) > 1 and names:
        figure.legend(list(clips), loc="outside lower center", ncols=len(clips), fontsize=8)
    return _pixels(figure)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _plain(text: str) -> str:
    """Text in which no sign starts a formula."""
    return text.replace("$", r"\$")


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _pixels(figure: Any) -> Tensor:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    return torch.frombuffer(canvas.buffer_rgba(), dtype=torch.uint8).clone().reshape(height, width, 4)[..., :3] / 255
