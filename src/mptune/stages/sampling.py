"""Which examples stand in which batch: endless, seeded streams of row numbers.

A stream is a function of its generator alone, so that a resumed run finds its place by skipping batches.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from mptune.model.batch import Pick

Mixing = Literal["proportional", "equal", "logarithmic"]


def shuffled_rows(size: int, generator: torch.Generator) -> Iterator[int]:
    """Yield the rows 0..size-1 in ever new random orders, without end."""
    while True:
        yield from torch.randperm(size, generator=generator).tolist()


def single_task(size: int, batch_size: int, generator: torch.Generator) -> Iterator[list[Pick]]:
    """Yield batches of one task; a task smaller than the batch gives all its rows once per batch."""
    rows = shuffled_rows(size, generator)
    while True:
        yield [(0, next(rows)) for _ in range(min(batch_size, size))]


def all_tasks(sizes: Sequence[int], batch_size: int, generator: torch.Generator) -> Iterator[list[Pick]]:
    """Yield batches in which every task has an equal share, and the remainder goes round."""
    rows = [shuffled_rows(size, generator) for size in sizes]
    turn = 0
    while True:
        yield [(t, next(rows[t])) for t in ((turn + i) % len(sizes) for i in range(batch_size))]
        turn += batch_size


def tasks_alike(sizes: Sequence[int], batch_size: int, generator: torch.Generator) -> Iterator[list[Pick]]:
    """Return batches of the only task, or of all tasks in equal shares."""
    if len(sizes) == 1:
        return single_task(sizes[0], batch_size, generator)
    return all_tasks(sizes, batch_size, generator)


def stochastic_tasks(
    sizes: Sequence[int], rates: Sequence[float], batch_size: int, generator: torch.Generator
) -> Iterator[list[Pick]]:
    """Yield batches of K drawn tasks, with K uniform in 2..κ for every batch.

    The K tasks are drawn with replacement by their rates, so that fewer than K may differ; each draw brings
    batch_size // K rows and one of them the remainder.

    Args:
        sizes: examples per task. κ numbers
        rates: how often each task is drawn; they sum to one. κ numbers

    Source: Wang et al. 2023, section 3.2, stochastic task sampling; details from public code derived from it.
    """
    rows = [shuffled_rows(size, generator) for size in sizes]
    weights = torch.tensor(rates)
    while True:
        count = int(torch.randint(2, len(sizes) + 1, (), generator=generator))
        count = min(count, batch_size)
        drawn = torch.multinomial(weights, count, replacement=True, generator=generator).tolist()
        lucky = int(torch.randint(count, (), generator=generator))
        shares = [batch_size // count + (batch_size % count if i == lucky else 0) for i in range(count)]
        batch = [(task, next(rows[task])) for task, share in zip(drawn, shares, strict=True) for _ in range(share)]
        order = torch.randperm(len(batch), generator=generator).tolist()
        yield [batch[i] for i in order]


def mixing_rates(sizes: Sequence[int], mixing: Mixing, cap: int) -> list[float]:
    """Return how often each task is drawn.

    Args:
        cap: largest number of examples that counts in proportional mixing (Raffel et al. 2020, "artificial limit").
    """
    if mixing == "equal":
        weights = torch.ones(len(sizes))
    elif mixing == "logarithmic":
        weights = torch.tensor([float(n) for n in sizes]).log1p()
    else:
        weights = torch.tensor([float(min(n, cap)) for n in sizes])
    rates: list[float] = (weights / weights.sum()).tolist()
    return rates
