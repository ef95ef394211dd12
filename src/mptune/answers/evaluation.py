"""Answers of a prompted backbone to the rows of a task, and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mptune.answers.classes import ClassScore, by_class, confusion
from mptune.answers.metrics import Score, score
from mptune.answers.reader import Baseline, Reader
from mptune.config import EvaluateConfig, ExamplesConfig, TrainingConfig
from mptune.errors import BackboneError, refuse_type
from mptune.model.backbone import Backbone
from mptune.model.batch import Batch, Pick
from mptune.model.chat import Chat
from mptune.model.encoding import Encoded, by_length, collate, encode
from mptune.model.loading import load_backbone
from mptune.model.scoring import generate, label_scores
from mptune.model.writing import as_meant
from mptune.prompts.card import Calibration
from mptune.prompts.prompt import MultitaskPrompt
from mptune.tasks.data import TaskRows, draw_rows
from mptune.tasks.task import Example, Split, Task

COVERAGE, PRECISION = "coverage", "precision"  # of a prompt with a threshold: what `evaluate` calls the two


@dataclass(frozen=True)
class Answers:
    """What was answered to N examples."""

    texts: tuple[str, ...]  # label words, or free text
    scores: Tensor | None  # of the label words, as `label_scores` has them [N, C]; None for free text
    loss: float | None  # mean negative log-probability of the right label among the labels, nats; None for free text

    @property
    def probabilities(self) -> Tensor | None:
        """Those of the label words, in the verbalizer's order [N, C]; None for free text."""
        return self.calibrated(None)

    def calibrated(self, calibration: Calibration | None) -> Tensor | None:
        """Return the probabilities at a calibration's temperature, which changes no answer. [N, C]"""
        temperature = 1.0 if calibration is None else calibration.temperature
        return None if self.scores is None else (self.scores / temperature).softmax(-1)


@torch.no_grad()
def answer(
    backbone: Backbone,
    prompts: Sequence[Tensor | Reader],
    data: Sequence[Encoded],
    config: EvaluateConfig,
    *,
    labelled: bool = True,
) -> list[Answers]:
    """Return the backbone's answers to the rows of K tasks, task by task; rows of different tasks share batches.

    Args:
        prompts: each task's collapsed prompt; L may differ, and 0 asks the bare backbone. K of [L, D]
            Or what makes a table of prompts for each batch; tasks share batches where they share that.
        data: each task's rows.
        labelled: whether the rows' labels are known; without them there is no loss.
    """
    prompts = [p.to(backbone.device) if isinstance(p, Tensor) else p for p in prompts]  # once, not at every batch
    ways = [each.task.scoring if config.scoring == "task" else config.scoring for each in data]
    ranked = [bool(each.label_ids) and way == "labels" for each, way in zip(data, ways, strict=True)]
    # A label word needs no more tokens than the longest of them.
    room = [max(map(len, each.label_ids), default=config.max_target_tokens) for each in data]
    texts = [[""] * len(each.inputs) for each in data]
    scores = [torch.zeros(len(each.inputs), len(each.label_ids)) for each in data]
    alike: dict[tuple[bool, int, int, Chat | None, str | None], list[Pick]] = {}  # what can be asked together
    for t, each in enumerate(data):
        prompt = prompts[t]
        size = len(prompt) if isinstance(prompt, Tensor) else id(prompt)
        kind = (ranked[t], 0 if ranked[t] else room[t], size, each.chat, None if ranked[t] else each.task.stop)
        alike.setdefault(kind, []).extend((t, row) for row in range(len(each.inputs)))
    for (rank, tokens, _, _, stop), kin in alike.items():
        for picks in by_length(kin, data, config.batch_size):
            table, batch = _read(prompts, collate(picks, data, backbone))
            if rank:
                ranked_words = label_scores(backbone, table, batch).cpu()
                for (t, row), values in zip(picks, ranked_words, strict=True):
                    scores[t][row] = values[: len(data[t].label_ids)]
                    texts[t][row] = data[t].task.label_words[int(values.argmax())]
            else:
                written = generate(backbone, table, batch, tokens, config.num_beams, stop)
                for (t, row), text in zip(picks, written, strict=True):
                    texts[t][row] = text
    texts = [of if ranked[t] else as_meant(backbone, data[t], of) for t, of in enumerate(texts)]
    return [
        Answers(tuple(texts[t]), odds, _loss(odds, each) if labelled else None)
        for t, each in enumerate(data)
        for odds in [scores[t] if ranked[t] else None]
    ]


def _read(prompts: Sequence[Tensor | Reader], batch: Batch) -> tuple[Tensor, Batch]:
    """Return the table of a batch's prompts [K, L, D], and the batch as it is to be read."""
    first = prompts[batch.tasks[0]]
    if not isinstance(first, Tensor):
        return first(batch)
    return torch.stack([prompt for t in batch.tasks if isinstance(prompt := prompts[t], Tensor)]), batch


def _loss(scores: Tensor | None, data: Encoded) -> float | None:
    """Return the mean negative log-probability of the right label among the labels, in nats; None without labels."""
    if scores is None or not len(scores):
        return None
    probabilities = scores.softmax(-1)
    right = torch.tensor(data.answers)
    return float(-probabilities.clamp_min(1e-12).log().gather(1, right[:, None]).mean())


@dataclass(frozen=True)
class Validated:
    """How good a prompt is on validation rows, so that two can be compared."""

    scores: tuple[Score, ...]
    loss: float | None  # mean over the tasks that have one, nats; None where none has

    @property
    def key(self) -> tuple[float, float]:
        """Larger is better: the mean of the tasks' first metrics, then the smaller loss."""
        firsts: dict[str, float] = {}
        for s in self.scores:
            firsts.setdefault(s.task, s.value)
        return (sum(firsts.values()) / max(1, len(firsts)), -(self.loss or 0.0))


