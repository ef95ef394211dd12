"""Scores from 0 to 100. Each metric is a function of predictions and references, from a library that is kept."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mptune.tasks import Example, Task


@dataclass(frozen=True)
class Score:
    """The value of a metric on the rows of one split."""

    task: str
    split: str
    metric: str
    value: float  # 0..100; Matthews from -100
    examples: int

    def as_dict(self) -> dict[str, Any]:
        """Return the score as JSON holds it."""
        return asdict(self)


def score(task: Task, split: str, examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    """Return the task's metrics, in its order.

    Args:
        answers: the predicted label words, or free texts; one that is no label word counts as wrong.
    """
    return [
        Score(task.name, split, name, 100 * _METRICS[name](task, examples, answers), len(examples))
        for name in task.metrics
    ]


def constant_answer(task: Task, examples: Sequence[Example]) -> str:
    """Return the commonest target: what a predictor that learnt nothing but the frequencies says."""
    targets = [e.target for e in examples]
    return max(dict.fromkeys(targets), key=targets.count)


def _classes(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return right and predicted classes as numbers; -1 is an answer that is no label word."""
    number = {word: i for i, word in enumerate(task.label_words)}
    return [number[e.target] for e in examples], [number.get(a, -1) for a in answers]


def _accuracy(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    return sum(e.target == a for e, a in zip(examples, answers, strict=True)) / max(1, len(examples))


def _f1(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    """F1 of the verbalizer's last label, the positive one in GLUE."""
    from sklearn.metrics import f1_score

    right, predicted = _classes(task, examples, answers)
    last = len(task.label_words) - 1
    return float(f1_score(right, predicted, labels=[last], average="macro", zero_division=0))


def _f1_macro(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    from sklearn.metrics import f1_score

    right, predicted = _classes(task, examples, answers)
    labels = list(range(len(task.label_words)))
    return float(f1_score(right, predicted, labels=labels, average="macro", zero_division=0))


def _matthews(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> float:
    from sklearn.metrics import matthews_corrcoef

    right, predicted = _classes(task, examples, answers)
    if len({*right, *predicted}) == 1:
        return 0.0  # as of every constant, but scikit-learn warns where the rows have no second class either
    return float(matthews_corrcoef(right, predicted))


def _squad(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
    """Exact match and token F1 after SQuAD's normalisation, the best over an example's right answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics warns of optional parts that are not used here
        from torchmetrics.functional.text import squad

    predictions = [{"id": str(i), "prediction_text": a} for i, a in enumerate(answers)]
    targets: list[dict[str, Any]] = [
        {"id": str(i), "answers": {"text": list(e.references), "answer_start": [0] * len(e.references)}}
        for i, e in enumerate(examples)
    ]
    return {name: float(value) / 100 for name, value in squad(predictions, targets).items()}


_METRICS: dict[str, Callable[[Task, Sequence[Example], Sequence[str]], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "matthews": _matthews,
    "exact_match": lambda *given: _squad(*given)["exact_match"],
    "squad_f1": lambda *given: _squad(*given)["f1"],
}
