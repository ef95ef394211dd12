"""What results say: paired differences, the verdict, alarms. Pure functions of `Results`; no words, no pages.

Scores and differences are in points of the task's first metric, unless a metric is named. Pairs are the same task,
examples and seed; of a method that uses no target examples, every seed is paired with the run of its source training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mptune.comparison.intervals import (
    BySeed,
    Interval,
    differences_by_seed,
    interval,
    means_by_seed,
    paired_bootstrap,
)
from mptune.comparison.methods import METHODS
from mptune.comparison.report.means import CONSTANT, ZERO_SHOT, compared, learnt, mean, mean_score, rows_of, values
from mptune.comparison.report.reading import MPT, Results
from mptune.comparison.results import FROM, Line

FEWEST_TASKS = 3  # of an interval over tasks: that of two is 25 times their spread


@dataclass(frozen=True)
class Gap:
    """By how much `ours` exceeds `other` on the mean over tasks."""

    ours: str
    other: str
    pairs: Mapping[str, tuple[Sequence[Line], Sequence[Line]]]  # task to the runs of both
    metric: str | None = None

    @cached_property
    def _by_task(self) -> list[BySeed]:
        return [differences_by_seed(*(values(lines, self.metric) for lines in pair)) for pair in self.pairs.values()]

    @cached_property
    def by_seed(self) -> BySeed:
        """Seed to the mean over tasks; empty where the tasks have no seed in common."""
        return means_by_seed(self._by_task)

    @cached_property
    def over_seeds(self) -> Interval:
        """The difference of the scores, in points; Student's t."""
        return interval(list(self.by_seed.values()))

    @cached_property
    def over_rows(self) -> Interval | None:
        """The difference of the credit per test row, in points; paired bootstrap. None without credits."""
        ours, theirs = ([_credit(pair[side]) for pair in self.pairs.values()] for side in (0, 1))
        return paired_bootstrap(ours, theirs) if all([*ours, *theirs]) else None

    @cached_property
    def over_tasks(self) -> Interval:
        """The difference of the scores, in points, each task's mean over seeds one value of as many as there are tasks.

        Wider than over seeds: it says what to expect of other tasks like these. Student's t.
        """
        return interval([sum(by_seed.values()) / len(by_seed) for by_seed in self._by_task if by_seed])

    @property
    def tells_of_tasks(self) -> bool:
        """Whether there are tasks enough for an interval over them."""
        return self.over_tasks.count >= FEWEST_TASKS

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that both have."""
        return tuple(self.pairs)

    @property
    def mean(self) -> float:
        """The difference of the scores, in points."""
        return self.over_seeds.mean

    @property
    def tasks_ahead(self) -> int:
        """On how many tasks ours is above."""
        return sum(sum(by_seed.values()) > 0 for by_seed in self._by_task)

    @property
    def intervals(self) -> list[Interval]:
        """The intervals that there are; one seed alone has none."""
        seeds = [self.over_seeds] if self.over_seeds.count > 1 else []
        return seeds + ([self.over_rows] if self.over_rows else [])

    @property
    def leads(self) -> bool:
        """Whether ours is above, and every interval that there is lies above zero."""
        return self.mean > 0 and bool(self.intervals) and all(i.low > 0 for i in self.intervals)

    @property
    def trails(self) -> bool:
        """Whether ours is below, and every interval that there is lies below zero."""
        return self.mean < 0 and bool(self.intervals) and all(i.high < 0 for i in self.intervals)


@dataclass(frozen=True)
class Verdict:
    """MPT against every other prompt-based method, for one number of shots."""

    shots: int | None
    score: Interval | None  # MPT's mean over tasks
    tasks: tuple[str, ...]
    gaps: tuple[Gap, ...]
    absent: tuple[str, ...]  # rivals without results

    @property
    def leads_all(self) -> bool:
        """Whether MPT leads every rival that was run, and one at least was."""
        return bool(self.gaps) and all(gap.leads for gap in self.gaps)


@dataclass(frozen=True)
class Alarm:
    """A task on which MPT falls below what it should exceed."""

    task: str
    shots: int | None
    gap: Gap

    @property
    def certain(self) -> bool:
        """Whether chance is ruled out: every interval lies below zero."""
        return self.gap.trails


@dataclass(frozen=True)
class Curve:
    """The validations of a method on a task, over seeds."""

    method: str
    steps: tuple[int, ...]
    scores: tuple[Interval | None, ...]
    losses: tuple[Interval | None, ...]


def gap(
    results: Results,
    ours: str,
    other: str,
    shots: int | None,
    tasks: Sequence[str] | None = None,
    metric: str | None = None,
) -> Gap | None:
    """Return how much one method exceeds another on the tasks that both have; None where they share none."""
    pairs = {t: (results.of(ours, t, shots), results.of(other, t, shots))
             for t in (results.tasks if tasks is None else tasks)}  # fmt: skip
    difference = Gap(ours, other, {task: pair for task, pair in pairs.items() if all(pair)}, metric)
    return difference if difference.by_seed else None


def verdict(results: Results, shots: int | None) -> Verdict | None:
    """Return MPT against every other prompt-based method; None where MPT has no results."""
    tasks = [t for t in results.tasks if results.of(MPT, t, shots)]
    if not tasks:
        return None
    against = {rival: gap(results, MPT, rival, shots) for rival, row in METHODS.items() if row.rival}
    return Verdict(
        shots,
        _mean_over(results, MPT, tasks, shots),
        tuple(tasks),
        tuple(g for g in against.values() if g),
        tuple(rival for rival, g in against.items() if g is None),
    )


def gaps(results: Results, shots: int | None) -> list[Gap]:
    """Return MPT against every other method of the score table, in its order."""
    return [g for method in compared(results) if method != MPT and (g := gap(results, MPT, method, shots))]


def variants(results: Results, shots: int | None) -> list[tuple[Interval, Gap | None]]:
    """Return MPT and its variants, the best mean first: that mean, over the tasks of all, and MPT's difference from it.

    MPT itself has no difference. Nothing where the recipe has no variant of it with results on its tasks and seeds.
    """
    named = results.recipe.get("variants")
    pairs = named.items() if isinstance(named, dict) else ()
    bases = {name: fields.get("of") for name, fields in pairs if isinstance(fields, dict)}
    varied = [
        m for m in compared(results) if bases.get(m) == MPT and any(results.of(m, t, shots) for t in results.tasks)
    ]
    tasks = [t for t in results.tasks if all(results.of(m, t, shots) for m in (MPT, *varied))]
    ranked: list[tuple[Interval, Gap | None]] = []
    for method in (MPT, *varied):
        mean = _mean_over(results, method, tasks, shots)
        difference = None if method == MPT else gap(results, MPT, method, shots, tasks)
        if mean and (difference or method == MPT):
            ranked.append((mean, difference))
    return sorted(ranked, key=lambda each: -each[0].mean) if len(ranked) > 1 else []


def suspects() -> list[str]:
    """Return the methods that MPT is checked against task by task: those that it should exceed, and the constant."""
    return [*(method for method, row in METHODS.items() if row.suspect), CONSTANT]


def alarms(results: Results) -> list[Alarm]:
    """Return where MPT is below prompt tuning, the unadapted transfer or its teacher, or not above the constant.

    The constant is an alarm, too, where MPT is above it, but not surely.
    """
    return [
        Alarm(task, shots, g)
        for shots in results.shots
        for task in results.tasks
        for other in suspects()
        if (g := gap(results, MPT, other, shots, [task]))
        and (not learnt(g.over_seeds, 0, rows_of(results, task)) if other == CONSTANT else g.mean < 0)
    ]


def curves(results: Results, task: str, shots: int | None) -> list[Curve]:
    """Return the learning curves of one task, over the seeds that were validated at a step."""
    drawn = []
    for method in compared(results):
        points = [point for line in results.of(method, task, shots) for point in line.curve]
        by_step = [(step, [p for p in points if p.step == step]) for step in sorted({p.step for p in points})]
        validated = [
            (step, _known([p.validation for p in at]), _known([p.validation_loss for p in at])) for step, at in by_step
        ]
        kept = [(step, score, loss) for step, score, loss in validated if score or loss]
        if len(kept) > 1:
            steps, scores, losses = zip(*kept, strict=True)
            drawn.append(Curve(method, steps, scores, losses))
    return drawn


def gains(results: Results) -> tuple[list[str], list[str], list[list[float | None]]]:
    """Return source tasks, target tasks, and what each source's own prompt gains each target over no prompt. [S, T]"""
    sources = [m.removeprefix(FROM) for m in results.methods if m.startswith(FROM)]
    table = [[_gain(results, FROM + source, task) for task in results.tasks] for source in sources]
    targets = [c for c in range(len(results.tasks)) if any(row[c] is not None for row in table)]
    return sources, [results.tasks[c] for c in targets], [[row[c] for c in targets] for row in table]


def _gain(results: Results, method: str, task: str) -> float | None:
    ours, bare = (mean_score(results.of(m, task, 0)) for m in (method, ZERO_SHOT))
    return ours.mean - bare.mean if ours and bare else None


def _credit(lines: Sequence[Line]) -> list[float]:
    """Return the mean credit of each test row over the seeds, 0..100; nothing where a run has none. [rows]"""
    earned = [line.credit for line in lines if line.credit]
    if len(earned) != len(lines):
        return []
    return [100 * sum(row) / len(earned) for row in zip(*earned, strict=True)]


def _mean_over(results: Results, method: str, tasks: Sequence[str], shots: int | None) -> Interval | None:
    return mean(means_by_seed([values(results.of(method, task, shots)) for task in tasks]))


def _known(validations: Sequence[float | None]) -> Interval | None:
    """Return the mean of what was validated; a loss may be NaN."""
    known = [value for value in validations if value is not None and value == value]
    return interval(known) if known else None
