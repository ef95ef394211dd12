"""Stage 1: one source task in, one teacher prompt out. The same function is plain prompt tuning."""

from collections.abc import Sequence
from pathlib import Path

from mptune.config import TeachConfig
from mptune.errors import refuse_type
from mptune.model.backbone import Backbone
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import neutral_vectors, sample_vocabulary
from mptune.stages.experiment import Experiment, tasks_of
from mptune.stages.losses import supervised_loss
from mptune.stages.optimization import two_speed
from mptune.stages.sampling import single_task
from mptune.stages.training import Learner, Training
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task


def teach(
    task: Task | TaskRows,
    backbone: Backbone | None = None,
    config: TeachConfig | None = None,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    report_to: Sequence[str] = (),
) -> MultitaskPrompt:
    """Return a soft prompt trained on one task alone, the best of its run by validation score.

    Args:
        task: or its rows, where they have been read already.
        out: folder of the prompt; a killed run goes on from ``<out>.partial``. In memory only where None.
        data_dir: local rows of hub tasks.
        report_to: trackers, as ``("tensorboard",)``.

    Raises:
        DataError: rows that do not fit the task, all of them at once.
        ResumeError: ``out`` holds a run with another configuration.

    Source: prompt tuning, Lester et al. 2021; as a teacher, Wang et al. 2023, section 3.2.
    """
    refuse_type("backbone", backbone, Backbone, type(None))
    refuse_type("config", config, TeachConfig, type(None))
    (task,) = tasks_of([task])
    backbone, config = backbone or load_backbone(), config or TeachConfig()
    length = config.prompt_length
    with Experiment("teacher", [task], backbone, config, length, out=out, data_dir=data_dir) as experiment:
        if (done := experiment.finished()) is not None:
            return done
        config, random = experiment.config, experiment.random
        prompt = MultitaskPrompt(
            sample_vocabulary(backbone.embeddings, length, random),
            neutral_vectors(1, length, backbone.width, rank=1, noise=0, generator=random),
            experiment.card(),
        )
        optimizer = two_speed(prompt, config, shared_lr=config.lr * backbone.embedding_rms, task_lr=None)
        batches = single_task(experiment.data.sizes[0], config.batch_size, random)

        title = f"teach {experiment.tasks[0].name}"
        learner = Learner(experiment, prompt, optimizer, batches)
        with Training([learner], backbone, title=title, report_to=report_to) as training:
            for step in training:
                batch = step.batch()
                prompts = step.prompt(batch.tasks)
                logits = backbone(prompts, batch).logits
                training.descend(supervised_loss(backbone, prompts, batch, logits, config.label_weight))
        return experiment.finish(prompt)
