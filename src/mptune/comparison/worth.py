"""What an adapted prompt is worth: its score on rows it never saw, beside what costs nothing and what everybody tries.

`mptune bench` compares over seeds; this is the one look that `mptune adapt` gives at its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mptune.answers.evaluation import answer
from mptune.answers.metrics import constant_answer, score
from mptune.comparison.baselines.classic import fit_probe, fit_word_counts
from mptune.comparison.config import ProbeConfig
from mptune.config import AdaptConfig, EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.model.encoding import encode
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import compose
from mptune.stages.adaptation import initial_vectors
from mptune.tasks.data import TaskRows, draw_rows, draw_shots
from mptune.tasks.task import Example

MOST_SCORED = 200  # rows
FEWEST_SCORED = 25  # rows: with fewer, one row is more than four points
MOST_FITTED = 2_000  # rows that logistic regression learns from
COMMONEST, START, THIS = "commonest answer", "start, not adapted", "this prompt"


@dataclass(frozen=True)
class Worth:
    """Scores of one task on the same rows, the prompt's last."""

    task: str
    metric: str
    rows: int
    place: str  # which rows these are
    scores: tuple[tuple[str, float], ...]  # name, score 0..100

    @property
    def advice(self) -> str | None:
        """What to do where something that costs less is no worse than the prompt; None where nothing is."""
        *others, (_, own) = self.scores
        if self.rows < FEWEST_SCORED:
            one = 100 / self.rows
            return f"{self.rows} rows tell little apart, one of them is {one:.0f} points; label more to test on"
        ahead = [name for name, value in others if value >= own]
        if COMMONEST in ahead:
            return "the commonest answer alone does as well: nothing was learnt. Try more labels, steps, another rate"
        if START in ahead:
            return "its start does as well without your labels: try fewer steps, or a lower rate"
        if ahead:
            return f"{' and '.join(ahead)} did no worse here, and costs less; `mptune bench` tells over several seeds"
        return None


def worth(
    prompt: MultitaskPrompt, source: MultitaskPrompt, rows: TaskRows, backbone: Backbone, config: AdaptConfig
) -> Worth | None:
    """Return what an adaptation is worth on rows that it did not learn from; None where there are none.

    Args:
        prompt: adapted to the task of ``rows``, by ``config`` and from ``source``.
    """
    task = rows.task
    train, unseen, place = _divided(rows, config)
    unseen = draw_rows(unseen, MOST_SCORED, seed=0)
    if not unseen:
        return None

    def scored(texts: Sequence[str]) -> float:
        return score(task, "test", unseen, texts)[0].value

    def answered(table: torch.Tensor) -> float:
        data = encode(task, unseen, backbone, config, len(table))
        how = EvaluateConfig(scoring=config.scoring, max_target_tokens=config.max_target_tokens)
        (answers,) = answer(backbone, [table], [data], how)
        return scored(answers.texts)

    config_of = ProbeConfig(max_input_tokens=config.max_input_tokens, max_target_tokens=config.max_target_tokens)
    found = [(COMMONEST, scored([constant_answer(task, train)] * len(unseen)))]
    if task.verbalizer:
        few, how = draw_rows(train, MOST_FITTED, seed=0), EvaluateConfig()
        found.append(("tf-idf", scored(fit_word_counts(task, few, config_of).answers(unseen, how))))
        found.append(("linear-probe", scored(fit_probe(task, few, backbone, config_of).answers(unseen, how))))
    learnt_from = encode(task, train, backbone, config, source.prompt_length)
    start = initial_vectors(source, config.initialise, learnt_from, backbone)
    found.append((START, answered(compose(source.shared.detach(), start)[0])))
    found.append((THIS, answered(prompt.collapse()[prompt.task_number(task.name)])))
    return Worth(task.name, task.metrics[0], len(unseen), place, tuple(found))


def _divided(rows: TaskRows, config: AdaptConfig) -> tuple[Sequence[Example], Sequence[Example], str]:
    """Return the rows that were learnt from, those that may be scored on, and which these are."""
    dataset = rows.task.dataset
    assert dataset is not None
    drawn = draw_shots(rows.data("train").train, config.shots, config.seed)
    if dataset.split == "held-out" or (dataset.test and not dataset.hub):  # public test rows may be secret
        return drawn, rows.data("train", "test").test, "test rows"
    if dataset.validation or dataset.split == "halves" or config.validates:
        data = rows.data("train", "validation")
        chosen = ", by which the state was chosen" if config.validates else ""
        return draw_shots(data.train, config.shots, config.seed), data.validation, f"validation rows{chosen}"
    gone = {example.row for example in drawn}
    left = [example for example in rows.data("train").train if example.row not in gone]
    return drawn, left, "rows that --shots left over"
