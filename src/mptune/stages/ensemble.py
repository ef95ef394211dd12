"""Target adaptation with unlabelled rows: unlike teachers answer them, and one prompt learns from labels and answers.

The teachers learn from the same labelled rows, each in its own way: an adapted prompt, a prompt from scratch, and a
fine-tuned copy of the backbone. What they agree on is mostly right, and they err on different rows. The student is one
soft prompt, begins as the adapted one, and nothing else is needed to answer.

Source: Schick and Schütze 2021 (arXiv:2001.07676), who distil an ensemble of fine-tuned models in this way.
"""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from mptune.answers.reader import Reader
from mptune.config import AdaptConfig, TeachConfig, TrainingConfig, WeightsConfig
from mptune.errors import UsageError
from mptune.files import digest, write_file
from mptune.model.backbone import Backbone
from mptune.model.batch import Batch
from mptune.model.encoding import encode
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import TaskVectors
from mptune.stages.adaptation import Target, adapt, adapt_together, optimizer_of, refuse_wrong
from mptune.stages.experiment import Experiment, tasks_of
from mptune.stages.losses import supervised_loss
from mptune.stages.pseudo_labels import PseudoLabels
from mptune.stages.sampling import single_task
from mptune.stages.teachers import teach
from mptune.stages.training import Learner, Training
from mptune.stages.weights import fine_tuning, tune_weights
from mptune.tasks.data import TaskRows, draw_rows
from mptune.tasks.task import Example, Task

TAUGHT = "teachers.safetensors"  # what the teachers said, in the folder of a run that has not ended


def adapt_with_unlabelled(
    source: MultitaskPrompt,
    task: Task | TaskRows,
    backbone: Backbone | None = None,
    config: AdaptConfig | None = None,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    report_to: Sequence[str] = (),
) -> MultitaskPrompt:
    """Return the prompt of a target task, learnt from its labels and from what teachers say of its unlabelled rows.

    ``L = L_PLM + L_labels + CE(teachers, student)``, the last over as many unlabelled rows.

    Args:
        source: as of `adapt`.
        task: with label words and ``dataset.unlabelled``.

    Raises:
        UsageError: a task without either.
        UnknownNameError, BackboneMismatch, DataError: as `adapt`.
    """
    refuse_wrong(source, backbone, config)
    (task,) = tasks_of([task])
    backbone, config = backbone or load_backbone(source.backbone_config), config or AdaptConfig()
    source.check_backbone(backbone)
    rows = TaskRows.of(task, data_dir)
    unlabelled = unlabelled_of(rows, config)
    texts = digest("\n".join(example.input for example in unlabelled))
    also = {"source": source.digest(), "taught by": config.model_dump(mode="json"), "unlabelled": texts}
    steps = {"steps": config.unlabelled_steps, "epochs": None, "most_epochs": None}
    learns, length = config.model_copy(update=steps), source.prompt_length
    with Experiment("target", [rows], backbone, learns, length, out=out, also=also) as experiment:
        if (done := experiment.finished()) is not None:
            return done
        start, taught = _taught(source, rows, unlabelled, config, experiment)
        card = experiment.card(sources=[each.name for each in source.tasks])
        prompt = MultitaskPrompt(start["shared"], TaskVectors(start["u"], start["v"]), card)
        labelled = single_task(experiment.data.sizes[0], config.batch_size, experiment.random)
        batches = taught.beside(labelled, config.batch_size, experiment.random)
        learner = Learner(experiment, prompt, optimizer_of(prompt, config, backbone), batches)

        def read(batch: Batch) -> tuple[Tensor, Batch]:
            return learner.module([0]), batch

        with Training([learner], backbone, title=f"adapt {rows.name}, taught", report_to=report_to) as training:
            for step in training:
                prompts, batch = read(step.batch())
                logits = backbone(prompts, batch).logits
                loss = supervised_loss(backbone, prompts, batch, logits, config.label_weight)
                training.descend(loss + taught.loss(step.picks[0], backbone, read))
        if experiment.run.writes:
            (experiment.run.folder / TAUGHT).unlink(missing_ok=True)
        return experiment.finish(prompt)


