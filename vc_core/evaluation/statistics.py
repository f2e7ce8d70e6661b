"""Comparing values: a bootstrap of paired differences, and rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Samples of the bootstrap, and the part of them inside the interval.
RESAMPLES, CONFIDENCE = 10_000, 0.95
#: Numbers that are drawn at once.
AT_ONCE = 2**22


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and its confidence interval; a single pair has none."""

    pairs: int
    first: float
    second: float
    mean: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def paired_difference(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Difference:
    """The mean of ``second - first``, pair by pair, with a 95 % percentile interval by bootstrap (Efron, 1979).

    Args:
        first, second: as many values each, at least one.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    differences = other - one
    count = len(differences)
    low = high = None
    if count > 1:
        generator = np.random.default_rng(seed)
        part = max(1, AT_ONCE // count)
        drawn = [
            differences[generator.integers(0, count, [min(part, RESAMPLES - done), count])].mean(1) for done in range(0, RESAMPLES, part)
        ]
        tail = (1 - CONFIDENCE) / 2
        low, high = (float(each) for each in np.quantile(np.concatenate(drawn), [tail, 1 - tail]))
    return Difference(count, float(one.mean()), float(other.mean()), float(differences.mean()), low, high)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, with mean ranks for ties; NaN where all values of one are equal."""
    ranks = [_ranks(np.asarray(each, np.float64)) for each in (first, second)]
    deviations = [each - each.mean() for each in ranks]
    scale = np.sqrt((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum())
    return float((deviations[0] * deviations[1]).sum() / scale) if scale else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]
