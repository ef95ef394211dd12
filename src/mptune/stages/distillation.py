"""Stage 2, source training: K teacher prompts in, one multitask prompt out."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mptune.config import DistillConfig
from mptune.errors import ConfigError, UsageError
from mptune.files import digest
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE, Batch, Output, Pick
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt, refuse_namesakes, stack
from mptune.prompts.vectors import neutral_vectors, sample_vocabulary
from mptune.stages.experiment import Experiment
from mptune.stages.losses import hidden_distillation, logit_distillation, supervised_loss
from mptune.stages.optimization import two_speed
from mptune.stages.sampling import all_tasks, mixing_rates, stochastic_tasks
from mptune.stages.teacher_outputs import TeacherOutputs
from mptune.stages.training import Learner, Training
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task


def distill(
    tasks: Sequence[Task | TaskRows],
    teachers: Sequence[MultitaskPrompt],
    backbone: Backbone | None = None,
    config: DistillConfig | None = None,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    report_to: Sequence[str] = (),
) -> MultitaskPrompt:
    """Return the shared prompt and task vectors that answer, task by task, as labels and teachers do.

    ``L = L_PLM + L_labels + λ (L_logits + L_hidden)``, over batches of randomly many source tasks. Hidden states are
    compared on the text's tokens and the label's tokens, not on the prompt's, so that a student may be shorter than its
    teachers.

    Args:
        tasks: the source tasks, or their rows, where they have been read already.
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
    rows = [TaskRows.of(task, data_dir) for task in tasks]
    teacher_prompts = _teacher_of_each([each.name for each in rows], teachers, backbone)  # [K, L, D]
    length = config.prompt_length or teacher_prompts.shape[1]
    taught_by = {"teachers": digest(teacher_prompts.numpy().tobytes())}
    with Experiment("source", rows, backbone, config, length, out=out, also=taught_by) as experiment:
        if (done := experiment.finished()) is not None:
            return done
        config = experiment.config
        student = _student(teacher_prompts, length, experiment)
        optimizer = two_speed(
            student,
            config,
            shared_lr=config.shared_lr * backbone.embedding_rms,
            task_lr=config.task_lr if config.decomposition else None,
        )
        # The same batches from a copy of the generator: the rows that the steps will meet.
        ahead = itertools.islice(_batches(experiment, experiment.random.clone_state()), config.steps)
        taught = _teachers_outputs(teacher_prompts, ahead, layers, experiment)

        learner = Learner(experiment, student, optimizer, _batches(experiment, experiment.random))
        with Training([learner], backbone, title="distill", report_to=report_to) as training:
            for step in training:
                batch = step.batch()
                prompts = step.prompt(batch.tasks)
                learned = backbone(prompts, batch, layers)
                loss = supervised_loss(backbone, prompts, batch, learned.logits, config.label_weight)
                if taught is not None:
                    loss = loss + distillation_loss(learned, taught(step.picks[0], batch), batch, config)
                training.descend(loss)
        return experiment.finish(student)


def distillation_loss(learned: Output, taught: Output, batch: Batch, config: DistillConfig) -> Tensor:
    """Return what a batch's teachers say: ``λ (L_logits + L_hidden)``. []

    Args:
        learned, taught: the outputs of student and teachers, with the same hidden layers or none.

    Source: Wang et al. 2023, section 3.1, L_Total.
    """
    logits = logit_distillation(learned.logits, taught.logits, batch.labels, config.temperature)
    total = config.logit_weight * logits
    if learned.hidden:
        layers = len(learned.hidden) // 2
        masks = [batch.mask] * layers + [batch.labels != IGNORE] * layers
        total = total + config.hidden_weight * hidden_distillation(learned.hidden, taught.hidden, masks)
    return config.distill_weight * total


def _student(teachers: Tensor, length: int, experiment: Experiment[DistillConfig]) -> MultitaskPrompt:
    """Return the multitask prompt at its start: a vocabulary sample, or the teachers' mean, and vectors about one.

    Args:
        teachers: each task's prompt. [K, L, D]
    """
    config, backbone, random = experiment.config, experiment.backbone, experiment.random
    shared = sample_vocabulary(backbone.embeddings, length, random)
    if config.initialise == "teachers":
        shared = _mean_of_equally_long(teachers, length)
    noise = config.noise if config.decomposition else 0.0
    vectors = neutral_vectors(len(teachers), length, backbone.width, config.rank, noise, random)
    return MultitaskPrompt(shared, vectors, experiment.card(sources=[task.name for task in experiment.tasks]))


def _batches(experiment: Experiment[DistillConfig], random: torch.Generator) -> Iterator[list[Pick]]:
    """Yield the rows of batch after batch, without end."""
    config, sizes = experiment.config, experiment.data.sizes
    if config.sampling == "all":
        return all_tasks(sizes, config.batch_size, random)
    return stochastic_tasks(sizes, mixing_rates(sizes, config.mixing, config.mixing_cap), config.batch_size, random)


def _teachers_outputs(
    prompts: Tensor, ahead: Iterable[list[Pick]], layers: Sequence[int], experiment: Experiment[DistillConfig]
) -> TeacherOutputs | None:
    """Return what the teachers answer to the rows of the coming batches; None where only the labels count."""
    config, run = experiment.config, experiment.run
    if not config.distill_weight:
        return None
    needed = itertools.chain.from_iterable(ahead)
    room, folder = int(config.teacher_cache * 2**30), run.folder if run.writes else None
    data = experiment.data.train
    return TeacherOutputs(experiment.backbone, prompts, data, layers, needed, room=room, folder=folder)


def _teacher_of_each(names: Sequence[str], teachers: Sequence[MultitaskPrompt], backbone: Backbone) -> Tensor:
    """Return every task's own teacher prompt, in the tasks' order. [K, L, D]"""
    if len(names) < 2:
        raise UsageError(
            f"distillation needs two source tasks or more; got {len(names)}. For a single task use `mptune teach`."
        )
    for teacher in teachers:
        teacher.check_backbone(backbone)
    refuse_namesakes(teachers)
    taught = [task.name for teacher in teachers for task in teacher.tasks]
    lengths = sorted({teacher.prompt_length for teacher in teachers})
    if len(lengths) > 1:
        raise UsageError(f"teachers must be equally long; got prompts of {', '.join(map(str, lengths))} soft tokens")
    missing = [name for name in names if name not in taught]
    if missing:
        raise UsageError(f"no teacher for {', '.join(missing)}; there are teachers for {', '.join(taught) or 'none'}")
    prompts = stack(teachers)
    return torch.stack([prompts[taught.index(name)] for name in names]).cpu()


def _refuse_missing(layers: Sequence[int], backbone: Backbone) -> None:
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