def validate(
    backbone: Backbone,
    prompts: Sequence[tuple[MultitaskPrompt | Baseline, Sequence[Encoded]]],
    config: TrainingConfig,
) -> list[Validated]:
    """Return for each prompt the scores of its tasks on their validation rows; none of a task without such rows."""
    how = EvaluateConfig(scoring=config.scoring, max_target_tokens=config.max_target_tokens)
    backbone.set_dropout(False)
    collapsed = [each for prompt, _ in prompts for each in prompt.collapse()]
    answers = iter(answer(backbone, collapsed, [data for _, rows in prompts for data in rows], how))
    validated = []
    for _, rows in prompts:
        answered = [(data, next(answers)) for data in rows]
        scores = [
            s for data, a in answered if data.examples for s in score(data.task, "validation", data.examples, a.texts)
        ]
        losses = [a.loss for _, a in answered if a.loss is not None]
        validated.append(Validated(tuple(scores), sum(losses) / len(losses) if losses else None))
    return validated


def evaluate(
    prompt: MultitaskPrompt | None,
    task: Task | TaskRows,
    backbone: Backbone | None = None,
    *,
    split: Split = "validation",
    config: EvaluateConfig | None = None,
    data_dir: Path | None = None,
) -> list[Score]:
    """Return the task's metrics on one of its splits; behind them, where the prompt has a threshold, `answered_scores`.

    Args:
        prompt: one that holds a task of that name, or a single task; None asks the bare backbone.

    Raises:
        BackboneMismatch: the prompt was made for another model.
        DataError: rows that do not fit the task.
    """
    refuse_type("prompt", prompt, MultitaskPrompt, type(None))
    refuse_type("task", task, Task, TaskRows)
    refuse_type("backbone", backbone, Backbone, type(None))
    refuse_type("config", config, EvaluateConfig, type(None))
    backbone = backbone or load_backbone(prompt.backbone_config if prompt else None)
    rows = TaskRows.of(task, data_dir)
    return evaluate_classes(prompt, rows, backbone, split, config or EvaluateConfig())[0]


def evaluate_classes(
    prompt: MultitaskPrompt | None, rows: TaskRows, backbone: Backbone, split: Split, config: EvaluateConfig
) -> tuple[list[Score], list[ClassScore]]:
    """Return what `evaluate` does, and what was answered to the rows of each label; nothing of free text."""
    collapsed, calibration = torch.zeros(0, backbone.width), None
    if prompt is not None:
        prompt.check_backbone(backbone)
        collapsed = prompt.collapse()[0 if len(prompt.tasks) == 1 else prompt.task_number(rows.task.name)]
        calibration = prompt.card.calibration_of(rows.task.name)
    examples, answers = answer_rows(collapsed, len(collapsed), rows, backbone, split, config)
    counts = confusion(rows.task, examples, answers.texts)
    classes = by_class(rows.task.label_words, counts) if counts is not None else []
    scores = score(rows.task, split, examples, answers.texts)
    return scores + answered_scores(rows.task, split, examples, answers, calibration), classes


def answered_scores(
    task: Task, split: Split, examples: Sequence[Example], answers: Answers, calibration: Calibration | None
) -> list[Score]:
    """Return the share of the rows whose answers are not abstained, and that of right answers among them.

    Returns:
        ``coverage``, and ``precision``, which is 0 of no row; nothing without a threshold, or without probabilities.
    """
    probabilities = answers.calibrated(calibration)
    if calibration is None or calibration.threshold is None or probabilities is None:
        return []
    kept = [not calibration.abstains(confidence) for confidence in probabilities.amax(-1).tolist()]
    right = [e.target == text for e, text, stands in zip(examples, answers.texts, kept, strict=True) if stands]
    return [
        Score(task.name, split, COVERAGE, 100 * len(right) / max(1, len(kept)), len(kept)),
        Score(task.name, split, PRECISION, 100 * sum(right) / max(1, len(right)), len(right)),
    ]


def refuse_not_finite(probabilities: Tensor, backbone: Backbone) -> None:
    """Raise BackboneError where a backbone answers with numbers that are none."""
    if not bool(probabilities.isfinite().all()):
        raise BackboneError(
            f"{backbone.config.name} answers with numbers that are not finite, which mean nothing. Try "
            "--set backbone.dtype=float32, or load an undamaged copy."
        )


def answer_rows(
    prompt: Tensor | Reader, length: int, rows: TaskRows, backbone: Backbone, split: Split, config: EvaluateConfig
) -> tuple[tuple[Example, ...], Answers]:
    """Return the rows of a split, as many as are asked, and what was answered to them.

    Args:
        prompt: a collapsed prompt [L, D], or what reads a batch.
        length: L.
    """
    data = encoded_rows(length, rows, backbone, split, config)
    (answers,) = answer(backbone, [prompt], [data], config)
    return data.examples, answers


def encoded_rows(length: int, rows: TaskRows, backbone: Backbone, split: Split, config: EvaluateConfig) -> Encoded:
    """Return the rows of a split, as many as are asked, as they are read behind a prompt of ``length`` soft tokens."""
    lengths = ExamplesConfig(max_input_tokens=config.max_input_tokens, max_target_tokens=config.max_target_tokens)
    return encode(rows.task, some_rows(rows, split, config), backbone, lengths, length)


def some_rows(rows: TaskRows, split: Split, config: EvaluateConfig) -> tuple[Example, ...]:
    """Return the rows of a split, as many as are asked."""
    examples: tuple[Example, ...] = getattr(rows.data(split), split)
    return examples if config.rows is None else draw_rows(examples, config.rows, seed=0)
