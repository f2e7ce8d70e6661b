"""The results as a table, as JSON, and as a plot of what a step costs over frames and over pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One part, done in one way.

    Attributes:
        floor: seconds that its arithmetic takes at the machine's rate of multiplying matrices, or none where there is none.
        weights: bytes of the networks that take part.
        peak: bytes beside them.
    """

    part: str
    way: str
    model: str
    height: int
    width: int
    frames: int
    steps: int
    dtype: str
    device: str
    seconds: float
    processor_seconds: float
    floor: float | None
    weights: int
    peak: int


@dataclass(frozen=True)
class Point:
    """A step of one size: operations, and bytes beside the weights, of ours and of the plain formulation."""

    height: int
    width: int
    frames: int
    flops: int
    peak: int
    plain_peak: int


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    head = "| part | way | size | type | seconds | processor s | floor s | of floor | weights GiB | peak above GiB |"
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for row in rows:
        floor, share = ("", "") if row.floor is None else (f"{row.floor:.2f}", f"{row.floor / row.seconds:.0%}")
        steps = f", {row.steps} steps" if row.part == "clip" else ""
        lines.append(
            f"| {row.part} | {row.way} | {row.height}x{row.width}x{row.frames}{steps} | {row.dtype} | {row.seconds:.2f} | "
            f"{row.processor_seconds:.2f} | {floor} | {share} | {row.weights / GIB:.2f} | {row.peak / GIB:.3f} |"
        )
    return "\n".join(lines)


def ratios(rows: Sequence[Row]) -> str:
    """What each part takes of the time and memory of the plain formulation in float32, and of the arithmetic's rate; in Markdown."""
    head = "| part | way | size | type | of the plain time | of its processor time | of the arithmetic's rate | GiB beside the weights |"
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    plain = {(row.part, row.frames, row.height, row.width): row for row in rows if row.way == "plain" and row.dtype == "float32"}
    for row in rows:
        if row.way == "plain":
            continue
        yardstick = plain.get((row.part, row.frames, row.height, row.width))
        time = processor = than = ""
        if yardstick:
            time, processor = f"{row.seconds / yardstick.seconds:.2f}", f"{row.processor_seconds / yardstick.processor_seconds:.2f}"
            than = f", plain {yardstick.peak / GIB:.2f}"
        share = "" if row.floor is None else f"{row.floor / row.seconds:.0%}"
        size = f"{row.height}x{row.width}x{row.frames}" + (f", {row.steps} steps" if row.part == "clip" else "")
        lines.append(f"| {row.part} | {row.way} | {size} | {row.dtype} | {time} | {processor} | {share} | {row.peak / GIB:.2f}{than} |")
    return "\n".join(lines)


def write_json(path: Path, machine: dict[str, object], rows: Sequence[Row], points: Sequence[Point]) -> None:
    content = {"machine": machine, "rows": [asdict(row) for row in rows], "sweep": [asdict(point) for point in points]}
    path.write_text(json.dumps(content, indent=1) + "\n")


def plot(path: Path, points: Sequence[Point], model: str, dtype: str) -> None:
    """Operations and memory of a step over frames (at the first size) and over pixels (at the first number of frames)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first = points[0]
    sweeps = {
        "frames": [point for point in points if (point.height, point.width) == (first.height, first.width)],
        "pixels of a frame": [point for point in points if point.frames == first.frames],
    }
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    for column, (name, swept) in zip(axes.T, sweeps.items(), strict=True):
        swept = sorted(swept, key=lambda point: (point.frames, point.height * point.width))
        x = [point.frames if name == "frames" else point.height * point.width for point in swept]
        column[0].plot(x, [point.flops / 1e12 for point in swept], "o-")
        column[0].set_ylabel("10¹² operations a step")
        column[1].plot(x, [point.plain_peak / GIB for point in swept], "s--", color="gray", label="plain formulation")
        column[1].plot(x, [point.peak / GIB for point in swept], "o-", label="ours")
        column[1].set(ylabel="GiB beside the weights", yscale="log")
        column[1].legend()
        fixed = f"{first.height}x{first.width}" if name == "frames" else f"{first.frames} frames"
        for axis in column:
            axis.set_xlabel(f"{name} ({fixed})")
            axis.grid(alpha=0.3)
    figure.suptitle(f"What a denoising step of {model} costs under guidance, {dtype}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
