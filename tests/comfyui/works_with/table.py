"""The table itself: what a row is, and how one is entered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dev.server import Server

from .bench import Bench

SAMPLERS, LORA, CONDITIONING = "Samplers and schedulers", "LoRA, merging, saving", "Conditioning"
LENGTH, BATCHES, WATCHING = "Any length", "Several videos at once", "Previews and cancelling"
GROUPS = (SAMPLERS, LORA, CONDITIONING, LENGTH, BATCHES, WATCHING)

Check = Callable[[dict[str, Tensor]], None]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    group: str
    #: The nodes or the feature, as users know them.
    what: str
    #: What was found to hold.
    holds: str
    models: tuple[str, ...]
    #: Builds the graph and returns the assertion.
    graph: Callable[[Bench], Check]
    frames: int = 4
    videos: int = 1
    #: Options of ComfyUI's command line that it needs.
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.graph.__name__

    def run(self, comfyui: Server, model: str) -> None:
        """Run the graph with a model and hold what comes out to the assertion."""
        bench = Bench(comfyui, model, self.frames, self.videos)
        check = self.graph(bench)
        check(bench.results())


ROWS: list[Row] = []


def row(group: str, what: str, holds: str, *models: str, **sizes: Any) -> Callable[[Callable[[Bench], Check]], Callable[[Bench], Check]]:
    """Enter a graph into the table."""

    def enter(graph: Callable[[Bench], Check]) -> Callable[[Bench], Check]:
        ROWS.append(Row(group, what, holds, models, graph, **sizes))
        return graph

    return enter
