"""Means with intervals, and paired differences.

Over seeds by Student's t: few seeds, roughly normal means. Over test rows by the bootstrap: many rows, any law.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BySeed = Mapping[int, float]

_BLOCK = 2**22  # counts held at once while resampling: 32 MiB


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


class InTurn(dict[int, float]):
    """Values of runs without target examples, one for each source training, which the seeds take in turn."""


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of values and its 95 % t-interval; equal bounds where there is one value or no spread."""
    count, mean = len(values), sum(values) / len(values)
    if count < 2:
        return Interval(mean, mean, mean, count)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1) / count)
    half = float(stats.t.ppf(0.975, count - 1)) * spread
    return Interval(mean, mean - half, mean + half, count)


def means_by_seed(per_task: Sequence[BySeed]) -> BySeed:
    """Return seed to mean over tasks, for the seeds that every task has.

    Tasks of one seed share its examples and its luck, so that seeds are what an interval counts.
    """
    return {s: sum(_at(v, s) for v in per_task) / len(per_task) for s in _common(per_task)}


def differences_by_seed(ours: BySeed, theirs: BySeed) -> BySeed:
    """Return seed to by how much ``ours`` exceed ``theirs``, for the seeds of both."""
    return {s: _at(ours, s) - _at(theirs, s) for s in _common([ours, theirs])}


def _common(several: Sequence[BySeed]) -> list[int]:
    """Return the seeds that all have, in order; those of the source trainings where none uses target examples."""
    if not several or not all(several):
        return []
    seeds = [set(v) for v in several if not isinstance(v, InTurn)]
    return sorted(set.intersection(*seeds)) if seeds else list(range(max(map(len, several))))


def _at(by_seed: BySeed, seed: int) -> float:
    return by_seed[sorted(by_seed)[seed % len(by_seed)]] if isinstance(by_seed, InTurn) else by_seed[seed]


def paired_bootstrap(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return how much ``ours`` exceed ``theirs`` on the mean over tasks, with its 95 % percentile interval over rows.

    Rows are drawn with replacement within each task, the same rows for both sides. Every task weighs the same,
    however many rows it has.

    Args:
        ours, theirs: what each test row of each task earned, in the same order of tasks and rows; of several seeds
            the row's mean.
        seed: decides the resamples; same seed, same interval.

    Source: Efron and Tibshirani 1993, chapter 13 (percentile interval).
    """
    generator = np.random.default_rng(seed)
    means = np.zeros(resamples)
    mean, rows = 0.0, 0
    for mine, other in zip(ours, theirs, strict=True):
        if len(mine) != len(other) or not len(mine):
            raise ValueError(f"a task wants as many rows on both sides, one at least; got {len(mine)} and {len(other)}")
        difference = np.asarray(mine, dtype=float) - np.asarray(other, dtype=float)
        # Drawing n rows is drawing how often each value occurs among n: far fewer numbers, the same law. What differs
        # in the last bits only is one value.
        values, counts = np.unique(np.round(difference, 9), return_counts=True)
        share = counts / len(difference)
        size = max(1, _BLOCK // len(values))
        drawn = [
            generator.multinomial(len(difference), share, size=min(size, resamples - start)) @ values
            for start in range(0, resamples, size)
        ]
        means += np.concatenate(drawn) / len(difference) / len(ours)
        mean += float(difference.mean()) / len(ours)
        rows += len(difference)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean, float(low), float(high), rows)
