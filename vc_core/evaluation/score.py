"""What a measure gives, and what is known of a measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import InputError
from .clip import Clip

#: What a measure judges; the groups of the tables.
KINDS = ("alignment", "consistency", "motion", "image quality")


class NotMeasured(InputError):
    """A clip has nothing that this measure could judge, such as a prompt without words in quotes."""


@dataclass(frozen=True)
class Score:
    """The value of a clip, and that of each frame or pair of frames where there is one.

    Attributes:
        curve: values in the order of the frames; the value is not always their mean.
        first: the frame that the first of them belongs to: 1 for pairs, each with the second one's number.
    """

    value: float
    curve: tuple[float, ...] = ()
    first: int = 0

    @classmethod
    def mean(cls, values: Tensor | Sequence[float], first: int = 0) -> Score:
        """The mean of a curve."""
        numbers = [float(each) for each in values]
        return cls(sum(numbers) / len(numbers), tuple(numbers), first)


@dataclass(frozen=True)
class Measure:
    """A measure: what it judges and how its values are to be read.

    Attributes:
        name: for the command line and the results.
        title: for tables.
        paper: what it follows.
        kind: one of :data:`KINDS`.
        better: "higher" or "lower"; "" where neither is, such as for the speed of motion.
        low, high: the range of its values; None for no bound.
        run: computes it for a clip with a tool of the kind that it needs, or with None where it needs none.
        tool: the kind of tool: "tower", "text tower", "flow", "brisque", ..., see :mod:`.tools`; "" for none.
        needs: of "prompt" and "image", what a clip must have.
        frames: fewest frames.
    """

    name: str
    title: str
    paper: str
    kind: str
    better: str
    low: float | None
    high: float | None
    run: Callable[[Clip, Any], Score]
    tool: str = ""
    needs: tuple[str, ...] = ()
    frames: int = 1

    @property
    def reads_text(self) -> bool:
        return "prompt" in self.needs

    def outside(self, value: float) -> bool:
        """Whether a value is outside the measure's range, beyond rounding."""
        return (self.low is not None and value < self.low - 1e-6) or (self.high is not None and value > self.high + 1e-6)
