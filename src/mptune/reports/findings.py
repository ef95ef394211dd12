"""What the results say: cells, paired differences, the verdict, alarms. Pure functions of a `Run`; no words, no pages.

Scores and differences are in points of the task's first metric, unless a metric is named. Pairs are the same task,
examples and seed; of a method that uses no target examples, every seed is paired with the run of its source training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mptune.reports.reading import MPT, Run
from mptune.results import FROM, Line
from mptune.statistics import (
    BySeed,
    Interval,
    InTurn,
    differences_by_seed,
    interval,
    means_by_seed,
    paired_bootstrap,
)
from mptune.tables import BALANCED

CONSTANT, ZERO_SHOT, TEACHER = "constant", "zero-shot", "teacher"
RIVALS = ("prompt-tuning", "spot", "spot-closest", "attempt", "dept", "transfer")  # every other prompt-based method
UNRANKED = (CONSTANT, TEACHER)  # the one learns nothing, the other from all training rows
SUSPECTS = ("prompt-tuning", "transfer", TEACHER)  # to fall below one of these is negative transfer


@dataclass(frozen=True)
class Cell:
    """A method's score on a task, or its mean over tasks."""

    score: Interval | None  # over seeds
    best: bool = False  # of its column, the constant predictor and the teacher left out
    doubtful: bool = False  # its interval's lower end is not above the constant predictor


@dataclass(frozen=True)
class Row:
    """A method's line of the score table."""

    method: str
    cells: tuple[Cell, ...]
    mean: Cell
    trained: tuple[int, int] | None  # fewest and most over the tasks
    stored: tuple[int, int] | None


@dataclass(frozen=True)
class Table:
    """Methods by tasks for one number of shots and one metric."""

    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    examples: tuple[int | None, ...]  # test rows
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Gap:
    """By how much `ours` exceeds `other` on the mean over tasks."""

    ours: str
    other: str
    tasks: tuple[str, ...]
    over_seeds: Interval  # of the score; Student's t
    over_rows: Interval | None  # of the credit per test row; paired bootstrap; None without credits

    @property
    def mean(self) -> float:
        """The difference of the scores, in points."""
        return self.over_seeds.mean

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


def compared(run: Run) -> list[str]:
    """Return the methods of the score table: all but the source tasks' own prompts, which have a figure."""
    return [method for method in run.methods if not method.startswith(FROM)]


def values(lines: Sequence[Line], metric: str | None = None) -> BySeed:
    """Return seed to score."""
    found = {line.seed: value for line in lines if (value := line.value(metric)) is not None}
    return InTurn(found) if all(line.shots == 0 for line in lines) else found


def score_table(run: Run, shots: int | None, metric: str | None = None) -> Table:
    """Return the scores of one number of shots.

    Args:
        metric: of this metric, on the tasks where every line has it; without it every task's first.
    """
    on = {t: _lines_on(run, t) for t in run.tasks}  # none where only source tasks' own prompts were asked
    tasks = [
        t for t in run.tasks if on[t] and (metric is None or all(line.value(metric) is not None for line in on[t]))
    ]
    scores = {m: [values(run.of(m, t, shots), metric) for t in tasks] for m in compared(run)}
    scores = {m: found for m, found in scores.items() if any(found)}
    intervals = {
        m: [*(interval(list(v.values())) if v else None for v in found), _mean(means_by_seed(found))]
        for m, found in scores.items()
    }
    best = [
        max((i.mean for m, row in intervals.items() if m not in UNRANKED and (i := row[c])), default=None)
        for c in range(len(tasks) + 1)
    ]
    constant = intervals.get(CONSTANT, [None] * (len(tasks) + 1))
    rows = []
    for method, found in intervals.items():
        cells = [
            Cell(
                i,
                best=i is not None and method not in UNRANKED and i.mean == best[c],
                doubtful=i is not None and method != CONSTANT and (k := constant[c]) is not None and i.low <= k.mean,
            )
            for c, i in enumerate(found)
        ]
        lines = [line for t in tasks for line in run.of(method, t, shots)]
        counts = [line.parameters for line in lines if line.parameters]
        trained, stored = [p.trained for p in counts], [p.stored for p in counts]
        rows.append(Row(method, tuple(cells[:-1]), cells[-1], _ends(trained), _ends(stored)))
    firsts = [on[t][0].scores[0] for t in tasks]
    return Table(
        tuple(tasks),
        tuple(metric or s.metric for s in firsts),
        tuple(s.examples for s in firsts),
        tuple(rows),
    )


def balanced_table(run: Run, shots: int | None) -> Table | None:
    """Return the scores by macro-F1, where tasks have it beside another first metric."""
    table = score_table(run, shots, BALANCED)
    return table if any(_lines_on(run, t)[0].scores[0].metric != BALANCED for t in table.tasks) else None


def gap(run: Run, ours: str, other: str, shots: int | None, tasks: Sequence[str] | None = None) -> Gap | None:
    """Return how much one method exceeds another on the tasks that both have; None where they share none."""
    pairs = {t: (run.of(ours, t, shots), run.of(other, t, shots)) for t in (run.tasks if tasks is None else tasks)}
    pairs = {t: pair for t, pair in pairs.items() if all(pair)}
    differences = means_by_seed([_difference(*pair) for pair in pairs.values()])
    if not differences:
        return None
    mine = [_credit(lines) for lines, _ in pairs.values()]
    theirs = [_credit(lines) for _, lines in pairs.values()]
    over_rows = paired_bootstrap(mine, theirs) if all([*mine, *theirs]) else None
    return Gap(ours, other, tuple(pairs), interval(list(differences.values())), over_rows)


