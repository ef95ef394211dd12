"""Stage 2, source training: K teacher prompts in, one multitask prompt out."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mptune.config import DistillConfig
from mptune.errors import ConfigError, UsageError, refuse_type
from mptune.files import digest
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE, Batch, Output, Pick
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt, refuse_namesakes, stack
from mptune.prompts.vectors import neutral_vectors, sample_vocabulary
from mptune.stages.experiment import Experiment, one_or_several, tasks_of
from mptune.stages.instructions import Instruction
from mptune.stages.losses import hidden_distillation, logit_distillation, supervised_loss
from mptune.stages.optimization import two_speed
from mptune.stages.sampling import all_tasks, mixing_rates, single_task, stochastic_tasks
from mptune.stages.teacher_outputs import TeacherOutputs
from mptune.stages.training import Learner, Training
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task

OF_AN_INSTRUCTION = 20  # soft tokens of a student, where nothing says otherwise


def distill(
    tasks: Sequence[Task | TaskRows],
    teachers: Sequence[MultitaskPrompt] | Sequence[Instruction],
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
        teachers: prompts whose tasks have the names of the source tasks; or written instructions for them, which are
            compared by their logits alone, since they are read with other tokens. One instruction is enough.

    Raises:
        ConfigError: a hidden layer that the backbone does not have.
        UsageError: fewer than two tasks of prompts, or teachers that do not fit them.
        BackboneMismatch: a teacher of another model.

    Source: Wang et al. 2023, sections 3.1 and 3.2.
    """
    _refuse_wrong(teachers, backbone, config)
    backbone, config = backbone or load_backbone(), config or DistillConfig()
    rows = [TaskRows.of(task, data_dir) for task in tasks_of(tasks)]
    taught_by = Teachers.of([each.name for each in rows], teachers, backbone)
    layers = _layers(taught_by, config, backbone)
    length = config.prompt_length or taught_by.prompts.shape[1] or OF_AN_INSTRUCTION
    also = {"teachers": taught_by.digest}
    with Experiment("source", rows, backbone, config, length, out=out, also=also) as experiment:
        if (done := experiment.finished()) is not None:
            return done
        config = experiment.config
        decomposed = config.decomposition and len(rows) > 1
        student = _student(taught_by, length, experiment, decomposed)
        shared_lr, task_lr = config.shared_lr * backbone.embedding_rms, config.task_lr if decomposed else None
        optimizer = two_speed(student, config, shared_lr=shared_lr, task_lr=task_lr)
        # The same batches from a copy of the generator: the rows that the steps will meet.
        ahead = itertools.islice(_batches(experiment, experiment.random.clone_state()), config.steps)
        taught = _teachers_outputs(taught_by, ahead, layers, experiment)

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


def _refuse_wrong(teachers: object, backbone: object, config: object) -> None:
    for each in one_or_several(teachers):
        refuse_type("each of a list of teachers", each, MultitaskPrompt, Instruction)
    refuse_type("teachers", teachers, list, tuple)
    refuse_type("backbone", backbone, Backbone, type(None))
    refuse_type("config", config, DistillConfig, type(None))


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


@dataclass(frozen=True)
class Teachers:
    """One teacher for each of K tasks: a prompt, or an instruction that stands where a prompt would."""

    prompts: Tensor  # [K, L, D]; L is 0 of instructions
    instructions: tuple[Instruction, ...] = ()

    @classmethod
    def of(
        cls, names: Sequence[str], teachers: Sequence[MultitaskPrompt] | Sequence[Instruction], backbone: Backbone
    ) -> "Teachers":
        """Return every task's own teacher, in the tasks' order.

        Raises:
            UsageError: teachers that do not fit the tasks, or both kinds at once.
        """
        prompts = [each for each in teachers if isinstance(each, MultitaskPrompt)]
        written = {each.task.name: each for each in teachers if isinstance(each, Instruction)}
        if not written:
            return cls(_teacher_of_each(names, prompts, backbone))
        if prompts or len(written) < len(teachers) or set(names) != set(written):
            raise UsageError(
                f"instructions teach the tasks that they are of, one each, and no prompts beside them; got tasks "
                f"{', '.join(names)} and {len(teachers)} teachers, with instructions of {', '.join(written)}"
            )
        return cls(torch.zeros(len(names), 0, backbone.width), tuple(written[name] for name in names))

    @property
    def digest(self) -> str:
        """What is equal where teachers are."""
        texts = "\n\n".join(each.text for each in self.instructions)
        return digest(self.prompts.numpy().tobytes() + texts.encode())


