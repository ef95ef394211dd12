"""Means with intervals, and paired differences. Student's t throughout: few seeds, roughly normal means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        """Return ``71.3 ± 2.0``, or the mean alone where one value has no interval."""
        half = (self.high - self.low) / 2
        return f"{self.mean:.1f} ± {half:.1f}" if math.isfinite(half) and self.count > 1 else f"{self.mean:.1f}"


@dataclass(frozen=True)
class Paired:
    """The mean difference of pairs, its 95 % interval, and the p-value of the paired t-test."""

    mean: float
    low: float
    high: float
    p: float
    count: int

    def __str__(self) -> str:
        """Return the difference as a sentence part."""
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}], p = {self.p:.2g}, {self.count} pairs"


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of values and its 95 % t-interval; equal bounds where there is one value or no spread."""
    count, mean = len(values), sum(values) / len(values)
    if count < 2:
        return Interval(mean, mean, mean, count)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1) / count)
    half = float(stats.t.ppf(0.975, count - 1)) * spread
    return Interval(mean, mean - half, mean + half, count)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Return how much ``ours`` exceed ``theirs``, pair by pair."""
    differences = interval([a - b for a, b in zip(ours, theirs, strict=True)])
    p = 1.0
    if differences.high > differences.low:
        p = float(stats.ttest_rel(ours, theirs).pvalue)
    elif differences.mean:
        p = 0.0 if differences.count > 1 else 1.0
    return Paired(differences.mean, differences.low, differences.high, p, differences.count)


def pearson(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the correlation of pairs, -1..1; 0 where either does not vary."""
    return float(stats.pearsonr(ours, theirs).statistic) if _both_vary(ours, theirs) else 0.0


def spearman(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the correlation of the ranks of pairs, -1..1; 0 where either does not vary."""
    return float(stats.spearmanr(ours, theirs).statistic) if _both_vary(ours, theirs) else 0.0


def _both_vary(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return len(set(ours)) > 1 and len(set(theirs)) > 1
