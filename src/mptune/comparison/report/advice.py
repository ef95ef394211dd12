"""What results say to somebody who must choose: which method for which task, and which methods stood still."""

from collections.abc import Sequence
from dataclasses import dataclass

from mptune.comparison.intervals import Interval
from mptune.comparison.methods import METHODS, Method
from mptune.comparison.report.findings import Gap, gap
from mptune.comparison.report.means import CONSTANT, ZERO_SHOT, compared, learnt, mean_score, rows_of
from mptune.comparison.report.reading import MPT, Results
from mptune.comparison.results import Line
from mptune.config import TrainingConfig

TRANSFER = "transfer"
NAMED = 4  # methods that advice names beside the best


@dataclass(frozen=True)
class Choice:
    """A method on a task: its score over seeds, and what a run of it took."""

    method: str
    score: Interval
    seconds: float | None  # mean of a run; None where lines lack them

    def __str__(self) -> str:
        took = "" if self.seconds is None else f", {self.seconds:,.0f} s"
        return f"{self.method} {self.score}{took}"


@dataclass(frozen=True)
class Advice:
    """The best method for a task, and those that the results do not tell from it, the better first."""

    task: str
    best: Choice
    level: tuple[Choice, ...]
    constant: float | None = None  # score of the commonest label, where the best is not surely above it

    def __str__(self) -> str:
        named = "; ".join(map(str, self.level[:NAMED]))
        more = f"; and {len(self.level) - NAMED} more" if len(self.level) > NAMED else ""
        nothing = (
            ""
            if self.constant is None
            else (f". Nothing is surely learnt: the commonest label alone has {self.constant:.1f}")
        )
        return f"{self.task}: {self.best}" + (f". Not told apart: {named}{more}" if named else "") + nothing


def advice(results: Results, shots: int | None) -> list[Advice]:
    """Return the best method for each task; methods that serve as a yardstick alone are left out."""
    advised = []
    for task in results.tasks:
        choices = [choice for method in compared(results) if _row(results, method).ranked
                   and (choice := _choice(results, method, task, shots))]  # fmt: skip
        if len(choices) < 2:
            continue
        choices.sort(key=lambda choice: -choice.score.mean)
        best, *others = choices
        level = [other for other in others if not _told_apart(results, best.method, other.method, task, shots)]
        floor = mean_score(results.of(CONSTANT, task, shots))
        surely = floor is None or learnt(best.score, floor.mean, rows_of(results, task))
        advised.append(Advice(task, best, tuple(level), None if surely or floor is None else floor.mean))
    return advised


def stood_still(results: Results, shots: int | None) -> dict[str, list[str]]:
    """Return methods whose training changed nothing, and the tasks on which that was so in every run.

    The best validated state is the one before the first step; or, where nothing was validated, every test row earns
    what it earns without any training.
    """
    still: dict[str, list[str]] = {}
    for method in compared(results):
        row = _row(results, method)
        if row.section is None or not row.takes_examples or not issubclass(row.section.config, TrainingConfig):
            continue
        start = TRANSFER if row.begins_with == "multitask prompt" else ZERO_SHOT if not _prompts(row) else ""
        for task in results.tasks:
            lines, untrained = results.of(method, task, shots), results.of(start, task, 0) if start else []
            if lines and all(_kept_its_start(line, untrained) for line in lines):
                still.setdefault(method, []).append(task)
    return still


def simple_rivals_ahead(results: Results, shots: int | None) -> list[Gap]:
    """Return the simple rivals whose mean over the tasks that both have is above MPT's."""
    simple = [method for method in compared(results) if _row(results, method).simple]
    return [g for method in simple if (g := gap(results, MPT, method, shots)) and g.mean < 0]


def _row(results: Results, method: str) -> Method:
    """Return what is known of a method, or of that of which it is a variant."""
    variants = results.recipe.get("variants")
    fields = variants.get(method) if isinstance(variants, dict) else None
    base = fields.get("of") if isinstance(fields, dict) else method
    return METHODS.get(str(base), METHODS[ZERO_SHOT])  # of results whose method this version does not know


def _prompts(row: Method) -> bool:
    return row.rival or row.begins_with in ("teachers", "multitask prompt")


def _choice(results: Results, method: str, task: str, shots: int | None) -> Choice | None:
    lines = results.of(method, task, shots)
    score = mean_score(lines)
    seconds = [line.seconds for line in lines if line.seconds is not None]
    return Choice(method, score, sum(seconds) / len(seconds) if seconds else None) if score else None


def _told_apart(results: Results, best: str, other: str, task: str, shots: int | None) -> bool:
    difference = gap(results, best, other, shots, [task])
    return difference is not None and difference.leads


def _kept_its_start(line: Line, untrained: Sequence[Line]) -> bool:
    validated = [point for point in line.curve if point.validation is not None]
    if validated:
        best = max(validated, key=lambda point: (point.validation or 0, -(point.validation_loss or 0)))
        return best.step == 0 and validated[-1].step > 0
    return line.credit is not None and any(line.credit == start.credit for start in untrained)
