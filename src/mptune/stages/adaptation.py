"""Stage 3, target adaptation: a multitask prompt and a new task in, that task's prompt out."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mptune.config import PUBLISHED_SEEDS, STARTS, AdaptConfig
from mptune.errors import UnknownNameError, refuse_type
from mptune.model.backbone import Backbone
from mptune.model.encoding import Encoded, collate
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import TaskVectors, mean_of_matrices, mean_of_vectors, neutral_vectors
from mptune.stages.experiment import Experiment, tasks_of
from mptune.stages.losses import supervised_loss, task_loss
from mptune.stages.optimization import two_speed
from mptune.stages.packing import refuse_unlike, train_together
from mptune.stages.sampling import tasks_alike
from mptune.stages.training import Learner, Training
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task


def adapt(
    source: MultitaskPrompt,
    tasks: Task | TaskRows | Sequence[Task | TaskRows],
    backbone: Backbone | None = None,
    config: AdaptConfig | None = None,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    report_to: Sequence[str] = (),
) -> MultitaskPrompt:
    """Return the prompt of a target task, learnt from its labels and from where the source tasks arrived.

    Several tasks are adapted as a group: one shared prompt for all, task vectors for each (MPT* in the paper).

    Args:
        source: what `distill` made; a teacher serves too, which is transfer from one task (SPoT).
        tasks: or their rows, where they have been read already.

    Raises:
        UnknownNameError: ``config.initialise`` is no rule and no source task.
        BackboneMismatch: the source prompt was made for another model.
        DataError: rows that do not fit their task, all of them at once.

    Source: Wang et al. 2023, section 3.2, target adaptation.
    """
    refuse_wrong(source, backbone, config)
    group = tasks_of(tasks)
    backbone, config = backbone or load_backbone(source.backbone_config), config or AdaptConfig()
    with _experiment(source, Target(group, config, out), backbone, data_dir) as experiment:
        if (done := experiment.finished()) is not None:
            return done
        learner, prompt = _learner(source, experiment)
        title = "adapt " + "+".join(task.name for task in experiment.tasks)
        with Training([learner], backbone, title=title, report_to=report_to) as training:
            for step in training:
                batch = step.batch()
                prompts = step.prompt(batch.tasks)
                logits = backbone(prompts, batch).logits
                training.descend(supervised_loss(backbone, prompts, batch, logits, config.label_weight))
        return experiment.finish(prompt)


@dataclass(frozen=True)
class Target:
    """One adaptation: a task, or a group that shares a prompt, by a configuration, into a folder or not."""

    tasks: tuple[Task | TaskRows, ...]
    config: AdaptConfig
    out: Path | None = None

    @classmethod
    def of_seeds(
        cls, tasks: "tuple[Task | TaskRows, ...]", config: AdaptConfig, out: Path, count: int
    ) -> "list[Target]":
        """Return one target for each of the first published seeds, into ``out/seed-N``."""
        seeds = PUBLISHED_SEEDS[:count]
        return [cls(tasks, config.model_copy(update={"seed": n}), out / f"seed-{n}") for n in seeds]


def adapt_together(
    source: MultitaskPrompt,
    targets: Sequence[Target],
    backbone: Backbone | None = None,
    *,
    data_dir: Path | None = None,
    report_to: Sequence[str] = (),
) -> list[MultitaskPrompt]:
    """Return the prompts of several targets, which share forward passes and learn as they would alone.

    Args:
        targets: whose configurations differ in seed and shots alone: many seeds of a task, or many tasks.

    Raises:
        UsageError: other differences, or dropout, whose masks would not be those of separate runs.
        UnknownNameError, BackboneMismatch, DataError: as `adapt`.
    """
    refuse_wrong(source, backbone, None)
    backbone = backbone or load_backbone(source.backbone_config)
    refuse_unlike([target.config for target in targets])
    with ExitStack() as folders:
        experiments = [folders.enter_context(_experiment(source, t, backbone, data_dir)) for t in targets]
        prompts = [experiment.finished() for experiment in experiments]
        begun = {n: _learner(source, e) for n, e in enumerate(experiments) if prompts[n] is None}
        if begun:
            names = dict.fromkeys("+".join(task.name for task in e.tasks) for e in experiments)
            learners = [learner for learner, _ in begun.values()]
            train_together(learners, backbone, title="adapt " + ", ".join(names), report_to=report_to)
        for number, (learner, prompt) in begun.items():
            prompts[number] = learner.experiment.finish(prompt)
        return [prompt for prompt in prompts if prompt is not None]


def refuse_wrong(source: object, backbone: object, config: object) -> None:
    """Raise UsageError where an adaptation's arguments are of other kinds, as a name in place of a prompt."""
    refuse_type("source", source, MultitaskPrompt)
    refuse_type("backbone", backbone, Backbone, type(None))
    refuse_type("config", config, AdaptConfig, type(None))


