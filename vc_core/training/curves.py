"""The curves of a run: ``loss.csv``, ``loss.png`` and, where TensorBoard is installed, its log."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ..files import replacing
from .trainer import Progress

COLUMNS = ("update", "loss", "norm", "rate", "epoch")
#: Updates over which the plot's line is averaged.
WINDOW = 20


class Curves:
    """Watches a run. Each figure of a resumed run goes on after the update that it resumes from.

    Args:
        folder: of the run.
        update: how many updates are made already.
        draw_every: updates between two drawings of the plot.
    """

    def __init__(self, folder: Path, update: int = 0, draw_every: int = 100) -> None:
        self.csv, self.png, self.draw_every = folder / "loss.csv", folder / "loss.png", draw_every
        self.rows = [row for row in read_rows(self.csv) if row["update"] <= update]
        self._write_all()
        self.board = _board(folder / "tensorboard", update)

    def __call__(self, progress: Progress) -> None:
        if not progress.is_main:
            return
        row = {"update": float(progress.update), **progress.figures}
        self.rows.append(row)
        with self.csv.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS, extrasaction="ignore").writerow(_as_text(row))
        if self.board is not None:
            for name, value in progress.figures.items():
                self.board.add_scalar(name, value, progress.update)
        if progress.update % self.draw_every == 0 or progress.update == progress.updates:
            self.draw()

    def draw(self) -> None:
        """Write the plot: the loss of each update, and its mean over the last :data:`WINDOW`."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        if not self.rows:
            return
        updates, losses = [row["update"] for row in self.rows], [row["loss"] for row in self.rows]
        means = [sum(losses[max(0, end - WINDOW) : end]) / min(end, WINDOW) for end in range(1, len(losses) + 1)]
        figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
        axes: Any = figure.subplots()
        axes.plot(updates, losses, linewidth=0.5, alpha=0.4, label="loss of an update")
        axes.plot(updates, means, label=f"mean of the last {WINDOW}")
        axes.set(xlabel="update", ylabel="loss")
        axes.legend()
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        with replacing(self.png) as temporary:
            temporary.write_bytes(buffer.getvalue())

    def _write_all(self) -> None:
        with replacing(self.csv) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(_as_text(row) for row in self.rows)


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a run's ``loss.csv``; none where there is no such file. A last line that is not complete is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                rows.append({name: float(row[name]) for name in COLUMNS if row[name]})
            except (TypeError, ValueError):
                break
    return rows


def _as_text(row: dict[str, float]) -> dict[str, str]:
    return {name: str(int(value)) if name == "update" else f"{value:.8g}" for name, value in row.items()}


def _board(folder: Path, update: int) -> Any:
    """TensorBoard's writer; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=update + 1 if update else None)
