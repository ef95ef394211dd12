"""Stage 2, source training: K teacher prompts in, one multitask prompt out."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mptune.artifacts import MultitaskPrompt, stack
from mptune.backbone import Batch, FrozenBackbone, Output, load_backbone
from mptune.batching import collate
from mptune.config import DistillConfig
from mptune.errors import ConfigError, UsageError
from mptune.losses import IGNORE, hidden_distillation, logit_distillation, task_loss
from mptune.optimization import two_speed
from mptune.prompts import neutral_vectors, sample_vocabulary
from mptune.runs import opened
from mptune.sampling import Pick, all_tasks, mixing_rates, stochastic_tasks
from mptune.tasks import Task
from mptune.teacher_outputs import TeacherOutputs
from mptune.training import Learner, Taking, identity_of, local_of, make_card, train, training_data, with_steps


def distill(
    tasks: Sequence[Task],
    teachers: Sequence[MultitaskPrompt],
    backbone: FrozenBackbone | None = None,
    config: DistillConfig | None = None,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    report_to: Sequence[str] = (),
) -> MultitaskPrompt:
    """Return the shared prompt and task vectors that answer, task by task, as labels and teachers do.

    ``L = L_PLM + λ (L_logits + L_hidden)``, over batches of randomly many source tasks. Hidden states are compared on
    the text's tokens and the label's tokens, not on the prompt's, so that a student may be shorter than its teachers.

    Args:
        tasks: the source tasks, with their data.
        teachers: prompts whose tasks have the names of the source tasks.

    Raises:
        ConfigError: a hidden layer that the backbone does not have.
        UsageError: fewer than two tasks, or teachers that do not fit them.
        BackboneMismatch: a teacher of another model.

    Source: Wang et al. 2023, sections 3.1 and 3.2.
    """
    backbone, config = backbone or load_backbone(), config or DistillConfig()
    layers = config.hidden_layers if config.distill_weight and config.hidden_weight else ()
    _refuse_missing(layers, backbone)
    teacher_prompts = _teacher_of_each(tasks, teachers, backbone)  # [K, L, D]
    length = config.prompt_length or teacher_prompts.shape[1]
    data = training_data(tasks, backbone, config, length, data_dir)
    config = with_steps(config, data)
    identity = identity_of("source", tasks, backbone, config, data)
    identity["teachers"] = hashlib.sha256(teacher_prompts.numpy().tobytes()).hexdigest()[:32]
    with opened(out, identity, local_of(tasks, backbone, data_dir)) as run:
        if (made := run.finished()) is not None:
            return made
        random = torch.Generator().manual_seed(config.seed)
        shared = sample_vocabulary(backbone.embeddings, length, random)
        if config.initialise == "teachers":
            shared = _mean_of_equally_long(teacher_prompts, length)
        noise = config.noise if config.decomposition else 0.0
        prompt = MultitaskPrompt(
            shared,
            neutral_vectors(len(tasks), length, backbone.width, config.rank, noise, random),
            make_card("source", tasks, backbone, config, data, sources=[t.name for t in tasks]),
        )
        optimizer = two_speed(
            prompt,
            config,
            shared_lr=config.shared_lr * backbone.embedding_rms,
            task_lr=config.task_lr if config.decomposition else None,
        )
        sizes = [len(task.examples) for task in data.train]
        batches = _batches(sizes, config, random)
        taught_by = None
        if config.distill_weight:
            # The same batches from a copy of the generator: the rows that the steps will meet.
            ahead = itertools.islice(_batches(sizes, config, random.clone_state()), config.steps)
            taught_by = TeacherOutputs(
                backbone, teacher_prompts, data.train, layers, itertools.chain.from_iterable(ahead),
                room=int(config.teacher_cache * 2**30), folder=run.folder if run.writes else None,
            )  # fmt: skip

        def losses(taking: Taking) -> list[Tensor]:
            [(student, picks)] = taking
            batch = collate(picks, data.train, backbone)
            learned = backbone(student.prompt_of(batch.task_ids), batch, layers)
            taught = taught_by(picks, batch) if taught_by is not None else None
            return [distillation_loss(learned, taught, batch, config)]

        learner = Learner(prompt, optimizer, batches, data, config, run)
        train([learner], losses, backbone, title="distill", report_to=report_to)
        run.finish(prompt)
        return prompt


def distillation_loss(learned: Output, taught: Output | None, batch: Batch, config: DistillConfig) -> Tensor:
    """Return ``L = L_PLM + λ (L_logits + L_hidden)`` of a batch; without teachers, ``L_PLM``. []

    Args:
        learned, taught: the outputs of student and teachers, with the same hidden layers or none.

    Source: Wang et al. 2023, section 3.1, L_Total.
    """
    total = task_loss(learned.logits, batch.labels)
    if taught is None:
        return total
    logits = logit_distillation(learned.logits, taught.logits, batch.labels, config.temperature)
    total = total + config.distill_weight * config.logit_weight * logits
    if learned.hidden:
        layers = len(learned.hidden) // 2
        masks = [batch.mask] * layers + [batch.labels != IGNORE] * layers
        hidden = hidden_distillation(learned.hidden, taught.hidden, masks)
        total = total + config.distill_weight * config.hidden_weight * hidden
    return total


def _batches(sizes: Sequence[int], config: DistillConfig, random: torch.Generator) -> Iterator[list[Pick]]:
    """Yield the rows of batch after batch, without end."""
    if config.sampling == "all":
        return all_tasks(sizes, config.batch_size, random)
    return stochastic_tasks(sizes, mixing_rates(sizes, config.mixing, config.mixing_cap), config.batch_size, random)


def _teacher_of_each(tasks: Sequence[Task], teachers: Sequence[MultitaskPrompt], backbone: FrozenBackbone) -> Tensor:
    """Return every task's own teacher prompt, in the tasks' order. [K, L, D]"""
    if len(tasks) < 2:
        raise UsageError(
            f"distillation needs two source tasks or more; got {len(tasks)}. For a single task use `mptune teach`."
        )
    for teacher in teachers:
        teacher.check_backbone(backbone)
    names = [task.name for teacher in teachers for task in teacher.tasks]
    lengths = sorted({teacher.prompt_length for teacher in teachers})
    if len(lengths) > 1:
        raise UsageError(f"teachers must be equally long; got prompts of {', '.join(map(str, lengths))} soft tokens")
    missing = [task.name for task in tasks if task.name not in names]
    if missing:
        raise UsageError(f"no teacher for {', '.join(missing)}; there are teachers for {', '.join(names) or 'none'}")
    prompts = stack(teachers)
    return torch.stack([prompts[names.index(task.name)] for task in tasks]).cpu()


def _refuse_missing(layers: Sequence[int], backbone: FrozenBackbone) -> None:
    """Raise ConfigError for layers that the backbone does not have; 0 is what comes before the first."""
    depth = backbone.depth
    missing = [] if depth is None else [layer for layer in layers if not -depth - 1 <= layer <= depth]
    if missing:
        raise ConfigError(
            "distill", [f"hidden_layers wants 0..{depth} of this backbone, or -1 for the last; got {missing}"]
        )


def _mean_of_equally_long(teachers: Tensor, length: int) -> Tensor:
    if teachers.shape[1] != length:
        raise UsageError(
            f"distill.initialise = teachers wants a student as long as they are, {teachers.shape[1]} soft tokens; "
            f"got prompt_length {length}"
        )
    return teachers.mean(0)
