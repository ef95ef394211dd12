"""What held-out rows say of a prompt's confidences: a temperature, and a threshold for an asked precision.

Shares run from 0 to 1 here, as confidences do. Why half of the rows choose and the others confirm:
docs/decisions/0018-calibration.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats
from torch import Generator, randperm

from mptune.answers.evaluation import Answers, answer, encoded_rows, refuse_not_finite, some_rows
from mptune.config import EvaluateConfig
from mptune.errors import WRONG_USE, DataError, UsageError
from mptune.model.backbone import Backbone
from mptune.model.encoding import Encoded
from mptune.prompts.card import LEAST_TEMPERATURE, MOST_TEMPERATURE, Calibration
from mptune.prompts.prompt import MultitaskPrompt
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Split, Task

HELD_OUT: tuple[Split, ...] = ("validation", "test")  # a prompt is surer of the rows that it has learnt from
FEWEST = 20  # rows; of fewer, a temperature says little and a threshold nothing
BINS = 15  # of the calibration error: Guo et al. 2017
SURE = 0.95  # with what confidence a precision is at least its bound
PLACES = 10_000  # thresholds have four decimal places, as confidences in tables

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kept:
    """The rows of one half whose confidence is the threshold's or more."""

    rows: int  # of the half
    answered: int
    right: int

    @property
    def coverage(self) -> float:
        """The share of the rows that are answered."""
        return self.answered / self.rows

    @property
    def precision(self) -> float:
        """The share of right answers among them; 0 where none is answered."""
        return self.right / max(1, self.answered)

    @property
    def at_least(self) -> float:
        """The least precision that this speaks for."""
        return float(least_precision(np.array([self.right]), np.array([self.answered]))[0])

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as JSON holds them."""
        shares = {"coverage": self.coverage, "precision": self.precision, "at_least": self.at_least}
        return {"rows": self.rows, "answered": self.answered, "right": self.right, **shares}


@dataclass(frozen=True)
class Calibrated:
    """What was found for one task, and how good it is."""

    task: str
    calibration: Calibration
    error_before: float  # expected calibration error, on all rows
    error_after: float
    reachable: float  # the highest precision that the choosing half speaks for, whatever the threshold
    threshold: float | None  # that was chosen, whether or not the other half confirms it
    choosing: Kept | None  # by that half; None where no threshold was chosen
    confirming: Kept | None
    all_right: bool  # whether every row was answered rightly

    def as_dict(self) -> dict[str, Any]:
        """Return what was found as JSON holds it."""
        halves = {"choosing": self.choosing, "confirming": self.confirming}
        return {
            "task": self.task,
            **self.calibration.model_dump(),
            "error_before": self.error_before,
            "error_after": self.error_after,
            "reachable": self.reachable,
            **{name: half and half.as_dict() for name, half in halves.items()},
        }

    def remarks(self) -> list[str]:
        """Return what a person should know beside the numbers."""
        asked, said = self.calibration.precision, []
        if self.all_right:
            said.append(
                "every row was answered rightly, which cannot tell how sure is too sure; the temperature stays 1"
            )
        if self.threshold is None:
            alone = math.ceil(math.log(1 - SURE) / math.log(asked))
            said.append(
                f"no threshold is written: above no confidence do the answers of the half that chooses speak for a "
                f"precision of {asked:g}, with {SURE:.0%} confidence; {_down(self.reachable)} is reachable. {asked:g} "
                f"takes {alone} right answers without a wrong one, or more; ask for less with --precision, or label "
                "more rows"
            )
        elif self.calibration.threshold is None and self.confirming is not None:
            said.append(
                f"no threshold is written: {self.threshold:g} was chosen, and of what it answers in the other half "
                f"{self.confirming.right} of {self.confirming.answered} are right, less than {asked:g}. Ask for less "
                "with --precision, or label more rows"
            )
        return [f"{self.task}: {each}" for each in said]


def calibrate(
    prompt: MultitaskPrompt,
    rows: Sequence[TaskRows],
    backbone: Backbone,
    split: Split,
    precision: float,
    config: EvaluateConfig,
) -> list[Calibrated]:
    """Return what the rows of tasks say of a prompt's confidences.

    Args:
        rows: of tasks that `held_out_rows` lets pass.
        precision: asked of the answers that are not abstained, 0..1.

    Raises:
        BackboneMismatch: the prompt was made for another model.
    """
    prompt.check_backbone(backbone)
    collapsed = prompt.collapse()
    prompts = [collapsed[prompt.task_number(each.name)] for each in rows]
    data = [encoded_rows(len(p), each, backbone, split, config) for p, each in zip(prompts, rows, strict=True)]
    found = []
    for each, answers in zip(data, answer(backbone, prompts, data, config), strict=True):
        assert answers.scores is not None  # `held_out_rows` refuses free text
        refuse_not_finite(answers.scores, backbone)
        found.append(_calibrated(each, answers, split, precision))
    return found


def _calibrated(data: Encoded, answers: Answers, split: Split, precision: float) -> Calibrated:
    """Return what the answers to a task's rows say: their temperature, then their threshold."""
    assert answers.scores is not None
    labels = np.array(data.answers)
    scores = answers.scores.double().numpy()
    right = (scores.argmax(1) == labels).astype(np.float64)
    temperature = fit_temperature(scores, labels)
    wanted = Calibration(temperature=temperature, precision=precision, rows=len(labels), split=split)
    before, after = (_confidences(answers, each) for each in (None, wanted))
    order = randperm(len(labels), generator=Generator().manual_seed(0)).numpy()
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    threshold, reachable = choose_threshold(after[first], right[first], precision)
    choosing = confirming = None
    if threshold is not None:
        choosing, confirming = (kept(after[half], right[half], threshold) for half in (first, second))
        if confirming.precision >= precision:
            wanted = wanted.model_copy(update={"threshold": threshold})
    return Calibrated(
        data.task.name, wanted, calibration_error(before, right), calibration_error(after, right), reachable, threshold,
        choosing, confirming, bool(right.all()),
    )  # fmt: skip


