"""What results say: scores, paired differences, the verdict, alarms. Pure functions of `Results`; no words, no pages.

Scores and differences are in points of the task's first metric, unless a metric is named. Pairs are the same task,
examples and seed; of a method that uses no target examples, every seed is paired with the run of its source training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mptune.comparison.intervals import (
    BySeed,
    Interval,
    InTurn,
    differences_by_seed,
    interval,
    means_by_seed,
    paired_bootstrap,
)
from mptune.comparison.methods import METHODS
from mptune.comparison.report.reading import MPT, Results, names
from mptune.comparison.results import BALANCED, FROM, Line

FEWEST_TASKS = 3  # of an interval over tasks: that of two is 25 times their spread
CONSTANT, ZERO_SHOT = "constant", "zero-shot"


@dataclass(frozen=True)
class ScoreCell:
    """A method's score on a task, or its mean over tasks."""

    score: Interval | None  # over seeds
    best: bool = False  # of its column, methods without a rank left out
    doubtful: bool = False  # it is not surely above the constant predictor


@dataclass(frozen=True)
class MethodRow:
    """A method's line of the score table."""

    method: str
    cells: tuple[ScoreCell, ...]
    mean: ScoreCell
    unseen: ScoreCell  # its mean over the tasks whose data the backbone has not seen; no score where all or none are so
    trained: tuple[int, int] | None  # fewest and most over the tasks
    stored: tuple[int, int] | None


@dataclass(frozen=True)
class ScoreTable:
    """Methods by tasks for one number of shots and one metric."""

    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    examples: tuple[int, ...]  # test rows
    seen: tuple[bool, ...]  # whether the backbone was trained on the task's data, as the recipe says
    rows: tuple[MethodRow, ...]

    @property
    def tells_unseen(self) -> bool:
        """Whether the mean over the tasks whose data the backbone has not seen is another than that over all."""
        return any(self.seen) and not all(self.seen)

    def score(self, method: str, task: str | None = None) -> Interval | None:
        """Return a method's score on a task, without one its mean over tasks; None where it has none."""
        row = self._row(method)
        return None if row is None else (row.mean if task is None else row.cells[self.tasks.index(task)]).score

    def unseen(self, method: str) -> Interval | None:
        """Return a method's mean over the tasks whose data the backbone has not seen; None where it has none."""
        row = self._row(method)
        return None if row is None else row.unseen.score

    def _row(self, method: str) -> MethodRow | None:
        return next((row for row in self.rows if row.method == method), None)


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


def compared(results: Results) -> list[str]:
    """Return the methods of the score table: all but the source tasks' own prompts, which have a figure."""
    return [method for method in results.methods if not method.startswith(FROM)]


def values(lines: Sequence[Line], metric: str | None = None) -> BySeed:
    """Return seed to score."""
    by_seed = {line.seed: value for line in lines if (value := line.value(metric)) is not None}
    return InTurn(by_seed) if all(line.shots == 0 for line in lines) else by_seed


def mean_score(lines: Sequence[Line], metric: str | None = None) -> Interval | None:
    """Return the mean of runs of one method on one task; None where there are none."""
    return _mean(values(lines, metric))


def score_table(results: Results, shots: int | None, metric: str | None = None) -> ScoreTable:
    """Return the scores of one number of shots.

    Args:
        metric: of this metric, on the tasks where every line has it; without it every task's first.
    """
    on = {task: results.on(task) for task in results.tasks}
    # A task has no lines where only source tasks' own prompts were asked.
    tasks = [t for t, lines in on.items() if lines and all(line.value(metric) is not None for line in lines)]
    seen = tuple(task in names(results.recipe.get("seen")) for task in tasks)
    fresh = [t for t, known in enumerate(seen) if any(seen) and not known]
    by_method: dict[str, list[Interval | None]] = {}
    for method in compared(results):
        by_task = [values(results.of(method, task, shots), metric) for task in tasks]
        if any(by_task):
            over = (by_task, [by_task[t] for t in fresh])
            by_method[method] = [*map(_mean, by_task), *(_mean(means_by_seed(each)) for each in over)]
    columns = range(len(tasks) + 2)
    unranked = [method for method, row in METHODS.items() if not row.ranked]
    ranked = [column for method, column in by_method.items() if method not in unranked]
    best = [max((i.mean for row in ranked if (i := row[c])), default=None) for c in columns]
    floor = by_method.get(CONSTANT, [None] * len(columns))
    examples = tuple(row for t in tasks for row in rows_of(results, t))
    tested = [*((count,) for count in examples), examples, tuple(examples[t] for t in fresh)]
    rows = []
    for method, scores in by_method.items():
        cells = tuple(
            ScoreCell(
                score,
                best=score is not None and method not in unranked and score.mean == best[c],
                doubtful=method != CONSTANT and score is not None and (low := floor[c]) is not None
                and not learnt(score, low.mean, tested[c]),
            )
            for c, score in enumerate(scores)
        )  # fmt: skip
        costs = [line.parameters for t in tasks for line in results.of(method, t, shots) if line.parameters]
        trained, stored = _ends([cost.trained for cost in costs]), _ends([cost.stored for cost in costs])
        rows.append(MethodRow(method, cells[:-2], cells[-2], cells[-1], trained, stored))
    metrics = tuple(metric or on[t][0].scores[0].metric for t in tasks)
    return ScoreTable(tuple(tasks), metrics, examples, seen, tuple(rows))


def learnt(score: Interval, floor: float, rows: Sequence[int]) -> bool:
    """Return whether a score is surely above the constant predictor's, of the same test rows.

    Its interval over seeds lies above; or, since that of two seeds is twelve times their spread, it is further above
    than the drawing of the test rows explains: a row's two credits differ by at most one, in the mean by ``gap``.

    Args:
        score: of one task, or its mean over several.
        floor: the constant predictor's.
        rows: of each task; 0 where that is not known.
    """
    gap = min(1.0, (score.mean - floor) / 100)
    if score.low > floor or gap <= 0 or not all(rows):
        return score.low > floor
    return gap > 1.96 * math.sqrt((1 - gap**2) * sum(1 / n for n in rows)) / len(rows)


def unseen(results: Results) -> list[str]:
    """Return the tasks whose data the backbone has not seen, by the recipe; nothing where it names none that was."""
    seen = names(results.recipe.get("seen"))
    return [task for task in results.tasks if task not in seen] if seen else []


def balanced_table(results: Results, shots: int | None) -> ScoreTable | None:
    """Return the scores by macro-F1, where tasks have it beside another first metric."""
    table = score_table(results, shots, BALANCED)
    return table if any(results.on(t)[0].scores[0].metric != BALANCED for t in table.tasks) else None


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


def rows_of(results: Results, task: str) -> tuple[int]:
    """Return the number of a task's test rows."""
    return (results.on(task)[0].scores[0].examples,)


def _mean_over(results: Results, method: str, tasks: Sequence[str], shots: int | None) -> Interval | None:
    return _mean(means_by_seed([values(results.of(method, task, shots)) for task in tasks]))


def _mean(by_seed: BySeed) -> Interval | None:
    return interval(list(by_seed.values())) if by_seed else None


def _known(validations: Sequence[float | None]) -> Interval | None:
    """Return the mean of what was validated; a loss may be NaN."""
    known = [value for value in validations if value is not None and value == value]
    return interval(known) if known else None


def _ends(counts: Sequence[int]) -> tuple[int, int] | None:
    return (min(counts), max(counts)) if counts else None