def verdict(run: Run, shots: int | None) -> Verdict | None:
    """Return MPT against every other prompt-based method; None where MPT has no results."""
    tasks = [t for t in run.tasks if run.of(MPT, t, shots)]
    if not tasks:
        return None
    gaps = {rival: gap(run, MPT, rival, shots) for rival in RIVALS}
    return Verdict(
        shots,
        _mean(means_by_seed([values(run.of(MPT, t, shots)) for t in tasks])),
        tuple(tasks),
        tuple(g for g in gaps.values() if g),
        tuple(rival for rival, g in gaps.items() if g is None),
    )


def gaps(run: Run, shots: int | None) -> list[Gap]:
    """Return MPT against every other method of the score table, in its order."""
    found = [gap(run, MPT, method, shots) for method in compared(run) if method != MPT]
    return [g for g in found if g]


def variants(run: Run, shots: int | None) -> list[tuple[Interval, Gap | None]]:
    """Return MPT and its variants, the best mean first: that mean, over the tasks of all, and MPT's difference from it.

    MPT itself has no difference. Nothing where the recipe has no variant of it with results on its tasks and seeds.
    """
    named = run.recipe.get("variants")
    pairs = named.items() if isinstance(named, dict) else ()
    bases = {name: fields.get("of") for name, fields in pairs if isinstance(fields, dict)}
    methods = [m for m in compared(run) if bases.get(m) == MPT and any(run.of(m, t, shots) for t in run.tasks)]
    tasks = [t for t in run.tasks if all(run.of(m, t, shots) for m in (MPT, *methods))]
    ranked: list[tuple[Interval, Gap | None]] = []
    for method in (MPT, *methods):
        mean = _mean(means_by_seed([values(run.of(method, t, shots)) for t in tasks]))
        found = None if method == MPT else gap(run, MPT, method, shots, tasks)
        if mean and (found or method == MPT):
            ranked.append((mean, found))
    return sorted(ranked, key=lambda each: -each[0].mean) if len(ranked) > 1 else []


def tasks_ahead(run: Run, found: Gap, shots: int | None) -> int:
    """Return on how many of a gap's tasks ours is above."""
    per_task = [_difference(run.of(found.ours, t, shots), run.of(found.other, t, shots)) for t in found.tasks]
    return sum(sum(by_seed.values()) > 0 for by_seed in per_task)


def alarms(run: Run) -> list[Alarm]:
    """Return where MPT is below prompt tuning, the unadapted transfer or its teacher, or not above the constant.

    The constant is an alarm, too, where MPT is above it but its interval over seeds is not.
    """
    found = []
    for shots in run.shots:
        for task in run.tasks:
            for other in (*SUSPECTS, CONSTANT):
                g = gap(run, MPT, other, shots, [task])
                if g and (g.over_seeds.low <= 0 if other == CONSTANT else g.mean < 0):
                    found.append(Alarm(task, shots, g))
    return found


def curves(run: Run, task: str, shots: int | None) -> list[Curve]:
    """Return the learning curves of one task, over the seeds that were validated at a step."""
    found = []
    for method in compared(run):
        lines = [line for line in run.of(method, task, shots) if line.curve]
        steps = sorted({point.step for line in lines for point in line.curve})
        at = [[point for line in lines for point in line.curve if point.step == step] for step in steps]
        scores = [_over([p.validation for p in points]) for points in at]
        losses = [_over([p.validation_loss for p in points]) for points in at]
        kept = [i for i in range(len(steps)) if scores[i] or losses[i]]
        if len(kept) > 1:
            found.append(Curve(method, *(tuple(column[i] for i in kept) for column in (steps, scores, losses))))  # type: ignore[arg-type]
    return found


def gains(run: Run) -> tuple[list[str], list[str], list[list[float | None]]]:
    """Return source tasks, target tasks, and what each source's own prompt gains each target over no prompt. [S, T]"""
    sources = [m.removeprefix(FROM) for m in run.methods if m.startswith(FROM)]
    table = [[_gain(run, FROM + source, task) for task in run.tasks] for source in sources]
    targets = [c for c in range(len(run.tasks)) if any(row[c] is not None for row in table)]
    return sources, [run.tasks[c] for c in targets], [[row[c] for c in targets] for row in table]


def _gain(run: Run, method: str, task: str) -> float | None:
    ours, bare = (values(run.of(m, task, 0)) for m in (method, ZERO_SHOT))
    return _average(ours) - _average(bare) if ours and bare else None


def _average(by_seed: BySeed) -> float:
    return sum(by_seed.values()) / len(by_seed)


def _difference(ours: Sequence[Line], theirs: Sequence[Line]) -> BySeed:
    return differences_by_seed(values(ours), values(theirs))


def _credit(lines: Sequence[Line]) -> list[float]:
    """Return the mean credit of each test row over the seeds, 0..100; nothing where a run has none. [rows]"""
    earned = [line.credit for line in lines if line.credit]
    if len(earned) != len(lines):
        return []
    return [100 * sum(row) / len(earned) for row in zip(*earned, strict=True)]


def _lines_on(run: Run, task: str) -> list[Line]:
    return [line for line in run.lines if line.task == task and not line.method.startswith(FROM)]


def _mean(by_seed: BySeed) -> Interval | None:
    return interval(list(by_seed.values())) if by_seed else None


def _over(found: Sequence[float | None]) -> Interval | None:
    kept = [value for value in found if value is not None and value == value]  # a loss may be NaN
    return interval(kept) if kept else None


def _ends(counts: Sequence[int]) -> tuple[int, int] | None:
    return (min(counts), max(counts)) if counts else None
