"""Several adaptations in one forward pass: many seeds of a task, or many tasks, each with a prompt of its own.

Every learner keeps its own prompt, optimizer, rows and folder; gradients are those of separate runs up to rounding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mptune.config import TrainingConfig
from mptune.errors import UsageError
from mptune.model.backbone import Backbone
from mptune.model.batch import Pick
from mptune.model.encoding import Encoded, collate
from mptune.stages.difference import first_difference
from mptune.stages.losses import supervised_losses
from mptune.stages.training import Learner, Step, Training


def train_together(
    learners: Sequence[Learner], backbone: Backbone, *, title: str, report_to: Sequence[str] = ()
) -> None:
    """Take every learner's steps down its own loss, and leave in its prompt the best of its validated states.

    Raises:
        UsageError: configurations that differ in more than seed and shots.
        KeyboardInterrupt: Ctrl-C, after the states were saved.
    """
    refuse_unlike([learner.config for learner in learners])
    with Training(learners, backbone, title=title, report_to=report_to) as training:
        for step in training:
            training.descend(*losses(step, backbone))


def losses(step: Step, backbone: Backbone) -> list[Tensor]:
    """Return each learner's loss, from one forward pass for all learners."""
    picks, data, first = joined(step)
    batch = collate(picks, data, backbone)  # its tasks are those of all learners, in their order
    tables = [
        learner.module([task - start for task in batch.tasks if start <= task < end])
        for learner, start, end in zip(step.learners, first, [*first[1:], len(data)], strict=True)
    ]
    prompts, sizes = torch.cat(tables), [len(rows) for rows in step.picks]
    logits = backbone(prompts, batch).logits
    return supervised_losses(backbone, prompts, batch, logits, step.learners[0].config.label_weight, sizes)


def joined(step: Step) -> tuple[list[Pick], list[Encoded], list[int]]:
    """Return the rows and the data of all learners, their tasks numbered through, and each learner's first number."""
    picks: list[Pick] = []
    data: list[Encoded] = []
    first: list[int] = []
    for learner, rows in zip(step.learners, step.picks, strict=True):
        first.append(len(data))
        picks += [(len(data) + task, row) for task, row in rows]
        data += learner.experiment.data.train
    return picks, data, first


def refuse_unlike(configs: Sequence[TrainingConfig]) -> None:
    """Raise UsageError unless configurations may share a training."""
    if not configs:
        raise UsageError("adaptation needs a target; got none")
    alike = [config.model_dump(mode="json", exclude={"seed", "shots"}) for config in configs]
    for other in alike[1:]:
        if (changed := first_difference(alike[0], other)) is not None:
            field, one, two = changed
            raise UsageError(
                f"targets that are adapted together differ in seed and shots alone; got {field} = {one} and {two}. "
                "Adapt them one after the other."
            )
    if len(configs) > 1 and configs[0].dropout:
        raise UsageError(
            "with dropout, targets adapted together would meet other masks than alone; got dropout = true. "
            "Switch it off, or adapt them one after the other."
        )
