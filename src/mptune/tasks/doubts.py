"""What training rows cannot teach, or teach wrongly: said before training, since a score does not show it."""

from collections.abc import Iterable, Sequence

from mptune.tasks.splits import normal
from mptune.tasks.task import Example, Task, named_rows

PAIRS = 5  # how many are shown


def doubts(task: Task, train: Sequence[Example], shots: int | None) -> list[str]:
    """Return what is to be said of the rows that a task is trained on.

    Args:
        train: those that were drawn.
        shots: how many were to be drawn of every class, in all for free text; None where all are taken.
    """
    said = [*_of_classes(task, train), *_too_few(task, train, shots)]
    if not (task.gather or task.every_answer):  # there, rows of one input are its right answers
        said += _repeated(task, train)
    return [f"{task.name}: {each}" for each in said]


def _of_classes(task: Task, train: Sequence[Example]) -> Iterable[str]:
    there = {e.label for e in train}
    absent = [value for value in task.verbalizer if value not in there]
    if not (train and absent):
        return
    if len(there) == 1:
        yield (
            f"all training rows have the label {train[0].label}, so there is nothing to tell apart; add rows of "
            f"{_listed(absent)}"
        )
    else:
        yield f"no training row has the label {_listed(absent)}, which will hardly be answered; add some"


def _too_few(task: Task, train: Sequence[Example], shots: int | None) -> Iterable[str]:
    if shots is None:
        return
    rows: dict[str | None, list[int]] = {}
    for e in train:
        rows.setdefault(e.label, []).append(e.row)
    few = [
        f"{named_rows(numbers)}{f' of label {label}' if task.verbalizer else ''}"
        for label, numbers in rows.items()
        if len(numbers) < shots
    ]
    if few:
        yield f"there are fewer training rows than {shots} shots: {'; '.join(few)}"


def _repeated(task: Task, train: Sequence[Example]) -> Iterable[str]:
    firsts: dict[str, Example] = {}
    again: list[tuple[int, int]] = []
    against: list[tuple[int, int]] = []
    for e in train:
        first = firsts.setdefault(normal(e.input), e)
        if first is not e:
            if first.target == e.target:
                again.append((e.row, first.row))
            elif task.verbalizer:  # a text may be answered in many words, but has one label
                against.append((e.row, first.row))
    if again:
        yield f"some training rows stand twice, and count double: {_paired(again)}"
    if against:
        yield f"some training rows have one text and two labels: {_paired(against)}"


def _paired(pairs: Sequence[tuple[int, int]]) -> str:
    shown = ", ".join(f"row {row} as {first}" for row, first in pairs[:PAIRS])
    return shown + (f" and {len(pairs) - PAIRS} more" if len(pairs) > PAIRS else "")


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:PAIRS]) + (f" and {len(values) - PAIRS} more" if len(values) > PAIRS else "")
