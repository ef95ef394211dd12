"""Training what is no multitask prompt on one task, or on several at once: same loop, same rows, same selection."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mptune.answers.reader import Baseline
from mptune.config import TrainingConfig
from mptune.files import digest
from mptune.model.backbone import Backbone
from mptune.stages.experiment import Experiment
from mptune.stages.losses import supervised_loss
from mptune.stages.pseudo_labels import PseudoLabels
from mptune.stages.sampling import tasks_alike
from mptune.stages.training import Learner, Training
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task

ParameterGroups = list[dict[str, Any]]  # of an optimizer: parameters and their learning rate


@dataclass(frozen=True)
class Tuned:
    """A trained baseline, in memory, and how it came to be."""

    reader: Baseline
    backbone: Backbone  # with which it reads: a thawed copy where weights were learnt
    metrics: tuple[dict[str, Any], ...]  # as logged, by step; empty without a folder

    @property
    def parameters(self) -> int:
        """How many numbers were trained, all of which a task must store."""
        return sum(p.numel() for p in self.reader.parameters())


def tune(
    name: str,
    reads: nn.Module,
    groups: ParameterGroups,
    tasks: Sequence[Task | TaskRows],
    backbone: Backbone,
    config: TrainingConfig,
    prompt_length: int,
    out: Path | None,
    taught: PseudoLabels | None = None,
) -> Tuned:
    """Return a baseline trained on some tasks.

    Args:
        name: of the baseline, for its card.
        reads: what learns; takes a batch, returns what a `Reader` does.
        prompt_length: soft tokens that it reads before a text.
        out: where a killed run goes on, and nothing of a finished one stays.
        taught: rows without labels that it learns from too.
    """
    read = [digest(each.numpy().tobytes()) for each in reads.buffers()]
    with Experiment(name, tasks, backbone, config, prompt_length, out=out, also={"read": read}) as experiment:
        config, data = experiment.config, experiment.data
        baseline = Baseline(reads, experiment.card())
        batches = tasks_alike(data.sizes, config.batch_size, experiment.random)
        if taught is not None:
            batches = taught.beside(batches, config.batch_size, experiment.random)
        optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        title = f"{name} " + "+".join(task.name for task in experiment.tasks)
        with Training([Learner(experiment, baseline, optimizer, batches)], backbone, title=title) as training:
            for step in training:
                prompts, batch = step.prompt(step.batch())
                logits = backbone(prompts, batch).logits
                loss = supervised_loss(backbone, prompts, batch, logits, config.label_weight)
                if taught is not None:
                    loss = loss + taught.loss(step.picks[0], backbone, step.prompt)
                training.descend(loss)
        metrics = tuple(experiment.run.metrics())
        experiment.run.discard()  # its result is in memory, and a copy of the backbone per run would fill a disk
        return Tuned(baseline, backbone, metrics)