def _confidences(answers: Answers, calibration: Calibration | None) -> Numbers:
    """Return the probability of each answer, to the last bit as `predict` compares it with a threshold. [N]"""
    probabilities = answers.calibrated(calibration)
    assert probabilities is not None
    return np.asarray(probabilities.amax(-1).double().numpy())


def fit_temperature(scores: Numbers, labels: npt.NDArray[np.int64]) -> float:
    """Return what scores are to be divided by for the least negative log-probability of the right labels.

    Where every row is answered rightly, that would be the least there is, whatever the rows: it stays 1.

    Args:
        scores: log-probabilities of label words. [N, C]
        labels: the right one of each row. [N]

    Source: Guo et al. 2017 (arXiv:1706.04599), temperature scaling.
    """
    if bool((scores.argmax(1) == labels).all()):
        return 1.0

    def loss(logarithm: float) -> float:
        odds = scores / math.exp(logarithm)
        return float(np.mean(special.logsumexp(odds, axis=1) - odds[np.arange(len(labels)), labels]))

    # Convex in 1/t, so that it has one minimum in log t too.
    bounds = (math.log(LEAST_TEMPERATURE), math.log(MOST_TEMPERATURE))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return round(math.exp(found.x), 4)


def calibration_error(confidences: Numbers, right: Numbers) -> float:
    """Return the expected calibration error: by how much confidences miss the share of right answers, over bins.

    Args:
        confidences: of N answers, 0..1. [N]
        right: 1 where an answer is, else 0. [N]
    """
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, weights=right - confidences)).sum() / len(right))


