"""Stage 3, target adaptation: a multitask prompt and a new task in, that task's prompt out."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mptune.artifacts import MultitaskPrompt
from mptune.backbone import FrozenBackbone, load_backbone
from mptune.batching import Encoded, collate
from mptune.config import STARTS, AdaptConfig, TrainingConfig
from mptune.errors import UnknownNameError, UsageError
from mptune.losses import task_loss
from mptune.optimization import two_speed
from mptune.prompts import TaskVectors, mean_of_matrices, mean_of_vectors, neutral_vectors
from mptune.runs import Run, first_difference, opened
from mptune.sampling import tasks_alike
from mptune.tasks import Task
from mptune.training import Learner, identity_of, label_losses, local_of, make_card, train, training_data, with_steps


def adapt(
    source: MultitaskPrompt,
    tasks: Task | Sequence[Task],
    backbone: FrozenBackbone | None = None,
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

    Raises:
        UnknownNameError: ``config.initialise`` is no rule and no source task.
        BackboneMismatch: the source prompt was made for another model.
        DataError: rows that do not fit their task, all of them at once.

    Source: Wang et al. 2023, section 3.2, target adaptation.
    """
    group = (tasks,) if isinstance(tasks, Task) else tuple(tasks)
    target = Target(group, config or AdaptConfig(), out)
    (prompt,) = adapt_together(source, [target], backbone, data_dir=data_dir, report_to=report_to)
    return prompt


@dataclass(frozen=True)
class Target:
    """One adaptation: a task, or a group that shares a prompt, by a configuration, into a folder or not."""

    tasks: tuple[Task, ...]
    config: AdaptConfig
    out: Path | None = None


def adapt_together(
    source: MultitaskPrompt,
    targets: Sequence[Target],
    backbone: FrozenBackbone | None = None,
    *,
    data_dir: Path | None = None,
    report_to: Sequence[str] = (),
) -> list[MultitaskPrompt]:
    """Return the prompts of several targets, which share forward passes and learn as they would alone.

    Every target has its own prompt, optimizer, rows and folder. Gradients are those of separate runs up to rounding.

    Args:
        targets: whose configurations differ in seed and shots alone: many seeds of a task, or many tasks.

    Raises:
        UsageError: other differences, or dropout, whose masks would not be those of separate runs.
        UnknownNameError, BackboneMismatch, DataError: as `adapt`.
    """
    backbone = backbone or load_backbone(source.backbone_config)
    source.check_backbone(backbone)
    _refuse_unlike([target.config for target in targets])
    with ExitStack() as runs:
        prompts: list[MultitaskPrompt] = []
        learners: list[Learner] = []
        made_now: list[tuple[Run, MultitaskPrompt]] = []
        for target in targets:
            tasks, config = target.tasks, target.config
            data = training_data(tasks, backbone, config, source.prompt_length, data_dir)
            config = with_steps(config, data)
            identity = identity_of("target", tasks, backbone, config, data)
            identity["source"] = fingerprint(source)
            run = runs.enter_context(opened(target.out, identity, local_of(tasks, backbone, data_dir)))
            if (made := run.finished()) is not None:
                prompts.append(made)
                continue
            random = torch.Generator().manual_seed(config.seed)
            starts = [initial_vectors(source, config.initialise, rows, backbone) for rows in data.train]
            prompt = MultitaskPrompt(
                source.shared,
                TaskVectors(torch.cat([s.u for s in starts]), torch.cat([s.v for s in starts])),
                make_card("target", tasks, backbone, config, data, sources=[t.name for t in source.tasks]),
            )
            optimizer = two_speed(
                prompt,
                config,
                shared_lr=config.shared_lr * backbone.embedding_rms if config.train != "task-vectors" else None,
                task_lr=config.task_lr if config.train != "shared" else None,
            )
            sizes = [len(rows.examples) for rows in data.train]
            batches = tasks_alike(sizes, config.batch_size, random)
            learners.append(Learner(prompt, optimizer, batches, data, config, run))
            made_now.append((run, prompt))
            prompts.append(prompt)
        if learners:
            _refuse_unlike([learner.config for learner in learners])  # epochs of unlike tasks are unlike steps
            title = "adapt " + ", ".join(dict.fromkeys("+".join(task.name for task in t.tasks) for t in targets))
            train(learners, partial(label_losses, backbone), backbone, title=title, report_to=report_to)
        for run, prompt in made_now:
            run.finish(prompt)
        return prompts


def _refuse_unlike(configs: Sequence[TrainingConfig]) -> None:
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


def initial_vectors(source: MultitaskPrompt, rule: str, target: Encoded, backbone: FrozenBackbone) -> TaskVectors:
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
def transfer_loss(prompt: Tensor, target: Encoded, backbone: FrozenBackbone, rows: int = 64) -> float:
    """Return the task loss of a source task's prompt [L, D] on the target's first training rows, in nats per token."""
    total, count = 0.0, 0
    for start in range(0, min(rows, len(target.inputs)), 16):
        picks = [(0, i) for i in range(start, min(start + 16, rows, len(target.inputs)))]
        batch = collate(picks, [target], backbone)
        prompts = prompt.to(backbone.device).expand(len(picks), *prompt.shape)
        total += len(picks) * float(task_loss(backbone(prompts, batch).logits, batch.labels))
        count += len(picks)
    return total / count


def fingerprint(prompt: MultitaskPrompt) -> str:
    """Return a hash of a prompt's tensors."""
    digest = hashlib.sha256()
    for _, tensor in sorted(prompt.tensors().items()):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:32]
