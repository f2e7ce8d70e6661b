"""The table itself: what a row is, and how one is entered; and how tests elsewhere get a line on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from torch import Tensor

from harness.bench import Bench
from harness.server import Server

SAMPLERS, LORA, CONDITIONING = "Samplers and schedulers", "LoRA, merging, saving", "Conditioning"
CONTROL, PATCHES = "ControlNets and T2I adapters", "Model patches"
LENGTH, BATCHES, WATCHING = "Any length", "Several videos at once", "Previews and cancelling"
GROUPS = (SAMPLERS, LORA, CONTROL, PATCHES, CONDITIONING, LENGTH, BATCHES, WATCHING)

Check = Callable[[dict[str, Tensor]], None]
Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Line:
    """What a test shows, as the page says it."""

    group: str
    #: The nodes or the feature, as users know them.
    what: str
    #: What was found to hold.
    holds: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Row(Line):
    """One row of the table."""

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


def row(group: str, what: str, holds: str, *models: str, **more: Any) -> Callable[[Callable[[Bench], Check]], Callable[[Bench], Check]]:
    """Enter a graph into the table."""

    def enter(graph: Callable[[Bench], Check]) -> Callable[[Bench], Check]:
        ROWS.append(Row(group, what, holds, models, graph, **more))
        return graph

    return enter


def proves(*lines: Line) -> Callable[[Test], Test]:
    """Say of a test, or of a class of tests, what it shows."""

    def say(test: Test) -> Test:
        test.proves = lines  # type: ignore[attr-defined]
        return test

    return say


def proven(modules: Iterable[ModuleType]) -> list[Line]:
    """What the tests of these modules show."""
    return [line for module in modules for test in vars(module).values() for line in getattr(test, "proves", ())]
