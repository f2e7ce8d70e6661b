"""What a row of the table is, and how one is entered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..bench import Bench
from ..server import Server

SAMPLERS, LORA, CONDITIONING = "Samplers and schedulers", "LoRA, merging, saving", "Conditioning"
CONTROL, PATCHES = "ControlNets and T2I adapters", "Model patches"
LENGTH, BATCHES, WATCHING = "Any length", "Several videos at once", "Previews and cancelling"
GROUPS = (SAMPLERS, LORA, CONTROL, PATCHES, CONDITIONING, LENGTH, BATCHES, WATCHING)

Check = Callable[[dict[str, Tensor]], None]


@dataclass(frozen=True)
class Line:
    """What a test shows, as the page says it."""

    group: str
    #: The nodes or the feature, as users know them.
    what: str
    #: What was found to hold.
    holds: str
    models: tuple[str, ...]


#: Lines of the page by the test that shows them, ``MODULE.TEST`` of ``tests/comfyui``, for tests that are no row of the table.
Claims = dict[str, tuple[Line, ...]]


@dataclass(frozen=True)
class Row(Line):
    """One row of the table."""

    #: Builds the graph and returns the assertion.
    graph: Callable[[Bench], Check]
    frames: int = 4
    videos: int = 1
    #: Options of ComfyUI's command line that it needs.
    flags: tuple[str, ...] = ()
    #: It takes long: `make test-all` runs it, `make test` doesn't.
    long: bool = False

    @property
    def name(self) -> str:
        return self.graph.__name__

    def run(self, comfyui: Server, model: str) -> None:
        """Run the graph with a model and hold what comes out to the assertion."""
        bench = Bench(comfyui, model, self.frames, self.videos)
        check = self.graph(bench)
        check(bench.results())


ROWS: list[Row] = []


def row(group: str, what: str, holds: str, *models: str, **more: Any) -> Callable[[Callable[[Bench], Check]], Callable[[Bench], Check]]:
    """Enter a graph into the table."""

    def enter(graph: Callable[[Bench], Check]) -> Callable[[Bench], Check]:
        ROWS.append(Row(group, what, holds, models, graph, **more))
        return graph

    return enter