def choose_threshold(confidences: Numbers, right: Numbers, precision: float) -> tuple[float | None, float]:
    """Return the smallest threshold whose answers speak for a precision, and the highest that any threshold's do.

    Args:
        confidences: of N answers, 0..1. [N]
        right: 1 where an answer is, else 0. [N]

    Returns:
        None where there is no such threshold; the least confidence that was seen where all answers speak for it, since
        nothing is known below that.
    """
    order = np.argsort(confidences)
    levels = np.unique(np.floor(confidences * PLACES) / PLACES)
    first = np.searchsorted(confidences[order], levels)  # of the rows in order, the first that is answered
    rights = np.append(right[order][::-1].cumsum()[::-1], 0)[first]
    bounds = least_precision(rights, len(right) - first)
    enough = levels[bounds >= precision]
    return (round(float(enough[0]), 4) if len(enough) else None), float(bounds.max())


def least_precision(right: npt.NDArray[Any], answered: npt.NDArray[Any]) -> Numbers:
    """Return the least precision that so many right answers of so many speak for, with 95 % confidence.

    Source: Clopper and Pearson 1934; the lower bound alone.
    """
    bounds = stats.beta.ppf(1 - SURE, np.maximum(right, 1), answered - right + 1)
    return np.where(right > 0, bounds, 0.0)


def kept(confidences: Numbers, right: Numbers, threshold: float) -> Kept:
    """Return how many of N rows a threshold leaves answered, and how many of these are right."""
    answered = confidences >= threshold
    return Kept(len(right), int(answered.sum()), int(right[answered].sum()))


def held_out_rows(
    prompt: MultitaskPrompt, rows: Sequence[TaskRows], split: Split, config: EvaluateConfig, *, named: bool
) -> tuple[list[TaskRows], list[str]]:
    """Return the tasks that can be calibrated, and of the others why not; rows are read before any model is loaded.

    Args:
        named: whether somebody named the tasks, none of which is passed over then.

    Raises:
        UsageError: none can be, or not one that was named; a task of no such prompt.
        DataError: rows that do not fit their task, or too few of them.
    """
    chosen, passed, few = list[TaskRows](), list[str](), list[DataError]()
    for each in rows:
        why = _unfit(prompt, each.task, config)
        try:
            count = 0 if why else len(some_rows(each, split, config))
        except DataError as error:
            if named or len(rows) == 1 or error.exit_code != WRONG_USE:
                raise
            why = error.problems[0]
        if why:
            passed.append(f"{each.name}: {why}")
        elif count < FEWEST:
            few.append(_too_few(each.name, split, count))
        else:
            chosen.append(each)
    if few:
        raise DataError.of_all(few)
    if not chosen or (named and passed):
        raise UsageError(f"{'; '.join(passed)}. Name tasks whose label words are ranked with --task")
    return chosen, passed


def _too_few(name: str, split: Split, count: int) -> DataError:
    wants = f"calibrating {name} wants {FEWEST} held-out rows or more, and some hundreds for a threshold"
    return DataError(name, [f"{wants}; got {count} {split} rows. Name another split with --split, or label more rows"])


def _unfit(prompt: MultitaskPrompt, task: Task, config: EvaluateConfig) -> str:
    """Return why a task has no confidences to calibrate; nothing where it has.

    Raises:
        UnknownNameError: the prompt has no such task.
        UsageError: it is another task of that name, whose confidences are others.
    """
    own = prompt.tasks[prompt.task_number(task.name)]
    if not own.verbalizer:
        return "it writes free text, which has no confidence"
    if (own.scoring if config.scoring == "task" else config.scoring) != "labels":
        return "its answers are written and not ranked (scoring: generation), which has no confidence"
    for field in ("template", "verbalizer", "chat"):
        if getattr(own, field) != getattr(task, field):
            raise UsageError(
                f"{task.name} has another {field} than the prompt was trained with, and confidences of its own; name "
                "the task as it was, or adapt the prompt again"
            )
    return ""


def _down(share: float) -> str:
    """Return a share with two places, never more than it is."""
    return f"{math.floor(share * 100) / 100:.2f}"