def adapt_by_all_rows(
    source: MultitaskPrompt, targets: Sequence[Target], backbone: Backbone, *, report_to: Sequence[str] = ()
) -> list[MultitaskPrompt]:
    """Return the prompt of one target, or those of several seeds of it, learnt from all rows that its task names.

    With unlabelled rows one seed after the other, as `adapt_with_unlabelled`; a group, or a task without any, as
    `adapt` and `adapt_together`.
    """
    tasks, config = [TaskRows.of(task) for task in targets[0].tasks], targets[0].config
    if len(tasks) == 1 and config.unlabelled_rows and tasks[0].task.verbalizer and tasks[0].unlabelled():
        return [adapt_with_unlabelled(source, tasks[0], backbone, target.config, out=target.out, report_to=report_to)
                for target in targets]  # fmt: skip
    if len(targets) == 1:
        return [adapt(source, tasks, backbone, config, out=targets[0].out, report_to=report_to)]
    return adapt_together(source, targets, backbone, report_to=report_to)


def teachers_of(
    source: MultitaskPrompt, rows: TaskRows, backbone: Backbone, config: AdaptConfig
) -> tuple[MultitaskPrompt, list[tuple[Backbone, Tensor | Reader]]]:
    """Return the adapted prompt, and all teachers, which have learnt from the same labelled rows.

    A prompt from scratch and a fine-tuned copy have the rates of their own defaults, and all else as the adaptation.
    Of a backbone in few bits there is no such copy.
    """
    alike = {name: getattr(config, name) for name in TrainingConfig.model_fields}
    adapted = adapt(source, rows, backbone, config)
    scratch = teach(rows, backbone, TeachConfig(**alike, prompt_length=source.prompt_length))
    prompts = [(backbone, prompt.collapse()[0]) for prompt in (adapted, scratch)]
    if backbone.config.bits:  # which cannot be fine-tuned
        return adapted, [*prompts]
    copied = tune_weights(fine_tuning, [rows], backbone, WeightsConfig(**alike))
    return adapted, [*prompts, (copied.backbone, copied.reader)]


def ensemble_labels(
    source: MultitaskPrompt, rows: TaskRows, unlabelled: Sequence[Example], backbone: Backbone, config: AdaptConfig
) -> tuple[MultitaskPrompt, PseudoLabels]:
    """Return the adapted prompt, and what all teachers think of unlabelled rows."""
    adapted, teachers = teachers_of(source, rows, backbone, config)
    data = encode(rows.task, unlabelled, backbone, config, source.prompt_length)
    return adapted, PseudoLabels.of_teachers(teachers, data, config.sharpening)


def _taught(
    source: MultitaskPrompt,
    rows: TaskRows,
    unlabelled: Sequence[Example],
    config: AdaptConfig,
    experiment: Experiment[AdaptConfig],
) -> tuple[dict[str, Tensor], PseudoLabels]:
    """Return the adapted prompt's tensors and the teachers' answers, from the folder of a run that was killed later."""
    backbone, run = experiment.backbone, experiment.run
    if run.out is not None and (run.folder / TAUGHT).is_file():
        said = load_file(run.folder / TAUGHT)
        return said, PseudoLabels(encode(rows.task, unlabelled, backbone, config, source.prompt_length), said["odds"])
    adapted, taught = ensemble_labels(source, rows, unlabelled, backbone, config)
    said = {**adapted.tensors(), "odds": taught.odds}
    if run.writes:
        write_file(run.folder / TAUGHT, save(said))
    return said, taught


def unlabelled_of(rows: TaskRows, config: AdaptConfig) -> tuple[Example, ...]:
    """Return the unlabelled rows to learn from."""
    found = rows.unlabelled()
    if not found or not rows.task.verbalizer:
        raise UsageError(
            f"{rows.name} has no rows without labels, or no label words; name a file under dataset: unlabelled:, "
            "or adapt by its labelled rows alone"
        )
    return draw_rows(found, config.unlabelled_rows, config.seed)
