"""The values of a clip by all measures that it and the tools allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .clip import Clip
from .measures import MEASURES
from .optional import MissingLibrary
from .score import Measure, NotMeasured, Score
from .tools import Tools

#: What a clip lacks, in a message.
LACKS = {"prompt": "needs a prompt", "image": "needs the source image"}


@dataclass
class Scores:
    """The values of a clip.

    Attributes:
        found: by key, see :func:`key`.
        skipped: why a measure has no value, by its name or key.
        outside: keys of values outside their measure's range.
    """

    found: dict[str, Score] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        return {key: score.value for key, score in self.found.items()}


def key(measure: Measure, tool: Any = None) -> str:
    """The name of a value: the measure's, and its tool's tag in parentheses, such as ``flow_score (DIS)``."""
    tag = getattr(tool, "tag", "")
    return f"{measure.name} ({tag})" if tag else measure.name


def measure_of(name: str) -> Measure | None:
    """The measure of a value's key; None for another name."""
    return MEASURES.get(name.partition(" (")[0])


def title(name: str) -> str:
    """The title of a value's key, such as ``Flow score (DIS)``."""
    measure = measure_of(name)
    return name if measure is None else measure.title + name[len(measure.name) :]


def evaluate(clip: Clip, measures: Sequence[Measure], tools: Tools, before: Callable[[], None] | None = None) -> Scores:
    """Measure a clip. What can't be measured has a reason in place of a value.

    Args:
        before: called before each measure; what it raises ends the evaluation.
    """
    scores = Scores()
    for measure in measures:
        if before is not None:
            before()
        reason = _lacking(clip, measure)
        if reason is None and measure.tool and not tools.found.get(measure.tool):
            reason = tools.missing.get(measure.tool, f"needs a {measure.tool}")
        if reason is not None:
            scores.skipped[measure.name] = reason
            continue
        for tool in tools.found[measure.tool] if measure.tool else [None]:
            _measure(scores, clip, measure, tool)
    return scores


def _lacking(clip: Clip, measure: Measure) -> str | None:
    for need in measure.needs:
        if getattr(clip, need) is None:
            return LACKS[need]
    if len(clip) < measure.frames:
        return f"needs at least {measure.frames} frames"
    return None


def _measure(scores: Scores, clip: Clip, measure: Measure, tool: Any) -> None:
    name = key(measure, tool)
    try:
        score = measure.run(clip, tool)
    except (NotMeasured, MissingLibrary) as error:
        scores.skipped[name] = str(error)
        return
    if not math.isfinite(score.value):
        scores.skipped[name] = "gives no number for this video"
        return
    scores.found[name] = score
    if measure.outside(score.value):
        scores.outside.append(name)
