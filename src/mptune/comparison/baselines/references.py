"""What learns nothing from a target's few examples: a constant answer, the bare backbone, the task's own teacher."""

import torch

from mptune.answers.metrics import constant_answer
from mptune.comparison.systems import Constant, Sources, System
from mptune.comparison.trials import Trial


def constant(trial: Trial, sources: Sources) -> list[System]:
    """The commonest training label, to every row."""
    (rows,) = trial.targets
    word = constant_answer(rows.task, rows.data("train", "test").train)
    return [System(Constant(word), chosen={"answer": word if rows.task.verbalizer else None})]


def zero_shot(trial: Trial, sources: Sources) -> list[System]:
    """The backbone without a prompt."""
    backbone = sources.backbone(trial.contender.settings)
    return [System(torch.zeros(0, backbone.width), 0, backbone)]


def teacher(trial: Trial, sources: Sources) -> list[System]:
    """The teacher of a target that is a source task too."""
    settings, (name,) = trial.contender.settings, trial.tasks
    prompt = sources.teacher_of(name, settings)
    return [System.of_prompt(prompt, sources.backbone(settings), trained=prompt.shared.numel())]