def _experiment(
    source: MultitaskPrompt, target: Target, backbone: Backbone, data_dir: Path | None
) -> Experiment[AdaptConfig]:
    source.check_backbone(backbone)
    begins_with = {"source": source.digest()}
    return Experiment(
        "target", target.tasks, backbone, target.config, source.prompt_length,
        out=target.out, data_dir=data_dir, also=begins_with,
    )  # fmt: skip


def _learner(source: MultitaskPrompt, experiment: Experiment[AdaptConfig]) -> tuple[Learner, MultitaskPrompt]:
    """Return the target's prompt at its start, and what takes its steps."""
    config, data, backbone = experiment.config, experiment.data, experiment.backbone
    starts = [initial_vectors(source, config.initialise, rows, backbone) for rows in data.train]
    prompt = MultitaskPrompt(
        source.shared,
        TaskVectors(torch.cat([s.u for s in starts]), torch.cat([s.v for s in starts])),
        experiment.card(sources=[task.name for task in source.tasks]),
    )
    batches = tasks_alike(data.sizes, config.batch_size, experiment.random)
    return Learner(experiment, prompt, optimizer_of(prompt, config, backbone), batches), prompt


def optimizer_of(prompt: MultitaskPrompt, config: AdaptConfig, backbone: Backbone) -> torch.optim.AdamW:
    """Return what takes an adaptation's steps, over those of P*, u and v that are to learn."""
    shared_lr = config.shared_lr * backbone.embedding_rms if config.train != "task-vectors" else None
    task_lr = config.task_lr if config.train != "shared" else None
    return two_speed(prompt, config, shared_lr, task_lr)


def initial_vectors(source: MultitaskPrompt, rule: str, target: Encoded, backbone: Backbone) -> TaskVectors:
    """Return the target's first u [1, L, R] and v [1, R, D], by a rule or from one named source task.

    Raises:
        UnknownNameError: neither a rule nor a source task.
    """
    vectors = source.task_vectors
    names = [task.name for task in source.tasks]
    if rule == "mean-vectors":
        return mean_of_vectors(vectors)
    if rule == "mean-matrices":
        return mean_of_matrices(vectors)
    if rule == "shared":
        random = torch.Generator()
        return neutral_vectors(1, source.prompt_length, source.shared.shape[1], source.rank, 0.0, random)
    if rule == "closest":
        losses = [transfer_loss(prompt, target, backbone) for prompt in source.collapse()]
        rule = names[losses.index(min(losses))]
    if rule not in names:
        raise UnknownNameError("rule or source task for adapt.initialise", rule, [*STARTS, *names])
    k = names.index(rule)
    return TaskVectors(vectors.u[k : k + 1], vectors.v[k : k + 1])


@torch.no_grad()
def transfer_loss(prompt: Tensor, target: Encoded, backbone: Backbone, rows: int = 64) -> float:
    """Return the task loss of a source task's prompt [L, D] on the target's first training rows, in nats per token."""
    total, count = 0.0, 0
    for start in range(0, min(rows, len(target.inputs)), 16):
        picks = [(0, i) for i in range(start, min(start + 16, rows, len(target.inputs)))]
        batch = collate(picks, [target], backbone)
        output = backbone(prompt.to(backbone.device)[None], batch)
        total += len(picks) * float(task_loss(output.logits, batch.labels))
        count += len(picks)
    return total / count
