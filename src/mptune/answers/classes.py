"""Answers by class: how many rows of each label were given which, and what that says of a label."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mptune.tasks.task import Example, Task


@dataclass(frozen=True)
class ClassScore:
    """What was answered to the rows of one label."""

    word: str
    recall: float | None  # % of its rows that were given it; None without rows
    precision: float | None  # % of the rows that were given it that have it; None where none was
    rows: int
    given: tuple[int, ...]  # of its rows, by the label word that they were given; text that is no label last

    def as_dict(self) -> dict[str, Any]:
        """Return the score as JSON holds it."""
        return asdict(self)


def confusion(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> list[list[int]] | None:
    """Return rows by class and answer [C, C + 1], text that is no label last; None for free text."""
    if not task.verbalizer:
        return None
    place = {word: number for number, word in enumerate(task.label_words)}
    counts = [[0] * (len(place) + 1) for _ in place]
    for example, answer in zip(examples, answers, strict=True):
        counts[place[example.target]][place.get(answer, len(place))] += 1
    return counts


def by_class(words: Sequence[str], counts: Sequence[Sequence[int]]) -> list[ClassScore]:
    """Return what a confusion says of each label.

    Args:
        words: the label words, in its order.
        counts: rows by class and answer. [C, C + 1]
    """
    answered = [sum(row[c] for row in counts) for c in range(len(words))]
    return [
        ClassScore(word, _share(counts[c][c], sum(counts[c])), _share(counts[c][c], answered[c]), sum(counts[c]),
                   tuple(counts[c]))
        for c, word in enumerate(words)
    ]  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