def _student(
    teachers: Teachers, length: int, experiment: Experiment[DistillConfig], decomposed: bool
) -> MultitaskPrompt:
    """Return the multitask prompt at its start, with vectors about one.

    It is a vocabulary sample, or the teachers' mean; of instructions their own words, evenly spread.
    """
    config, backbone, random = experiment.config, experiment.backbone, experiment.random
    shared = sample_vocabulary(backbone.embeddings, length, random)
    if teachers.instructions:
        words = [token for each in teachers.instructions for token in each.tokens(backbone)]
        spread = torch.linspace(0, len(words) - 1, length).round().long().tolist()
        shared = backbone.embeddings[[words[place] for place in spread]]
    elif config.initialise == "teachers":
        shared = _mean_of_equally_long(teachers.prompts, length)
    noise = config.noise if decomposed else 0.0
    vectors = neutral_vectors(len(teachers.prompts), length, backbone.width, config.rank, noise, random)
    return MultitaskPrompt(shared, vectors, experiment.card(sources=[task.name for task in experiment.tasks]))


def _batches(experiment: Experiment[DistillConfig], random: torch.Generator) -> Iterator[list[Pick]]:
    """Yield the rows of batch after batch, without end."""
    config, sizes = experiment.config, experiment.data.sizes
    if len(sizes) == 1:
        return single_task(sizes[0], config.batch_size, random)
    if config.sampling == "all":
        return all_tasks(sizes, config.batch_size, random)
    return stochastic_tasks(sizes, mixing_rates(sizes, config.mixing, config.mixing_cap), config.batch_size, random)


def _teachers_outputs(
    teachers: Teachers, ahead: Iterable[list[Pick]], layers: Sequence[int], experiment: Experiment[DistillConfig]
) -> TeacherOutputs | None:
    """Return what the teachers answer to the rows of the coming batches; None where only the labels count."""
    config, run = experiment.config, experiment.run
    if not config.distill_weight:
        return None
    needed = itertools.chain.from_iterable(ahead)
    room, folder = int(config.teacher_cache * 2**30), run.folder if run.writes else None
    backbone, data = experiment.backbone, experiment.data.train
    if teachers.instructions:
        read = zip(teachers.instructions, data, strict=True)
        data = tuple(each.encode(rows.examples, backbone, config) for each, rows in read)
    return TeacherOutputs(backbone, teachers.prompts, data, layers, needed, room=room, folder=folder)


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


def _layers(teachers: Teachers, config: DistillConfig, backbone: Backbone) -> tuple[int, ...]:
    """Return the hidden layers that are compared: none with instructions, behind which other tokens stand.

    Raises:
        ConfigError: layers that the backbone does not have; 0 is what comes before the first.
    """
    if not config.distill_weight or not config.hidden_weight or teachers.instructions:
        return ()
    layers, depth = config.hidden_layers, backbone.depth
    missing = [] if depth is None else [layer for layer in layers if not -depth - 1 <= layer <= depth]
    if missing:
        raise ConfigError(
            "distill", [f"hidden_layers wants 0..{depth} of this backbone, or -1 for the last; got {missing}"]
        )
    return layers


def _mean_of_equally_long(teachers: Tensor, length: int) -> Tensor:
    if teachers.shape[1] != length:
        raise UsageError(
            f"distill.initialise = teachers wants a student as long as they are, {teachers.shape[1]} soft tokens; "
            f"got prompt_length {length}"
        )
    return teachers.mean(0)
