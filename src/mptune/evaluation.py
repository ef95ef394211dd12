"""Answers of a prompted backbone to the rows of a task, and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mptune.artifacts import MultitaskPrompt
from mptune.backbone import FrozenBackbone, load_backbone
from mptune.batching import Encoded, by_length, collate, encode, label_ids
from mptune.config import EvaluateConfig, TrainingConfig
from mptune.data import draw_rows, load_data
from mptune.metrics import Score, score
from mptune.tasks import Split, Task


@dataclass(frozen=True)
class Answers:
    """What was answered to N examples."""

    texts: tuple[str, ...]  # label words, or free text
    probabilities: Tensor | None  # of the label words, in the verbalizer's order [N, C]; None for free text
    loss: float  # mean negative log-probability of the right label among the labels, in nats; 0 for free text


@torch.no_grad()
def answer(
    backbone: FrozenBackbone, prompt: Tensor, data: Encoded, config: EvaluateConfig, *, labelled: bool = True
) -> Answers:
    """Return the backbone's answers to a task's rows.

    Args:
        prompt: the task's collapsed prompt; L may be 0, which asks the bare backbone. [L, D]
        labelled: whether the rows' labels are known; without them there is no loss.
    """
    texts = [""] * len(data.inputs)
    words = data.task.label_words
    ids = label_ids(data.task, backbone)
    ranks_labels = bool(words) and config.scoring == "labels"
    probabilities = torch.zeros(len(data.inputs), len(words)) if ranks_labels else None
    for rows in by_length(data.inputs, config.batch_size):
        batch = collate([(0, i) for i in rows], [data], backbone)
        prompts = prompt.to(backbone.device).expand(len(rows), *prompt.shape)
        if probabilities is not None:
            scores = backbone.label_scores(prompts, batch, ids)
            probabilities[rows] = scores.softmax(-1).cpu()
            for i, best in zip(rows, scores.argmax(-1).tolist(), strict=True):
                texts[i] = words[best]
        else:
            # A label word needs no more tokens than the longest of them.
            room = max(map(len, ids)) if ids else config.max_target_tokens
            for i, text in zip(rows, backbone.generate(prompts, batch, room, config.num_beams), strict=True):
                texts[i] = text
    loss = 0.0
    if probabilities is not None and labelled and len(texts):
        right = torch.tensor([words.index(e.target) for e in data.examples])
        loss = float(-probabilities.clamp_min(1e-12).log().gather(1, right[:, None]).mean())
    return Answers(tuple(texts), probabilities, loss)


@dataclass(frozen=True)
class Validated:
    """How good a prompt is on validation rows, so that two can be compared."""

    scores: tuple[Score, ...]
    loss: float  # mean over tasks, nats

    @property
    def key(self) -> tuple[float, float]:
        """Larger is better: the mean of the tasks' first metrics, then the smaller loss."""
        firsts: dict[str, float] = {}
        for s in self.scores:
            firsts.setdefault(s.task, s.value)
        return (sum(firsts.values()) / max(1, len(firsts)), -self.loss)


def validate(
    backbone: FrozenBackbone, prompt: MultitaskPrompt, validation: Sequence[Encoded], config: TrainingConfig
) -> Validated:
    """Return the scores of every task's prompt on its validation rows."""
    how = EvaluateConfig(scoring=config.scoring, max_target_tokens=config.max_target_tokens)
    backbone.set_dropout(False)
    scores: list[Score] = []
    losses: list[float] = []
    for collapsed, data in zip(prompt.collapse(), validation, strict=True):
        answers = answer(backbone, collapsed, data, how)
        scores += score(data.task, "validation", data.examples, answers.texts)
        losses.append(answers.loss)
    return Validated(tuple(scores), sum(losses) / max(1, len(losses)))


def evaluate(
    prompt: MultitaskPrompt | None,
    task: Task,
    backbone: FrozenBackbone | None = None,
    *,
    split: Split = "validation",
    config: EvaluateConfig | None = None,
    data_dir: Path | None = None,
) -> list[Score]:
    """Return the task's metrics on one of its splits.

    Args:
        prompt: one that holds a task of that name, or a single task; None asks the bare backbone.

    Raises:
        BackboneMismatch: the prompt was made for another model.
        DataError: rows that do not fit the task.
    """
    config = config or EvaluateConfig()
    backbone = backbone or load_backbone(prompt.backbone_config if prompt else None)
    collapsed = torch.zeros(0, backbone.width)
    if prompt is not None:
        prompt.check_backbone(backbone)
        collapsed = prompt.collapse()[0 if len(prompt.tasks) == 1 else prompt.task_number(task.name)]
    examples = getattr(load_data(task, [split], data_dir), split)
    if config.rows is not None:
        examples = draw_rows(examples, config.rows, seed=0)
    lengths = TrainingConfig(max_input_tokens=config.max_input_tokens, max_target_tokens=config.max_target_tokens)
    data = encode(task, examples, backbone, lengths, len(collapsed))
    return score(task, split, examples, answer(backbone, collapsed, data, config).texts)
