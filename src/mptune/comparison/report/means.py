"""The score table: methods by tasks, with means over all tasks and over those whose data the backbone has not seen.

Scores are in points of the task's first metric, unless a metric is named.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mptune.comparison.intervals import BySeed, Interval, InTurn, interval, means_by_seed
from mptune.comparison.methods import METHODS
from mptune.comparison.report.reading import Results, names
from mptune.comparison.results import BALANCED, FROM, Line

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
    unseen: ScoreCell  # its mean over the tasks whose data the backbone has not seen; no score where it has seen all
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


def compared(results: Results) -> list[str]:
    """Return the methods of the score table: all but the source tasks' own prompts, which have a figure."""
    return [method for method in results.methods if not method.startswith(FROM)]


def values(lines: Sequence[Line], metric: str | None = None) -> BySeed:
    """Return seed to score."""
    by_seed = {line.seed: value for line in lines if (value := line.value(metric)) is not None}
    return InTurn(by_seed) if all(line.shots == 0 for line in lines) else by_seed


def mean_score(lines: Sequence[Line], metric: str | None = None) -> Interval | None:
    """Return the mean of runs of one method on one task; None where there are none."""
    return mean(values(lines, metric))


def score_table(results: Results, shots: int | None, metric: str | None = None) -> ScoreTable:
    """Return the scores of one number of shots.

    Args:
        metric: of this metric, on the tasks where every line has it; without it every task's first.
    """
    on = {task: results.on(task) for task in results.tasks}
    # A task has no lines where only source tasks' own prompts were asked.
    tasks = [t for t, lines in on.items() if lines and all(line.value(metric) is not None for line in lines)]
    seen = tuple(task in names(results.recipe.get("seen")) for task in tasks)
    fresh = [t for t, known in enumerate(seen) if not known]
    by_method: dict[str, list[Interval | None]] = {}
    for method in compared(results):
        by_task = [values(results.of(method, task, shots), metric) for task in tasks]
        if any(by_task):
            over = (by_task, [by_task[t] for t in fresh])
            by_method[method] = [*map(mean, by_task), *(mean(means_by_seed(each)) for each in over)]
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


def rows_of(results: Results, task: str) -> tuple[int]:
    """Return the number of a task's test rows."""
    return (results.on(task)[0].scores[0].examples,)


def mean(by_seed: BySeed) -> Interval | None:
    """Return the mean over seeds; None where there are none."""
    return interval(list(by_seed.values())) if by_seed else None


def _ends(counts: Sequence[int]) -> tuple[int, int] | None:
    return (min(counts), max(counts)) if counts else None
